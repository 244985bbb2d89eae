"""Whether a study only adds to the study that a run folder holds, so that the run can go on and keep everything it has.

Both studies are planned, and every stored arm, direction and cell must be in the new plan with the same meaning. So a change that
would give a stored name another meaning is refused, whichever key makes it. This works on plans and plain data and reads no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.study.digest import Difference, refusal, shown, with_defaults
from demur.study.plan import Plan, PlannedCell, PlannedDirection, make_plan
from demur.study.shorthand.named_formats import with_earlier_names
from demur.study.spec import Study, make_study
from demur.study.spec_fields import Facts


@dataclass(frozen=True)
class Growth:
    """What a study adds to the one that a run folder holds.

    Attributes:
        before: the study in the folder.
        study: the study with which the run goes on.
        plan: the plan of `study`.
        kept: the keys of the cells that both studies have.
        differences: the keys that differ.
    """

    before: Study
    study: Study
    plan: Plan
    kept: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def changes_measurements(self) -> bool:
        """Whether stored measurements have to be made again: they may read all test instructions, and all layers' directions."""
        larger = {f"instructions.{name}.test" for name in self.before.instructions}
        return any(each.key == "direction.layers" or each.key in larger for each in self.differences)

    def additions(self) -> list[str]:
        """What is new, a few words each: `checkpoints.third`, `interventions.2`, `instructions.harmful.test 100 -> 200`."""
        found = [f"checkpoints.{name}" for name in self.study.checkpoints if name not in self.before.checkpoints]
        found += [f"instructions.{name}" for name in self.study.instructions if name not in self.before.instructions]
        new = tuple(f"{key}." for key in found)
        for each in self.differences:
            beside = each.key == "checkpoints" or each.key.startswith(new)
            if beside or each.key.startswith("prompts."):
                continue
            whole = each.there is None and each.key.startswith("interventions.") and each.key.count(".") == 1
            found.append(each.key if whole else f"{each.key} {_count(each)} -> {shown(each.here)}")
        return found


def growth(study: Study, stored: Facts, found: Sequence[Difference], where: str) -> Growth:
    """Check that a study only adds to a stored one.

    Args:
        study: the study with which the run is to go on, without open settings.
        stored: the study in the folder as plain data.
        found: the keys that affect results and differ, at least one.
        where: the run folder, for errors.

    Returns:
        What it adds.

    Raises:
        InputError: if a key has changed that results in the folder depend on. The message has the key and both values.
    """
    try:
        before = make_study(with_defaults(Study, with_earlier_names(stored)))
        old = make_plan(before)
    except (InputError, ValueError) as error:  # a part of the stored study is not installed here, or a setting is still open
        raise refusal(found, where) from error
    changed = [each for each in found if not _may_grow(each, before)]
    if changed:
        raise refusal(changed, where)
    new = make_plan(study)
    _refuse_other_arms(old, new, found, where)
    _refuse_other_directions(old, new, found, where)
    _refuse_other_cells(old, new, found, where)
    return Growth(before, study, new, tuple(cell.key for cell in old.cells), tuple(found))


def _may_grow(each: Difference, before: Study) -> bool:
    """Whether a key may differ at all. The plans decide whether this difference only adds."""
    key = each.key
    if key.startswith("checkpoints."):
        known = any(key.startswith(f"checkpoints.{name}.") for name in before.checkpoints)
        return not known or key.endswith(".prompts")
    if key.startswith("prompts."):
        return each.there is None
    if key.startswith("instructions."):
        if key.split(".")[1] not in before.instructions:
            return True
        return key.endswith(".test") and isinstance(each.here, int) and isinstance(each.there, int) and each.here > each.there
    if key == "direction.pairs_seed":
        # The training pairs of the first seed are those of the measurements.
        return isinstance(each.there, list) and isinstance(each.here, list) and each.here[: len(each.there)] == each.there
    if key == "direction.further_estimators":
        earlier, now = each.there or [], each.here or []
        return isinstance(earlier, list) and isinstance(now, list) and now[: len(earlier)] == earlier
    if key == "controls.seed":
        return not before.controls.counts
    if key in ("direction.resamples", "direction.resample_completions"):
        return True
    return key in ("checkpoints", "direction.layers") or key.startswith(("interventions.", "controls."))


def _refuse_other_arms(old: Plan, new: Plan, found: Sequence[Difference], where: str) -> None:
    names = [arm.name for arm in new.arms]
    before = [arm.name for arm in old.arms]
    lost = [name for name in before if name not in names]
    if lost:
        raise _refused(found, where, f"which leaves out {lost[0]}", "checkpoints")
    # Pairs of arms are named in this order.
    if before != [name for name in names if name in before]:
        raise _refused(found, where, "which changes the order of checkpoints or prompts in the run", "checkpoints")


def _refuse_other_directions(old: Plan, new: Plan, found: Sequence[Difference], where: str) -> None:
    by_name = {one.name: one for one in new.directions}
    for one in old.directions:
        now = by_name.get(one.name)
        if now is not None and _meaning(now) == _meaning(one):
            continue
        keys = ("controls.", "checkpoints") if one.control else (*_OF_DIRECTIONS, f"checkpoints.{one.arm.checkpoint}.prompts", "")
        if now is not None and one.control:
            why = f"which makes {one.name} a control for {now.beside!r}, but in the run it is one for {one.beside!r}"
        else:
            place = _place(one)
            renamed = next((each.name for each in new.directions if _place(each) == place), None)
            lost = f"which leaves out the direction {one.name!r}"
            why = lost if renamed is None or one.control else f"which renames the run's direction {one.name!r} to {renamed!r}"
        raise _refused(found, where, why, *keys)


_OF_DIRECTIONS = ("direction.layers", "direction.pairs_seed", "direction.resamples", "direction.further_estimators")


def _place(one: PlannedDirection) -> tuple[object, ...]:
    return one.arm.name, one.layer, one.control, one.resample, one.estimator, one.part


def _meaning(one: PlannedDirection) -> tuple[object, ...]:
    drawn = one.pairs_seed, one.beside, one.control_kind, one.resample
    return one.name, one.source, one.arm.name, one.layer, *drawn, one.estimator, one.part


def _refuse_other_cells(old: Plan, new: Plan, found: Sequence[Difference], where: str) -> None:
    by_key = {cell.key: cell for cell in new.cells}
    for cell in old.cells:
        now = by_key.get(cell.key)
        if now is None:
            raise _refused(found, where, "which leaves out cells of the run", "interventions.")
        if _edit(now) != _edit(cell):
            raise _refused(found, where, "which has the same name as an edit of the run", "interventions.")


def _edit(cell: PlannedCell) -> dict[str, object] | None:
    """All settings of a cell's edit, without those that only say in which cells it is made. Names of cells round doses."""
    if cell.intervention is None:
        return None
    # The name of the cell has its direction and its gate.
    without = {"on", "sources", "targets", "estimators", "read_at", "span", "when"}
    facts = cell.intervention.model_dump(mode="json", exclude=without)
    return facts if facts["coefficient"] is not None else {key: value for key, value in facts.items() if key != "unit"}


def _refused(found: Sequence[Difference], where: str, why: str, *keys: str) -> InputError:
    """The refusal, with the key first that is most likely the cause."""
    places = {each.key: next((n for n, key in enumerate(keys) if each.key.startswith(key)), len(keys)) for each in found}
    ordered = sorted(found, key=lambda each: (places[each.key], each.there is None))
    return refusal(ordered, where, why)


def _count(each: Difference) -> str:
    return "0" if each.there is None and each.key.startswith("controls.") else shown(each.there)
