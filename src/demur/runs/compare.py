"""Compares two runs: the cells that both have, with paired tests, and every setting in which the runs differ.

A cell is shared if both runs have its key. Its verdicts are paired by instruction, over the instructions that both runs have. All
other differences (weights, layer, prompt text, instructions, versions) are listed, because they may have changed a rate.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts, Manifest
from demur.analysis.published_rates import in_words
from demur.analysis.run_comparison import Agreement, Difference, RunComparison, SharedCell
from demur.analysis.study_facts import StudyFacts
from demur.analysis.summary import Summary
from demur.core.errors import InputError
from demur.core.nested import flatten
from demur.core.same_weights import same_weights
from demur.core.statistics import holm, mcnemar, shared
from demur.runs.run import Run, open_run
from demur.runs.run_summary import edit_words
from demur.runs.store import Store
from demur.study.digest import deciding_settings
from demur.study.spec import Study

_WEIGHTS = "weights of "
_OTHER_FILES = "other files of the checkpoint: "
_FACT_WORDS = {"settings": "config.json and adapter_config.json", "stop_ids": "end tokens"}
"""Facts of a checkpoint that are not its weights, by key, with the words for them."""


@dataclass(frozen=True)
class _Completion:
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


Verdicts = Mapping[tuple[str, str], Mapping[str, bool]]
"""(cell key, judge) -> instruction -> refusal."""


def compare(run_a: Run | str | Path, run_b: Run | str | Path) -> RunComparison:
    """Compare two runs: the cells that both have, with paired tests, and the settings in which the runs differ.

    Args:
        run_a: a run, or its folder.
        run_b: another one.

    Returns:
        `cells` with the rates of both runs (fractions) and McNemar's test of each, `agreement` of the completions, and `settings`
        that differ.

    Raises:
        InputError: if a folder holds no run, if a run holds no verdicts, or if the two share no judged cell.

    Example:
        >>> import demur
        >>> demur.compare("nowhere", "nowhere")
        Traceback (most recent call last):
        demur.core.errors.InputError: 'nowhere' holds no run of demur (no run.sqlite); make one with demur run STUDY --out DIR
    """
    with ExitStack() as opened:
        first, second = (one if isinstance(one, Run) else opened.enter_context(open_run(one)) for one in (run_a, run_b))
        return compare_runs(first, second)


def compare_runs(first: Run, second: Run) -> RunComparison:
    """Compare two runs.

    Args:
        first: a run.
        second: another run.

    Returns:
        The cells that both have with paired tests, how far their completions agree, and the settings in which the runs differ.

    Raises:
        InputError: if a run holds no verdicts, or if the two share no judged cell.
    """
    sides = _side(first), _side(second)
    verdicts = sides[0].verdicts(), sides[1].verdicts()
    for side, found in zip(sides, verdicts, strict=True):
        if not found:
            raise InputError(
                f"{str(side.run.path)!r} has no verdicts yet; run its study, or judge the stored completions with demur report"
            )
    cells = [cell for judge in first.judges() for cell in _shared(judge, *verdicts, sides[0].cells)]
    if not cells:
        raise InputError(
            f"{str(first.path)!r} and {str(second.path)!r} have no judged cell in common, so there is nothing to compare; their "
            f"targets are {sides[0].targets()} and {sides[1].targets()}"
        )
    keys = [{key for key, _ in found} for found in verdicts]
    return RunComparison(
        cells=tuple(cells),
        agreement=_agreement(sides[0].completions, sides[1].completions),
        settings=_differences(sides[0], sides[1]),
        only_first=len(keys[0] - keys[1]),
        only_second=len(keys[1] - keys[0]),
        context=_context(sides[0]),
    )


def _side(run: Run) -> _Side:
    with closing(Store.open(run.path)) as store:
        manifest, cells, directions = store.manifest(), store.cells(), store.directions()
    completions = []
    for row in run.completions().to_dict("records"):
        # A run that is not finished may have completions without a verdict.
        given = {judge: refusal for judge in run.judges() if isinstance(refusal := row.get(f"{judge}_refusal"), bool)}
        completions.append(_Completion(row["key"], row["instruction"], tuple(row["token_ids"]), given))
    return _Side(run, manifest, {cell.key: cell for cell in cells}, directions, completions)


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
    pairs = []
    for key, named in first:
        if named == judge and (key, judge) in second:
            one, other = shared(first[key, judge], second[key, judge])
            if one:
                pairs.append((cells[key], sum(one) / len(one), sum(other) / len(other), mcnemar(one, other)))
    adjusted = holm([paired.p_value for *_, paired in pairs])
    return [SharedCell(cell, judge, a, b, paired, p) for (cell, a, b, paired), p in zip(pairs, adjusted, strict=True)]


def _differences(first: _Side, second: _Side) -> tuple[Difference, ...]:
    judges = set(first.run.judges()).intersection(second.run.judges())
    one, other = (_described(side.manifest, judges) for side in (first, second))
    # Runs of earlier versions do not store these facts. A missing fact is not a difference.
    names = [name for name in {**one, **other} if (name in one and name in other) or not name.startswith(_OTHER_FILES)]
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
