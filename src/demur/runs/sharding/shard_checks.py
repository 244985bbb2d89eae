"""Checks that the folders of several shards are parts of one run: the same study, instructions, weights, prompts and versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from demur.analysis.manifest import ArmFacts, CheckpointFacts, Manifest
from demur.core.errors import InputError
from demur.core.same_weights import same_weights
from demur.runs.sharding.shard import ENTRY, Shard, shard_of
from demur.runs.store import Store


@dataclass(frozen=True)
class StoredShard:
    """A shard in its folder.

    Attributes:
        store: its folder.
        shard: which shard it is.
        cells: the keys of the cells that it makes.
        done: whether it is finished.
        manifest: its description.
    """

    store: Store
    shard: Shard
    cells: frozenset[str]
    done: bool
    manifest: Manifest

    @classmethod
    def of(cls, store: Store) -> "StoredShard":
        """Read a shard.

        Raises:
            InputError: if the folder holds no shard.
        """
        entry = store.recall(ENTRY)
        shard = shard_of(entry)
        if shard is None or not isinstance(entry, dict):
            raise InputError(f"{str(store.folder)!r} holds a whole run; merge takes the folders of demur run STUDY --shard I/N")
        cells = entry.get("cells")
        keys = frozenset(map(str, cells if isinstance(cells, list) else ()))
        return cls(store, shard, keys, entry.get("done") is True, store.manifest())

    @property
    def name(self) -> str:
        """The folder, as messages name it."""
        return repr(str(self.store.folder))


def check_together(shards: Sequence[StoredShard], *, mixed: bool) -> None:
    """Check that shards belong together and that none is missing or unfinished.

    Args:
        shards: the shards in the order of their numbers, at least one.
        mixed: whether they may be made with different versions or kinds of device.

    Raises:
        InputError: for the first thing that is wrong.
    """
    first = shards[0]
    for one in shards[1:]:
        _same_study(first, one)
    numbers = [one.shard.number for one in shards]
    for one, other in pairwise(shards):
        if one.shard == other.shard:
            raise InputError(f"{one.name} and {other.name} both hold the shard {one.shard}; give each shard once")
    missing = [str(number) for number in range(1, first.shard.of + 1) if number not in numbers]
    if missing:
        raise InputError(
            f"of {first.shard.of} shards, {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; give the folders "
            "of all shards"
        )
    for one in shards:
        if not one.done:
            raise InputError(f"the shard {one.shard} in {one.name} is not finished; run its command again, then merge")
        _same_run(first, one, mixed)
    seen: dict[str, tuple[StoredShard, CheckpointFacts]] = {}
    arms: dict[str, tuple[StoredShard, ArmFacts]] = {}
    for one in shards:
        _same_checkpoints(one, seen)
        _same_prompts(one, arms)


def _same_study(first: StoredShard, one: StoredShard) -> None:
    if one.store.digest != first.store.digest:
        here, there = first.store.recall("deciding"), one.store.recall("deciding")
        keys = []
        if isinstance(here, dict) and isinstance(there, dict):
            keys = [key for key in dict.fromkeys((*here, *there)) if here.get(key) != there.get(key)]
        named = f" ({', '.join(keys[:3])} differ)" if len(keys) > 1 else f" ({keys[0]} differs)" if keys else ""
        raise InputError(f"{one.name} holds another study than {first.name}{named}; merge the shards of one study")
    if one.shard.of != first.shard.of:
        raise InputError(f"{first.name} holds the shard {first.shard} and {one.name} the shard {one.shard}; N must be the same")


def _same_run(first: StoredShard, one: StoredShard, mixed: bool) -> None:
    for label, facts in one.manifest.instructions.items():
        known = first.manifest.instructions.get(label)
        if known is None or (known.sha256, known.train_sha256) != (facts.sha256, facts.train_sha256):
            raise InputError(f"{one.name} was made with other {label} instructions than {first.name}; merge shards of one study")
    if mixed:
        return
    here, there = _environment(first.manifest), _environment(one.manifest)
    for key in dict.fromkeys((*here, *there)):
        if here.get(key) != there.get(key):
            raise InputError(
                f"{one.name} was made with {key} {there.get(key)} and {first.name} with {key} {here.get(key)}; run one of them "
                "again, or add --mixed to join them anyway, and the report says so"
            )


def _environment(manifest: Manifest) -> Mapping[str, str]:
    """What may change numbers: versions, kind of machine and kind of device, of every session."""
    found: dict[str, set[str]] = {}
    for session in manifest.sessions:
        facts = {**session.versions, "machine": session.environment.machine, "device": session.device.partition(":")[0]}
        for key, value in facts.items():
            found.setdefault(key, set()).add(value)
    return {key: " and ".join(sorted(values)) for key, values in found.items()}


def _same_checkpoints(one: StoredShard, seen: dict[str, tuple[StoredShard, CheckpointFacts]]) -> None:
    for name, facts in one.manifest.checkpoints.items():
        other, known = seen.setdefault(name, (one, facts))
        if not same_weights(known.fingerprint, facts.fingerprint):
            raise InputError(f"the weights of {name!r} are not the same in {other.name} and {one.name}; run one of them again")
        if (known.settings, known.stop_ids, known.quantised) != (facts.settings, facts.stop_ids, facts.quantised):
            raise InputError(f"the settings of {name!r} are not the same in {other.name} and {one.name}; run one of them again")


def _same_prompts(one: StoredShard, arms: dict[str, tuple[StoredShard, ArmFacts]]) -> None:
    for arm in one.manifest.arms:
        other, known = arms.setdefault(arm.name, (one, arm))
        if known != arm:
            raise InputError(
                f"the prompts of {arm.name!r} are not the same in {other.name} and {one.name}; run one of them again"
            )
