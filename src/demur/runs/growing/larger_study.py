"""Lets a run go on with a larger study: checks that nothing stored would change its meaning, and says what is reused and new.

Nothing heavy is imported here, so that a study that cannot go on in a folder is refused at once.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from demur.analysis.manifest import InstructionFacts
from demur.core.atomic_files import is_file
from demur.core.errors import InputError
from demur.measurements.measurement import measurement
from demur.models.compatibility import compare
from demur.runs import schema
from demur.runs.database.damage import FILE
from demur.runs.growing.growth import Growth, growth
from demur.runs.growing.instruction_records import instruction_facts, refuse_other_instructions
from demur.runs.growing.stored_study import study_facts
from demur.runs.store import Store
from demur.study.digest import Difference, differences, refusal
from demur.study.preflight import Material, Ready, instruction_warnings, precisions
from demur.study.selected_settings import open_keys, with_selected
from demur.study.spec import Study
from demur.study.spec_fields import SELECT


@dataclass(frozen=True)
class _Stored:
    """What a folder holds of its study. A growth that was not used is left out, so that a mistake in it can be mended."""

    study: Mapping[str, JsonValue]
    deciding: Mapping[str, JsonValue]
    instructions: Mapping[str, InstructionFacts]

    @classmethod
    def of(cls, store: Store) -> "_Stored":
        manifest, before = store.manifest(), store.unused_growth() or {}
        study, deciding = before.get("study_facts"), before.get("deciding", store.recall("deciding"))
        sets = before.get("instructions")
        return cls(
            study if isinstance(study, dict) else manifest.study,
            deciding if isinstance(deciding, dict) else {},
            {label: InstructionFacts.model_validate(each) for label, each in sets.items()}
            if isinstance(sets, dict)
            else manifest.instructions,
        )


def check_folder(study: Study, ready: Ready, folder: Path) -> None:
    """Check that a study is the one that a folder holds, or only adds to it. Changes nothing.

    Args:
        study: the study.
        ready: its checked plan; if settings are to be selected, that for planning.
        folder: the run folder; it may be missing.

    Raises:
        InputError: if the folder holds another study. The message has the key and both values.
    """
    file = folder / FILE
    if not is_file(file):
        return
    connection, writable = schema.connect_to_read(file)
    with closing(Store(folder, connection, writable=writable)) as store:
        if store.begun and store.digest != study.digest:
            _added(study, ready, store, _Stored.of(store))


def go_on(study: Study, ready: Ready, tell: Callable[[str], object], store: Store) -> None:
    """Prepare a folder whose digest differs for this study. An earlier version may have computed the digest.

    Args:
        study: the study.
        ready: its checked plan.
        tell: called with one sentence that says what is reused and what is new, if the study adds something.
        store: the run folder, held by this process.

    Raises:
        InputError: in the same cases as `check_folder`.
    """
    if not store.begun:
        # Nothing was made under another study, but its settings may have been selected.
        store.forget("selection")
        return
    stored = _Stored.of(store)
    found = _added(study, ready, store, stored)
    store.shrink()
    if found is None:
        return
    instructions: dict[str, JsonValue] = {
        name: instruction_facts(study, name, each).model_dump(mode="json") for name, each in ready.material.items()
    }
    facts: dict[str, JsonValue] = {
        "study": study.digest,
        "deciding": study.deciding(),
        "study_facts": study_facts(found.study),
        "instructions": instructions,
    }
    store.grow(
        facts,
        tests={label: each.n for label, each in stored.instructions.items()},
        forget_measurements=found.changes_measurements,
        stale_warnings=_stale_warnings(ready, found.before, stored.instructions),
    )
    tell(_sentence(found, store, selected=bool(open_keys(study))))


def _added(study: Study, ready: Ready, store: Store, stored: _Stored) -> Growth | None:
    """What a study adds to the one in a folder; None if nothing that affects results differs."""
    where = str(store.folder)
    chosen = _with_stored_selection(study, stored, store)
    found = differences(chosen, stored.study, stored.deciding)
    if not found:
        return None
    # The settings were selected for the old values of these keys.
    unselected = [each for each in found if each.key.startswith(("checkpoints", "prompts.", "interventions."))]
    if open_keys(study) and unselected:
        raise refusal(unselected, where, "and the run selected its settings without this change")
    added = growth(chosen, stored.study, found, where)
    now = {name: instruction_facts(study, name, each) for name, each in _material_before(ready, stored.instructions).items()}
    refuse_other_instructions(now, stored.instructions)
    if added.changes_measurements:
        _refuse_lost_measurements(store)
    return added


def _with_stored_selection(study: Study, stored: _Stored, store: Store) -> Study:
    """The study with the settings that the run selected, in place of those that it leaves open."""
    opened = open_keys(study)
    if not opened:
        return study
    here, kept = study.deciding(), stored.deciding
    how = [key for key in dict.fromkeys((*here, *kept)) if key.startswith("selection.") and here.get(key) != kept.get(key)]
    found = [Difference(key, here.get(key), kept.get(key)) for key in how]
    found += [Difference(key, SELECT, kept.get(key)) for key in opened if kept.get(key) != SELECT]
    selection = store.selection()
    if found or selection is None:
        raise refusal(found or differences(study, stored.study, kept), str(store.folder))
    return with_selected(study, layer=selection.layer, position=selection.position, coefficients=selection.coefficients)


def _material_before(ready: Ready, instructions: Mapping[str, InstructionFacts]) -> dict[str, Material]:
    """The instructions of a study without the test instructions that it adds to those of the run."""
    return {
        label: replace(each, test=each.test[: instructions[label].n])
        for label, each in ready.material.items()
        if label in instructions
    }


def _refuse_lost_measurements(store: Store) -> None:
    """Refuses to remove records that this installation cannot make again."""
    for name, _ in store.added_measurements():
        try:
            measurement(name)
        except InputError as error:
            raise InputError(
                f"{str(store.folder)!r} has the measurement {name!r}, which this study changes and which cannot be made again "
                f"here ({error}); install what it came from, or give another --out"
            ) from error


def _stale_warnings(ready: Ready, before: Study, instructions: Mapping[str, InstructionFacts]) -> list[str]:
    """Warnings of the smaller study that are not true of the larger one, such as how many instructions are in a set twice."""
    sources = {name: ready.sources[name] for name in before.checkpoints}
    earlier = [*compare(sources), *precisions(before), *instruction_warnings(_material_before(ready, instructions))]
    return [each for each in earlier if each not in ready.warnings]


def _sentence(found: Growth, store: Store, *, selected: bool) -> str:
    done = store.progress()
    reused = [key for key in found.kept if key in done]
    keeps = "; the selected layer and coefficients stay" if selected else ""
    again = "; measurements are made again" if found.changes_measurements else ""
    return (
        f"{str(store.folder)!r} goes on with a larger study: it reuses {len(reused)} of {len(found.plan.cells)} cells "
        f"({sum(done[key] for key in reused):,} completions); new: {', '.join(found.additions())}{keeps}{again}"
    )
