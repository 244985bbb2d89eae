"""Compares runs with the first of them: the cells that both have, with paired tests, and every setting in which they differ.

A cell is shared if both runs have its key, after names that stand for the same thing were matched. Its verdicts are paired by
instruction, over the instructions that both runs have. All other differences (weights, layer, prompt text, instructions,
versions) are listed, because they may have changed a rate.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, overload

from pydantic import JsonValue

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts, Manifest
from demur.analysis.matched_names import Match, Renaming, RunNames, matches_of, renamings
from demur.analysis.published_rates import in_words
from demur.analysis.run_comparison import Agreement, Difference, RunComparison, SharedCell
from demur.analysis.study_facts import StudyFacts
from demur.analysis.summary import Summary
from demur.core.errors import InputError
from demur.core.nested import flatten
from demur.core.same_weights import same_weights
from demur.core.statistics import holm, mcnemar, shared
from demur.report.large_runs.paused_collection import collection_paused
from demur.runs.run import Run, open_run
from demur.runs.store import Store
from demur.runs.summarising.analysed_run import edit_words
from demur.study.digest import deciding_settings
from demur.study.spec import Study

_WEIGHTS = "weights of "
_OTHER_FILES = "other files of the checkpoint: "
_FACT_WORDS = {"settings": "config.json and adapter_config.json", "stop_ids": "end tokens"}
"""Facts of a checkpoint that are not its weights, by key, with the words for them."""


class _Completion(NamedTuple):
    """A stored completion with its verdicts by judge."""

    key: str
    instruction: str
    token_ids: tuple[int, ...]
    refusals: Mapping[str, bool]


@dataclass(frozen=True)
class _Side:
    """The stored results of one of the two runs."""

    run: Run
    manifest: Manifest
    cells: Mapping[str, Cell]
    directions: Sequence[DirectionFacts]
    completions: Sequence[_Completion]

    def verdicts(self) -> dict[tuple[str, str], dict[str, bool]]:
        """(cell key, judge) -> instruction -> refusal, in the order of the judges, then of the cells."""
        found: dict[tuple[str, str], dict[str, bool]] = {}
        for judge in self.run.judges():
            for one in self.completions:
                if judge in one.refusals:
                    found.setdefault((one.key, judge), {})[one.instruction] = one.refusals[judge]
        return found

    def targets(self) -> str:
        """The names of the target checkpoints, for an error message."""
        return ", ".join(dict.fromkeys(cell.target for cell in self.cells.values()))

    def names(self) -> RunNames:
        """The names in the run that may be matched with those of another run."""
        return RunNames(str(self.run.path), tuple(dict.fromkeys(cell.arm for cell in self.cells.values())))

    def renamed(self, new: Renaming) -> "_Side":
        """The same results under the first run's names."""
        keys = {key: new.key(cell) for key, cell in self.cells.items()}
        renamed = {key: name for key, name in keys.items() if name != key}
        return replace(
            self,
            manifest=new.manifest(self.manifest),
            cells={keys[key]: cell for key, cell in self.cells.items()},
            completions=[one._replace(key=renamed[one.key]) if one.key in renamed else one for one in self.completions],
        )


Verdicts = Mapping[tuple[str, str], Mapping[str, bool]]
"""(cell key, judge) -> instruction -> refusal."""

SameNames = Mapping[str, str | Sequence[str]]
"""Names in the first run, each with its name or its names in the other runs."""


@overload
def compare(run_a: Run | str | Path, run_b: Run | str | Path, *, match: SameNames | None = None) -> RunComparison: ...


@overload
def compare(
    run_a: Run | str | Path,
    run_b: Run | str | Path,
    run_c: Run | str | Path,
    /,
    *more: Run | str | Path,
    match: SameNames | None = None,
) -> tuple[RunComparison, ...]: ...


