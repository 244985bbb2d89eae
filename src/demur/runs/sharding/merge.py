"""Joins the shards of a study into one run folder. The same call again changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from demur.core.errors import InputError, WorkError
from demur.core.progress import Phases, no_phases
from demur.runs.run import Run
from demur.runs.sharding.shard import ENTRY
from demur.runs.sharding.shard_checks import StoredShard, check_together
from demur.runs.sharding.shard_verdicts import JUDGE_ENTRIES, join_judges
from demur.runs.store import Store

if TYPE_CHECKING:
    from demur.directions.direction import Direction

ROUNDING = 1e-4
"""How far a direction of one shard may lie from that of another, as a share of its length. More is another direction."""

_OF_ONE_SHARD = {ENTRY, "checkpoints", "arms", "sessions", "warnings", "created", "earlier_tests", "grown_from", *JUDGE_ENTRIES}
"""Entries that are joined, or that say nothing of the whole run. All others are the same in every shard."""


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    mixed: bool = False,
    max_cost: float | None = None,
    phases: Phases = no_phases,
    tell: Callable[[str], object] = lambda _: None,
) -> Run:
    """Join the shards of a study, judge the completions that no shard has judged, and write the report.

    Args:
        folders: the folders of all shards, in any order.
        out: the folder of the whole run; it is created if missing.
        mixed: whether the shards may be made with different versions or kinds of device. The report says so.
        max_cost: the most that the requests of each judge that asks a server may cost, those of the shards included.
        phases: shows progress; nothing is shown unless given.
        tell: called with a sentence about directions that differ by rounding, and about verdicts that are not used.

    Returns:
        The whole run.

    Raises:
        InputError: if the shards are not parts of one run: another study, other instructions, weights, prompts or versions; or if
            a shard is missing or not finished.
        WorkError: if the whole is not complete.

    Example:
        >>> import demur
        >>> demur.merge(["runs/one", "runs/two"], out="runs/whole")  # doctest: +SKIP
        Run('demo', 28 cells, 2800 completions, in 'runs/whole')
    """
    target = Path(out)
    with ExitStack() as opened:
        stores = [opened.enter_context(closing(Store.open(folder))) for folder in folders]
        if target.resolve() in {store.folder.resolve() for store in stores}:
            raise InputError(f"{str(target)!r} holds a shard; give another --out for the whole run")
        if not stores:
            raise InputError("there is nothing to merge; give the folders of all shards")
        shards = sorted(map(StoredShard.of, stores), key=lambda one: one.shard.number)
        check_together(shards, mixed=mixed)
        made = _created(shards[0], target)
        try:
            with phases("joining shards", len(shards)) as progress:
                _describe(shards, made)
                for one in shards:
                    _copy(one, made, tell)
                    join_judges(one, made, tell)
                    progress(1)
            _check_complete(made)
            found = Run(made)
            with phases("verdicts and report", 1) as progress:
                found.report(max_cost=max_cost)
                progress(1)
            made.release()
        except BaseException:
            made.close()
            raise
    return found


def _created(first: StoredShard, target: Path) -> Store:
    """The folder of the whole run. An earlier merge of the same study may be there."""
    try:
        text = (first.store.folder / "study.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{first.name} has no readable study.toml; run the command of the shard {first.shard} again") from error
    return Store.create(target, str(first.store.digest), text)


def _describe(shards: Sequence[StoredShard], made: Store) -> None:
    """Write what all shards say of the run, and join what each says of its own part."""
    entries: dict[str, JsonValue] = {key: value for key, value in shards[0].store.entries().items() if key not in _OF_ONE_SHARD}
    made.remember_all(entries)
    made.remember("created", min(one.manifest.created or "" for one in shards))
    made.add_planned_directions(shards[0].store.planned_directions())
    made.add_cells(shards[0].store.cells())
    for one in shards:
        for session in one.manifest.sessions:
            made.remember_session(session)
        for name, facts in one.manifest.checkpoints.items():
            made.remember_checkpoint(name, facts)
        made.remember_arms(one.manifest.arms)
        made.warn(one.manifest.warnings)


def _copy(one: StoredShard, made: Store, tell: Callable[[str], object]) -> None:
    """Copy what a shard made. Of completions, only those of its own cells: it may have others that its measurements needed."""
    source, there = one.store, made.direction_names()
    facts = {known.name: known for known in source.directions()}
    rounded = []
    for name in (name for name in facts if name in source.direction_names()):
        direction, known = source.direction(name), made.direction(name) if name in there else None
        assert direction is not None, "its name was among the stored ones"
        if known is None:
            made.add_direction(direction, facts[name])
        elif _differ(direction, known, one):
            rounded.append(name)
    if rounded:
        said = f"{len(rounded)} directions differ by rounding between shards, as on different machines, for example {rounded[0]}."
        tell(f"{one.name}: {said}")
        made.warn([said])
    for means in source.means():
        made.add_means(means)
    for key in sorted(one.cells):
        made.add_completions(source.completions(key))
    for measurement in source.measurements():
        made.add_measurement(measurement)
    stored: Mapping[tuple[str, str, str], int] = made.measured()
    for failed in source.unmeasured():
        if (failed.name, failed.subject, failed.settings) not in stored:
            made.add_unmeasured(failed)


def _differ(direction: "Direction", known: "Direction", one: StoredShard) -> bool:
    """Whether two shards have different values for a direction. Raises `InputError` if it is another direction."""
    if direction.to_bytes() == known.to_bytes():
        return False
    away = float((direction.vector * direction.raw_norm - known.vector * known.raw_norm).norm()) / known.raw_norm
    if away > ROUNDING:
        raise InputError(
            f"the direction {direction.name!r} of {one.name} lies {away:.2g} of its length from that of the other shards, which "
            "rounding does not explain; run the shards on the same kind of device"
        )
    return True


def _check_complete(made: Store) -> None:
    counts, wanted = made.progress(), {label: facts.n for label, facts in made.manifest().instructions.items()}
    short = [cell.key for cell in made.cells() if counts.get(cell.key, 0) < wanted[cell.instructions]]
    if short:
        raise WorkError(
            f"{len(short)} cells are not complete, for example {short[0]!r}; demur run STUDY --out {made.folder} makes what is "
            "missing"
        )
