"""Checks of a plan before weights are read and before anything heavy is imported.

They use names, files and counts. Checks that need the weights are made during the run.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from demur.core.errors import InputError, sentence
from demur.directions.controls.control import most_controls
from demur.inputs.duplicates.overlaps import overlap_warnings
from demur.inputs.instructions import InstructionSet, read_instructions
from demur.inputs.instructions import may_be_elsewhere as instructions_may_be_elsewhere
from demur.inputs.prompt_formats import find_format, find_system_format
from demur.inputs.repeated_instructions import first_of_each, sameness, shared_note
from demur.inputs.training_texts import TrainingTexts
from demur.judges.early_stopping import check_foreseen
from demur.judges.judge import get_judge
from demur.judges.judging import check_judge
from demur.models import quantisation
from demur.models.adapters.adapter_settings import check_settings
from demur.models.compatibility import compare, shape
from demur.models.sole_answers import refuse_unnamed_adapter
from demur.models.sources import Source, find_adapter, find_model
from demur.study.plan import Plan
from demur.study.shorthand.spelling_arms import left_out
from demur.study.spec import LABELS, Study


@dataclass(frozen=True)
class Material:
    """The instructions of one set.

    Attributes:
        source: where they were read.
        train: the instructions that directions are made from, those of the first seed; empty for a set that is only asked.
        test: the instructions on which refusals are counted.
        notes: what a reader of the results should know of them.
        draws: the training instructions of each of the study's seeds, with their topics where the set states all of these.
    """

    source: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...] = ()
    draws: Mapping[int | None, TrainingTexts] = field(default_factory=dict)

    def trained(self, seed: int | None) -> tuple[str, ...]:
        """The training instructions of one of the study's seeds."""
        return self.draws[seed].instructions


@dataclass(frozen=True)
class Ready:
    """A plan whose instructions were read and whose checkpoints were found.

    Attributes:
        plan: the plan.
        material: the instructions of each set.
        sources: where the weights of each checkpoint are, by its name.
        warnings: warnings for readers of the results, in sentences.
    """

    plan: Plan
    material: Mapping[str, Material]
    sources: Mapping[str, Source]
    warnings: tuple[str, ...] = ()


def check(plan: Plan, *, judging: bool = True) -> Ready:
    """Check judges, prompt formats, checkpoints, layers, adapters and instructions of a plan.

    Args:
        plan: the plan.
        judging: whether completions are judged here. Otherwise nobody asks for the package, model or key that a judge needs.

    Returns:
        The plan with its instructions and with the places of its checkpoints.

    Raises:
        InputError: for the first thing that is wrong.
    """
    study = plan.study
    _check_names(plan)
    for judge in study.judges if judging else ():
        check_judge(judge)
    sources = {name: find_model(spec.model, spec.revision) for name, spec in study.checkpoints.items()}
    for spec in study.checkpoints.values():
        quantisation.check(spec.quantise)
    warnings = (*compare(sources), *same_weights(study, sources), *precisions(study), *_spellings(study))
    _check_layers(study, sources)
    for name, spec in study.checkpoints.items():
        refuse_unnamed_adapter(spec.model, sources[name], spec.adapter)
        if spec.adapter is not None:
            check_settings(spec.adapter, find_adapter(spec.adapter))
    material = {name: _material(study, name) for name in study.sets}
    overlaps = _overlaps(study, material)
    _check_controls(plan, material)
    _refuse_equal_draws(material)
    return Ready(plan, material, sources, (*warnings, *instruction_warnings(material), *overlaps))


@dataclass(frozen=True)
class OnThisMachine:
    """What the files on this machine tell of a plan.

    Attributes:
        sources: the checkpoints that were found, by name.
        material: the instructions that can be read, by label.
        warnings: warnings for readers of the results, in sentences.
    """

    sources: Mapping[str, Source]
    material: Mapping[str, Material]
    warnings: tuple[str, ...]