def compare(
    run_a: Run | str | Path, run_b: Run | str | Path, *more: Run | str | Path, match: SameNames | None = None
) -> RunComparison | tuple[RunComparison, ...]:
    """Compare runs with the first one: the cells that both have, with paired tests, and the settings in which the runs differ.

    Args:
        run_a: a run, or its folder; every other run is compared with it.
        run_b: another one.
        more: further runs, each compared with the first.
        match: names that stand for the same thing. `{"before": "base"}` says that what the first run calls `before` is called
            `base` in the others. A name is that of a checkpoint, of a prompt format, or of an arm (`checkpoint/prompt`). A list
            gives several names, if the other runs use different ones.

    Returns:
        For two runs one comparison: `cells` with the rates of both runs (fractions) and McNemar's test of each, `agreement` of
        the completions, and `settings` that differ. For more runs a tuple with one comparison for each run after the first;
        `p_holm` is then corrected over the shared cells of the judge in all of them.

    Raises:
        InputError: if a folder holds no run, if a run holds no verdicts, if a run shares no judged cell with the first, or if
            `match` has a name that the runs do not have.

    Example:
        >>> import demur
        >>> demur.compare("nowhere", "nowhere")
        Traceback (most recent call last):
        demur.core.errors.InputError: 'nowhere' holds no run of demur (no run.sqlite); make one with demur run STUDY --out DIR
    """
    with ExitStack() as opened:
        runs = [one if isinstance(one, Run) else opened.enter_context(open_run(one)) for one in (run_a, run_b, *more)]
        found = compare_runs(runs[0], *runs[1:], matches=matches_of(match or {}))
    return found if more else found[0]


def compare_runs(first: Run, *others: Run, matches: Sequence[Match] = ()) -> tuple[RunComparison, ...]:
    """Compare every other run with the first.

    Args:
        first: a run.
        others: the other runs.
        matches: names that stand for the same thing in the first run and in others.

    Returns:
        One comparison for each of the other runs: the cells that both have with paired tests, how far their completions agree,
        and the settings in which the runs differ.

    Raises:
        InputError: if a run holds no verdicts, if one shares no judged cell with the first, or for a match of unknown names.
    """
    with collection_paused():
        one, *rest = map(_side, (first, *others))
        renamed = renamings(matches, one.names(), [side.names() for side in rest])
        found = [_compared(one, side.renamed(new), new) for side, new in zip(rest, renamed, strict=True)]
        return tuple(_corrected(found))


def _compared(first: _Side, second: _Side, new: Renaming) -> RunComparison:
    """The comparison of two runs. Its p values are not corrected yet."""
    verdicts = first.verdicts(), second.verdicts()
    for side, own in zip((first, second), verdicts, strict=True):
        if not own:
            raise InputError(
                f"{str(side.run.path)!r} has no verdicts yet; run its study, or judge the stored completions with demur report"
            )
    cells = [cell for judge in first.run.judges() for cell in _shared(judge, *verdicts, first.cells)]
    if not cells:
        raise InputError(
            f"{str(first.run.path)!r} and {str(second.run.path)!r} have no judged cell in common, so nothing to compare; "
            f"their targets are {first.targets()} and {second.targets()} (where two names stand for one checkpoint, --match "
            "A_NAME=B_NAME says so)"
        )
    keys = [{key for key, _ in own} for own in verdicts]
    return RunComparison(
        cells=tuple(cells),
        agreement=_agreement(first.completions, second.completions),
        settings=_differences(first, second, new.matches),
        only_first=len(keys[0] - keys[1]),
        only_second=len(keys[1] - keys[0]),
        context=_context(first),
        matched=tuple((each.first, each.other) for each in new.matches if each.first != each.other),
    )


def _corrected(found: Sequence[RunComparison]) -> list[RunComparison]:
    """The same comparisons with Holm's correction over the shared cells of each judge in all of them."""
    places = [(number, place) for number, one in enumerate(found) for place in range(len(one.cells))]
    cells = {(number, place): found[number].cells[place] for number, place in places}
    for judge in dict.fromkeys(cell.judge for cell in cells.values()):
        family = [where for where in places if cells[where].judge == judge]
        for where, adjusted in zip(family, holm([cells[where].paired.p_value for where in family]), strict=True):
            cells[where] = replace(cells[where], p_holm=adjusted)
    return [
        replace(one, cells=tuple(cells[number, place] for place in range(len(one.cells)))) for number, one in enumerate(found)
    ]


def _side(run: Run) -> _Side:
    with closing(Store.open(run.path)) as store, store.snapshot():
        manifest, directions, results, rows = store.manifest(), store.directions(), store.results(), store.completions()
    judges = run.judges()
    given: dict[tuple[str, int], dict[str, bool]] = {}
    for verdict in results.verdicts:
        if verdict.judge in judges:
            given.setdefault((verdict.cell, verdict.position), {})[verdict.judge] = verdict.refusal
    # A run that is not finished may have completions without a verdict.
    # A part of a spread has no row of its own.
    cells = {cell.key: cell for cell in results.rows}
    completions = [
        _Completion(row.cell, row.instruction, tuple(row.token_ids), given.get((row.cell, row.position), {}))
        for row in rows
        if row.cell in cells
    ]
    return _Side(run, manifest, cells, directions, completions)


