"""A run that was made, for reading: its cells, completions and summary as pandas objects, rebuilt from the store.

Adding a judge needs no generation: `judge_stored` gives every stored completion a verdict that it does not have yet, of the
study's judges and of those that were added. Verdicts of another version of a judge's rules are replaced, so what a summary counts
is one rule's work.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.analysis.headline import answers
from demur.analysis.claims import claims
from demur.core.errors import InputError, nearest
from demur.judges.judge import Judged, Verdict, get_judge
from demur.judges.early_stopping import check_foreseen
from demur.core.html_repr import facts_table
from demur.analysis.published_rates import published_rows, text_and_code
from demur.runs.store import Store
from demur.analysis.rates import Refusals, cell_rows, comparisons

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure


class Run:
    """An open run folder. `cells()` and `completions()` are DataFrames; `summary()` is what `summary.json` holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.path = store.folder

    def __repr__(self) -> str:
        cells, done = self._progress()
        return f"Run({self._store.recall('study_facts')['name']!r}, {cells} cells, {done} completions, in {str(self.path)!r})"

    def _repr_html_(self) -> str:
        study, (cells, done) = self._store.recall("study_facts"), self._progress()
        rows = [
            ("question", study["summary"]),
            ("checkpoints", ", ".join(study["checkpoints"])),
            ("cells", cells),
            ("completions", f"{done:,}"),
            ("judges", ", ".join(self.judges())),
            ("begun", self._store.recall("created")),
            ("folder", self.path),
        ]
        return facts_table(f"Run of {study['name']}", rows)

    def _progress(self) -> tuple[int, int]:
        """Cells, and completions that are stored."""
        keys = [cell["key"] for cell in self._store.cells()]
        return len(keys), sum(len(self._store.done(key)) for key in keys)

    def judges(self) -> list[str]:
        """The judges of the study, first the one that figures use, then those that were added to the run."""
        return list(dict.fromkeys([*self._store.recall("study_facts")["judges"], *self._store.recall("added judges", [])]))

    def add_judges(self, names: Sequence[str]) -> None:
        """More judges for what is stored; nothing is generated, and the next report holds their verdicts.

        Raises `InputError` for an unknown judge, and for one that needs whole completions where they ended at a verdict.
        """
        for name in names:
            get_judge(name)
        if self._store.recall("study_facts").get("until_verdict"):
            check_foreseen(names)
        self._store.remember("added judges", list(dict.fromkeys([*self._store.recall("added judges", []), *names])))

    def _refusals(self) -> Refusals:
        found: dict[tuple[str, str], dict[int, bool]] = {}
        for cell, position, judge, refusal, _, _ in self._store.verdicts():
            found.setdefault((cell, judge), {})[position] = refusal
        return found

    def _labels(self) -> dict[tuple[str, str], Counter[str]]:
        found: dict[tuple[str, str], Counter[str]] = {}
        for cell, _, judge, _, label, _ in self._store.verdicts():
            found.setdefault((cell, judge), Counter())[label] += 1
        return found

    def summary(self) -> dict[str, Any]:
        """Everything that `summary.json` holds, computed from the store."""
        from demur.measurements.layer_summary import located  # imports torch

        refusals, judges, stored = self._refusals(), self.judges(), self._store.cells()
        study, labels = self._store.recall("study_facts"), self._labels()
        rows = [{**row, "labels": dict(labels[row["key"], row["judge"]])} for row in cell_rows(stored, refusals, judges)]
        compared, directions = comparisons(stored, refusals, judges), self._store.directions()
        return {
            "study": study,
            "created": self._store.recall("created"),
            "versions": self._store.recall("versions"),
            "judges": self._store.recall("judge_versions", {}),
            "sessions": self._store.recall("sessions", []),
            "warnings": [*self._unfinished(stored), *self._warnings()],
            "environment": self._store.recall("environment"),
            "checkpoints": self._store.recall("checkpoints", {}),
            "arms": self._store.recall("arms", []),
            "instructions": self._store.recall("instructions", {}),
            "cells": rows,
            "directions": directions,
            "cosines": self._cosines([entry["name"] for entry in directions if not entry["control"]]),
            "by_layer": located(self._store.layerwise(), study["direction"]["layers"], list(study["checkpoints"])),
            "comparisons": compared,
            "answers": answers(rows, compared, refusals, judges[0], list(study["checkpoints"])),
            "claims": claims(rows, compared, refusals, judges[0]),
            "published": published_rows(study, rows, directions),
            "text_and_code": text_and_code(study),
        }

    def _unfinished(self, stored: Sequence[Mapping[str, Any]]) -> list[str]:
        """Whether completions are missing, so that what the figures are of is known."""
        asked = self._store.recall("instructions", {})
        planned = sum(asked[cell["instructions"]]["n"] for cell in stored)
        _, there = self._progress()
        if there >= planned:
            return []
        return [
            f"This run is not finished: {there:,} of {planned:,} completions are there (of each checkpoint those of long prompts "
            "come first), and every figure and sentence is of these."
        ]

    def _warnings(self) -> list[str]:
        """What a reader of the numbers should know, in sentences."""
        found = list(self._store.recall("warnings", []))
        names = ("demur", "torch", "transformers")
        parts = [
            ", ".join(f"{name} {session['versions'][name]}" for name in names) + f" on {session['device']}"
            for session in self._store.recall("sessions", [])
        ]
        took_part = list(dict.fromkeys(parts))
        if len(took_part) > 1:
            found.append(f"More than one version or device took part in this run: {'; '.join(took_part)}.")
        return found

    def _cosines(self, names: list[str]) -> dict[str, Any]:
        from demur.directions.direction import cosines

        loaded = [direction for name in names if (direction := self._store.direction(name)) is not None]
        matrix = cosines(loaded).tolist() if loaded else []
        return {"names": [direction.name for direction in loaded], "matrix": matrix}

    def cells(self) -> "pandas.DataFrame":
        """One row a cell and judge."""
        import pandas

        return pandas.DataFrame(cell_rows(self._store.cells(), self._refusals(), self.judges()))

    def completions(self) -> "pandas.DataFrame":
        """One row a completion, with `{judge}_refusal`, `{judge}_label` and `{judge}_evidence` of every judge."""
        import pandas

        facts = {cell["key"]: cell for cell in self._store.cells()}
        verdicts: dict[tuple[str, int], dict[str, Any]] = {}
        for cell, position, judge, refusal, label, evidence in self._store.verdicts():
            entry = verdicts.setdefault((cell, position), {})
            entry.update({f"{judge}_refusal": refusal, f"{judge}_label": label, f"{judge}_evidence": evidence})
        return pandas.DataFrame(
            [
                {
                    **facts[cell],
                    "index": position,
                    "instruction": instruction,
                    "completion": text,
                    "token_ids": ids,
                    "n_tokens": len(ids),
                    **verdicts.get((cell, position), {}),
                }
                for cell, position, instruction, text, ids in self._store.completions()
            ]
        )

    def figure(self, name: str) -> "Figure":
        """A figure of the report, for Plotly: `rates`, `added`, `ablated`, `transfer`, `cosines`, and, where every layer was
        measured, `cosines-by-layer`, `separation`, `norms`, `projections`.

        Raises `InputError` for a figure that this run does not have, with the nearest one that it has.
        """
        from plotly.graph_objects import Figure

        from demur.report.complete_summary import parsed_summary
        from demur.report.draw_plotly import interactive
        from demur.report.sections.section import ReportView, figures_of

        summary, completions = self._judged()
        found = figures_of(ReportView.of(parsed_summary(summary), completions))
        if name not in found:
            raise InputError(f"this run has no figure {name!r}; {nearest(name, found)}")
        drawn = interactive(found[name])
        return Figure({"data": drawn.data, "layout": drawn.titled()})

    def judge_stored(self) -> None:
        """Verdicts of the run's judges on every completion that has none yet, or one of another version of the judge."""
        for name in self.judges():
            judge, versions = get_judge(name), self._store.recall("judge_versions", {})
            if versions.get(name, 1) != judge.version:
                self._store.forget_verdicts(name)
            pending = self._store.unjudged(name)
            answers = judge.judge([Judged(text, asked) for _, _, asked, text in pending])
            verdicts = [
                (cell, position, answer)
                for (cell, position, _, _), answer in zip(pending, answers, strict=True)
                if isinstance(answer, Verdict)
            ]
            self._store.add_verdicts(verdicts)
            self._store.remember("judge_versions", {**versions, name: judge.version})

    def _judged(self) -> "tuple[dict[str, Any], pandas.DataFrame]":
        """Summary and completions of one moment, without what a run at work has stored and not judged yet."""
        with self._store.snapshot():
            summary, completions = self.summary(), self.completions()
        verdicts = [f"{judge}_refusal" for judge in self.judges()]
        return summary, completions.dropna(subset=[name for name in verdicts if name in completions.columns])

    def report(self) -> Path:
        """Write `summary.json`, `report.html`, figures and tables anew from what is stored; returns the page's path."""
        from demur.report.complete_summary import parsed_summary
        from demur.report.write_report import write_report

        with self._store.report_held():
            self.judge_stored()
            self._store.restore_directions()
            summary, completions = self._judged()
            self._store.write_text("summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
            return write_report(self.path, parsed_summary(summary), completions)


def open_run(folder: str | Path) -> Run:
    """A run that was made earlier. Raises `InputError` where the folder holds none."""
    return Run(Store.open(folder))