def check_what_is_here(plan: Plan) -> OnThisMachine:
    """Make the checks of `check` that names and files on this machine allow. Files that are elsewhere are left out.

    Args:
        plan: the plan.

    Returns:
        What was found.

    Raises:
        InputError: for the first thing that is wrong.
    """
    study = plan.study
    _check_names(plan)
    sources: dict[str, Source] = {}
    for name, spec in study.checkpoints.items():
        with _elsewhere(spec.model):
            sources[name] = find_model(spec.model, spec.revision)
        if spec.adapter is not None and not _may_be_elsewhere(spec.adapter):
            check_settings(spec.adapter, find_adapter(spec.adapter))
        if name in sources:
            refuse_unnamed_adapter(spec.model, sources[name], spec.adapter)
    differences = (*compare(sources), *same_weights(study, sources), *_spellings(study))
    _check_layers(study, sources)
    material: dict[str, Material] = {}
    for name in study.sets:
        source = study.instructions[name].source
        with suppress(InputError) if instructions_may_be_elsewhere(source) else nullcontext():
            material[name] = _material(study, name)
    overlaps = _overlaps(study, material)
    _check_controls(plan, material)
    _refuse_equal_draws(material)
    return OnThisMachine(sources, material, (*differences, *precisions(study), *instruction_warnings(material), *overlaps))


def _check_names(plan: Plan) -> None:
    """Check judges and prompt formats, which are on every machine."""
    study = plan.study
    for name in study.judges:
        get_judge(name)
    if study.until_verdict:
        check_foreseen(study.judges)
    for entry in study.prompts.values():
        find_format(entry if isinstance(entry, str) else entry.format)
    for arm in plan.arms:
        find_system_format(arm.spec, arm.system)


def _elsewhere(reference: str) -> AbstractContextManager[None]:
    """Lets a checkpoint or an adapter be missing if its name does not say that it is here."""
    return suppress(InputError) if _may_be_elsewhere(reference) else nullcontext()


def _may_be_elsewhere(reference: str) -> bool:
    if reference.startswith("demo:"):
        return False
    try:
        return not Path(reference).expanduser().exists()
    except (OSError, RuntimeError):
        return True


def instruction_warnings(material: Mapping[str, Material]) -> list[str]:
    """What a reader of the results should know of the instructions, one sentence each.

    Args:
        material: the instructions of each set.

    Returns:
        The notes of their files, instructions of other sets that are asked twice, and instructions that are in several sets.
    """
    notes = [note for each in material.values() for note in each.notes]
    for label, each in material.items():
        for part in (each.train, each.test):
            # A file's repeats are left out when it is read; sets from elsewhere keep theirs, because their splits are fixed.
            kept = first_of_each(list(map(sameness, part)))
            if len(kept) < len(part):
                notes.append(f"The {label} set {each.source!r} has {len(part) - len(kept)} of {len(part)} instructions twice")
    by_label = [(label, (*each.train, *each.test)) for label, each in material.items()]
    *others, last = [*material] or [""]
    shared = shared_note(by_label, "this study", f"set ({', '.join(others)} and {last})")
    return [sentence(note) for note in (*notes, *([] if shared is None else [shared]))]


def told_of_instructions(study: Study) -> list[str]:
    """The same for the sets of a study that can be read, before anything else of it is checked."""
    found: dict[str, Material] = {}
    for name in study.sets:
        with suppress(InputError):
            found[name] = _material(study, name)
    return instruction_warnings(found)


def _overlaps(study: Study, material: Mapping[str, Material]) -> list[str]:
    """Test instructions that are training instructions, word for word or nearly, in any of the sets."""
    train = [texts.instructions for each in material.values() for texts in each.draws.values()]
    test = [each.test for each in material.values()]
    return overlap_warnings(train, test, ("training", study.split), allowed=study.allow_overlap)