def _context(side: _Side) -> Summary:
    """A summary without cells. A table needs it to name the shared cells."""
    manifest = side.manifest
    return Summary(
        study=manifest.study,
        judge_labels={judge.name: judge.labels for judge in manifest.judges},
        edits=edit_words(list(side.cells.values()), manifest),
        checkpoints=manifest.checkpoints,
        arms=manifest.arms,
        directions=tuple(side.directions),
    )


def _agreement(first: Sequence[_Completion], second: Sequence[_Completion]) -> Agreement:
    tokens = {(one.key, one.instruction): one.token_ids for one in first}
    pairs = [(tokens[place], one.token_ids) for one in second if (place := (one.key, one.instruction)) in tokens]
    whole = [one[: len(other)] == other[: len(one)] for one, other in pairs]
    return Agreement(len(pairs), sum(one[0] == other[0] for one, other in pairs), sum(whole))


def _shared(judge: str, first: Verdicts, second: Verdicts, cells: Mapping[str, Cell]) -> list[SharedCell]:
    """The shared cells of a judge, with the p value of each test alone in place of the corrected one."""
    found = []
    for key, named in first:
        if named == judge and (key, judge) in second:
            one, other = shared(first[key, judge], second[key, judge])
            if one:
                paired = mcnemar(one, other)
                found.append(SharedCell(cells[key], judge, sum(one) / len(one), sum(other) / len(other), paired, paired.p_value))
    return found


def _differences(first: _Side, second: _Side, matches: Sequence[Match]) -> tuple[Difference, ...]:
    judges = set(first.run.judges()).intersection(second.run.judges())
    one, other = (_described(side.manifest, judges) for side in (first, second))
    # Runs of earlier versions do not store these facts. A missing fact is not a difference.
    names = [name for name in {**one, **other} if (name in one and name in other) or not name.startswith(_OTHER_FILES)]
    # Of matched formats one may have its text in the study and the other in demur. The texts of the arms are compared below.
    texts = {f"prompts.{match.first}" for match in matches}
    names = [name for name in names if (name in one and name in other) or name not in texts]
    # A fingerprint that an earlier version stored has only the first of two parts.
    names = [name for name in names if not (name.startswith(_WEIGHTS) and same_weights(one.get(name), other.get(name)))]
    found = (Difference(name, in_words(one.get(name)), in_words(other.get(name))) for name in names)
    return tuple(each for each in found if each.first != each.second)


def _described(manifest: Manifest, judges: Collection[str]) -> dict[str, JsonValue]:
    """Everything that affects a run's results, by name, with the study's settings first."""
    study = StudyFacts.of(manifest.study)
    # In float32 a row's tokens do not depend on its batch; in lower precision, and in 8 bits, they may.
    exact = study.dtype == "float32" and not any(each.quantise for each in study.checkpoints.values())
    # Runs of earlier versions store no value for keys that their version did not have.
    settings = deciding_settings(Study, manifest.study, also=() if exact else ("batch_tokens",))
    # Measurements affect no completion and no verdict.
    found = flatten({key: value for key, value in settings.items() if key != "measurements"}, index=".{}")
    for name, facts in manifest.checkpoints.items():
        found[f"{_WEIGHTS}{name}"] = facts.fingerprint
        stored, plain = facts.model_fields_set, facts.model_dump(mode="json")
        found |= {f"{_OTHER_FILES}{what} of {name}": plain[key] for key, what in _FACT_WORDS.items() if key in stored}
    for arm in manifest.arms:
        found[f"prompt text of {arm.name}"] = arm.template
        found[f"token read in {arm.name}"] = arm.token_read
    for label, sets in manifest.instructions.items():
        found |= {f"{label} test instructions": sets.sha256, f"{label} training instructions": sets.train_sha256}
    found |= _machines(manifest)
    found |= {f"version of {name}": version for name, version in (manifest.versions or {}).items()}
    found |= {f"rules of judge {judge.name}": judge.version for judge in manifest.judges if judge.name in judges}
    return found


def _machines(manifest: Manifest) -> dict[str, JsonValue]:
    """The devices and machines of a run. Another one rounds sums differently, which may change a choice between close tokens."""
    if not manifest.sessions:
        return {}
    kinds = [session.environment for session in manifest.sessions]
    return {
        "device": ", ".join(dict.fromkeys(session.device for session in manifest.sessions)),
        "machine": ", ".join(dict.fromkeys(f"{kind.machine} {kind.system}, {kind.cores} cores" for kind in kinds)),
    }
