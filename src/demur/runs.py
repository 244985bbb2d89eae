"""A run that was made, for reading: its cells, completions and summary as pandas objects, rebuilt from the store.

Adding a judge needs no generation: `judge_stored` gives every stored completion a verdict it does not have yet.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.judges import get_judge
from demur.store import Store
from demur.summary import Refusals, cell_rows, claims, comparisons

if TYPE_CHECKING:
    import pandas


class Run:
    """An open run folder. `cells()` and `completions()` are DataFrames; `summary()` is what `summary.json` holds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.path = store.folder

    def judges(self) -> list[str]:
        """The judges of the study, first the one that figures use."""
        return list(self._store.recall("study_facts")["judges"])

    def _refusals(self) -> Refusals:
        found: dict[tuple[str, str], dict[int, bool]] = {}
        for cell, position, judge, refusal, _, _ in self._store.verdicts():
            found.setdefault((cell, judge), {})[position] = refusal
        return found

    def summary(self) -> dict[str, Any]:
        """Everything that `summary.json` holds, computed from the store."""
        refusals, judges, stored = self._refusals(), self.judges(), self._store.cells()
        rows, compared = cell_rows(stored, refusals, judges), comparisons(stored, refusals, judges)
        directions = self._store.directions()
        return {
            "study": self._store.recall("study_facts"),
            "created": self._store.recall("created"),
            "versions": self._store.recall("versions"),
            "sessions": self._store.recall("sessions", []),
            "warnings": self._warnings(),
            "environment": self._store.recall("environment"),
            "checkpoints": self._store.recall("checkpoints", {}),
            "arms": self._store.recall("arms", []),
            "instructions": self._store.recall("instructions", {}),
            "cells": rows,
            "directions": directions,
            "cosines": self._cosines([entry["name"] for entry in directions if not entry["control"]]),
            "comparisons": compared,
            "claims": claims(rows, compared, refusals, judges[0]),
            "published": [],
        }

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
        from demur.directions import cosines

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

    def judge_stored(self) -> None:
        """Verdicts of the study's judges on every completion that has none yet."""
        for name in self.judges():
            decide = get_judge(name)
            pending = self._store.unjudged(name)
            self._store.add_verdicts((cell, position, decide(text)) for cell, position, text in pending)

    def report(self) -> Path:
        """Write `summary.json`, `report.html`, figures and tables anew from what is stored; returns the page's path."""
        from demur.report import write_report

        with self._store.report_held():
            self.judge_stored()
            self._store.restore_directions()
            with self._store.snapshot():
                summary, completions = self.summary(), self.completions()
            # What a run at work has stored since then has no verdict yet.
            verdicts = [f"{judge}_refusal" for judge in self.judges()]
            completions = completions.dropna(subset=[name for name in verdicts if name in completions.columns])
            self._store.write_text("summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
            return write_report(self.path, summary, completions)


def open_run(folder: str | Path) -> Run:
    """A run that was made earlier. Raises `InputError` where the folder holds none."""
    return Run(Store.open(folder))