def _refuse_equal_draws(material: Mapping[str, Material]) -> None:
    """Refuses several seeds that all draw the same instructions."""
    draws = [[texts.instructions for texts in each.draws.values()] for each in material.values() if len(each.draws) > 1]
    if draws and all(len(set(map(frozenset, each))) == 1 for each in draws):
        raise InputError(
            f"direction.pairs_seed has {len(draws[0])} seeds, but each draws all {len(draws[0][0])} training instructions, so "
            "their directions would be equal; lower direction.pairs, or leave out the seeds"
        )


def precisions(study: Study) -> list[str]:
    """A warning if the checkpoints are not all quantised in the same way."""
    quantised = {name: spec.quantise for name, spec in study.checkpoints.items()}
    if len(set(quantised.values())) == 1:
        return []
    shown = ", ".join(f"{name} {how or study.dtype}" for name, how in quantised.items())
    return [f"Weights differ in precision ({shown}), so a difference between checkpoints may come from the precision."]


def same_weights(study: Study, sources: Mapping[str, Source]) -> list[str]:
    """A warning for each checkpoint that has the weights of an earlier one, because nothing can differ between the two."""
    seen: dict[object, str] = {}
    found = []
    for name, source in sources.items():
        spec = study.checkpoints[name]
        where = source.path if source.path is not None else source.reference
        adapter = spec.adapter and (spec.adapter if _may_be_elsewhere(spec.adapter) else str(find_adapter(spec.adapter)))
        weights = (str(where), spec.revision, adapter, spec.quantise)
        earlier = seen.setdefault(weights, name)
        if earlier != name:
            found.append(f'"{earlier}" and "{name}" are the same weights under two names, so only their prompts can differ.')
    return found


def _spellings(study: Study) -> list[str]:
    """The small edits of prompt formats that cannot be made."""
    return left_out({name: spec.prompts for name, spec in study.checkpoints.items()}, study.prompts)


def _check_layers(study: Study, sources: Mapping[str, Source]) -> None:
    asked = [*study.direction.places, *(layer for edit in study.interventions for layer in edit.layers or ())]
    for name, source in sources.items():
        known = shape(source)
        if known is None:
            continue
        for layer in asked:
            if layer >= known[0]:
                raise InputError(f"layer {layer} is out of range: {name!r} has layers 0 to {known[0] - 1}")


def _check_controls(plan: Plan, material: Mapping[str, Material]) -> None:
    """Refuse more controls of a kind than the training instructions give, if all of these can be read."""
    if not set(LABELS) <= set(material):
        return
    drawn = [[material[label].draws[seed] for label in LABELS] for seed in plan.study.direction.seeds]
    for kind, count in plan.study.controls.counts.items():
        given = [most_controls(kind, *texts) for texts in drawn]
        most = min((each for each in given if each is not None), default=None)
        arms = len(plan.main_arms)
        if most is not None and count > most * arms:
            raise InputError(
                f"controls.{kind} is {count}, but the training instructions give {most} different ones for each of the "
                f"{arms} arms; ask for at most {most * arms}"
            )


def _material(study: Study, name: str) -> Material:
    spec, whole = study.instructions[name], study.instructions[name].split == "all"
    found = read_instructions(spec.source, split=not whole)
    draws = {seed: _draw(found, study.direction.pairs, seed) for seed in study.direction.seeds} if name in LABELS else {}
    train = next(iter(draws.values())).instructions if draws else ()
    if not whole:
        return Material(found.source, train, found.take(spec.split or study.split, spec.test), found.notes, draws)
    if spec.test > len(found.all()):
        raise InputError(f"{spec.test} instructions of {found.name!r} were asked for, but it has {len(found.all())}")
    return Material(found.source, train, found.all()[: spec.test], found.notes, draws)


def _draw(found: InstructionSet, n: int, seed: int | None) -> TrainingTexts:
    texts = found.take("train", n) if seed is None else found.draw(n, seed)
    return TrainingTexts(texts, found.topics_of(texts))
