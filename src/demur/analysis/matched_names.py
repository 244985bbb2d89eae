"""Names of another run in the words of the first: what one study calls `before`, another study may call `base`.

A match names a checkpoint, a prompt format or an arm (`checkpoint/prompt`). Cells, directions and settings of the other run then
carry the first run's names, so that the same work has the same key in both.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from demur.analysis.cell import Cell
from demur.analysis.manifest import Manifest
from demur.core.errors import InputError, nearest

Arm = tuple[str, str]
"""Checkpoint and prompt format."""

_CONDITION = re.compile(r"(?<=, when )\S+")


@dataclass(frozen=True)
class Match:
    """Two names for the same thing.

    Attributes:
        first: the name in the first run: a checkpoint, a prompt format, or an arm as `checkpoint/prompt`.
        other: the name in another run.
    """

    first: str
    other: str


@dataclass(frozen=True)
class RunNames:
    """The names in a run.

    Attributes:
        run: how the run itself is called in messages.
        arms: its arms.
    """

    run: str
    arms: tuple[Arm, ...]

    @property
    def checkpoints(self) -> list[str]:
        """Its checkpoints, each once."""
        return list(dict.fromkeys(checkpoint for checkpoint, _ in self.arms))

    @property
    def prompts(self) -> list[str]:
        """Its prompt formats, each once."""
        return list(dict.fromkeys(prompt for _, prompt in self.arms))

    def kinds(self, name: str) -> set[str]:
        """What the name stands for here: an arm, or a checkpoint, a prompt format or both; empty if the run has no such name."""
        known = {"checkpoint": self.checkpoints, "prompt format": self.prompts, "arm": self.arm_names}
        return {kind for kind, names in known.items() if name in names}

    @property
    def arm_names(self) -> list[str]:
        """Its arms as `checkpoint/prompt`."""
        return ["/".join(arm) for arm in self.arms]

    def like(self, name: str) -> list[str]:
        """The names that somebody who wrote `name` may have meant."""
        return self.arm_names if "/" in name else [*self.checkpoints, *self.prompts]


@dataclass(frozen=True)
class Renaming:
    """The first run's names for the names of another run.

    Attributes:
        names: the names in the other run.
        checkpoints: new names of checkpoints. A checkpoint that is not in it keeps its name.
        prompts: new names of prompt formats.
        arms: arms that have a name of their own, whatever their checkpoint and prompt format are called elsewhere.
        matches: the matches that name something in this run.
    """

    names: RunNames
    checkpoints: Mapping[str, str]
    prompts: Mapping[str, str]
    arms: Mapping[Arm, Arm]
    matches: tuple[Match, ...] = ()

    def checkpoint(self, name: str) -> str:
        """The first run's name of a checkpoint."""
        return self.checkpoints.get(name, name)

    def prompt(self, name: str) -> str:
        """The first run's name of a prompt format."""
        return self.prompts.get(name, name)

    def arm(self, arm: Arm) -> Arm:
        """The first run's name of an arm."""
        return self.arms.get(arm, (self.checkpoint(arm[0]), self.prompt(arm[1])))

    def direction(self, name: str) -> str:
        """The first run's name of a direction: `checkpoint` or `checkpoint.prompt`, perhaps with `.layerN`.

        A control is named after its kind, so it keeps its name.
        """
        checkpoint, *rest = name.split(".")
        if checkpoint not in self.names.checkpoints:
            return name
        if rest and (checkpoint, rest[0]) in self.names.arms:
            return ".".join((*self.arm((checkpoint, rest[0])), *rest[1:]))
        return ".".join((self.checkpoint(checkpoint), *rest))

    def key(self, cell: Cell) -> str:
        """The key that the cell would have in the first run."""
        if not self.matches:
            return cell.key
        _, instructions, edit, *where = cell.key.split("|")
        own = f" {cell.direction}"
        if cell.direction is not None and edit.endswith(own):
            edit = f"{edit.removesuffix(own)} {self.direction(cell.direction)}"
        # The end of a key has the name of the condition direction, if the edit has a gate.
        ends = [_CONDITION.sub(lambda found: self.direction(found[0]), one) for one in where]
        return "|".join(("/".join(self.arm(cell.arm)), instructions, edit, *ends))

    def manifest(self, manifest: Manifest) -> Manifest:
        """The other run's manifest with the first run's names in its study, its checkpoints and its arms."""
        if not self.matches:
            return manifest
        arms = [self.arm((each.checkpoint, each.prompt)) for each in manifest.arms]
        return manifest.model_copy(
            update={
                "study": self._study(manifest.study),
                "checkpoints": {self.checkpoint(name): facts for name, facts in manifest.checkpoints.items()},
                "arms": tuple(
                    each.model_copy(update={"checkpoint": checkpoint, "prompt": prompt})
                    for each, (checkpoint, prompt) in zip(manifest.arms, arms, strict=True)
                ),
            }
        )

    def _study(self, study: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        found = dict(study)
        written, checkpoints, edits = (found.get(key) for key in ("prompts", "checkpoints", "interventions"))
        own = written if isinstance(written, dict) else {}
        found["prompts"] = {self.prompt(name): text for name, text in own.items()}
        if isinstance(checkpoints, dict):
            # Only a format that the study defines itself has a name that could be another one. `native` is what it is called.
            names = {name: self.prompt(name) for name in own}
            found["checkpoints"] = {self.checkpoint(name): _listed(spec, names, "prompts") for name, spec in checkpoints.items()}
        if isinstance(edits, list):
            found["interventions"] = [self._edit(edit) for edit in edits]
        return found

    def _edit(self, edit: JsonValue) -> JsonValue:
        listed = _listed(edit, self.checkpoints, "targets", "sources")
        when = listed.get("when") if isinstance(listed, dict) else None
        if not isinstance(listed, dict) or not isinstance(when, dict) or not isinstance(when.get("source"), str):
            return listed
        return {**listed, "when": {**when, "source": self.checkpoint(str(when["source"]))}}


def _listed(table: JsonValue, names: Mapping[str, str], *keys: str) -> JsonValue:
    """A table of a study with other names in the lists at these keys."""
    if not isinstance(table, dict):
        return table
    changed: dict[str, JsonValue] = {}
    for key in keys:
        listed = table.get(key)
        if isinstance(listed, list):
            changed[key] = [names.get(str(name), name) for name in listed]
    return {**table, **changed}


def matches_of(match: Mapping[str, str | Sequence[str]]) -> tuple[Match, ...]:
    """Matches as a user of Python gives them: the first run's name, and one or several names in the other runs.

    Example:
        >>> matches_of({"before": ["base", "start"]})
        (Match(first='before', other='base'), Match(first='before', other='start'))
    """
    return tuple(
        Match(first, name) for first, others in match.items() for name in ([others] if isinstance(others, str) else others)
    )


def read_matches(texts: Iterable[str]) -> tuple[Match, ...]:
    """Matches as the command line takes them, `A_NAME=B_NAME`.

    Raises:
        InputError: for a text of another form.

    Example:
        >>> read_matches(["before=base"])
        (Match(first='before', other='base'),)
    """
    found = []
    for text in texts:
        first, _, other = text.partition("=")
        if not first or not other or "=" in other:
            raise InputError(
                f"--match {text!r} is not of the form A_NAME=B_NAME; write the name in the first run, =, and the name in the "
                "others, for example before=base"
            )
        found.append(Match(first, other))
    return tuple(found)


def renamings(matches: Sequence[Match], first: RunNames, others: Sequence[RunNames]) -> list[Renaming]:
    """What each of the other runs' names is called in the first run.

    Args:
        matches: what is the same under two names. Each needs to name something in one of the other runs only; a run without that
            name is left as it is.
        first: the names of the first run.
        others: the names of every other run.

    Returns:
        One renaming for each of the other runs.

    Raises:
        InputError: for a name that no run has, for two names that do not stand for the same kind of thing, and where two names of
            a run would become one.
    """
    for match in matches:
        here = first.kinds(match.first)
        if not here:
            known = nearest(match.first, first.like(match.first))
            raise InputError(f"{first.run!r} has no checkpoint, prompt format or arm {match.first!r} to match; {known}")
        if not any(here & other.kinds(match.other) for other in others):
            what = " or ".join(sorted(here))
            where = f"{others[0].run!r} has no" if len(others) == 1 else "no other run has a"
            known = nearest(match.other, {name for other in others for kind in here for name in _of_kind(other, kind)})
            raise InputError(f"{where} {what} {match.other!r} that {match.first!r} could match; {known}")
    return [_renaming(matches, first, other) for other in others]


def _of_kind(names: RunNames, kind: str) -> list[str]:
    return {"checkpoint": names.checkpoints, "prompt format": names.prompts, "arm": names.arm_names}[kind]


def _renaming(matches: Sequence[Match], first: RunNames, other: RunNames) -> Renaming:
    kinds = [(match, first.kinds(match.first) & other.kinds(match.other)) for match in matches]
    checkpoints = [(match.other, match.first) for match, shared in kinds if "checkpoint" in shared]
    prompts = [(match.other, match.first) for match, shared in kinds if "prompt format" in shared]
    arms = {_arm(match.other): _arm(match.first) for match, shared in kinds if "arm" in shared}
    # An arm is matched with its checkpoint, whose weights and direction have the checkpoint's name.
    checkpoints += [(old[0], new[0]) for old, new in arms.items()]
    found = Renaming(
        other,
        _one_each(checkpoints, other),
        _one_each(prompts, other),
        arms,
        tuple(match for match, shared in kinds if shared),
    )
    _all_differ({name: found.checkpoint(name) for name in other.checkpoints}, other)
    _all_differ({"/".join(arm): "/".join(found.arm(arm)) for arm in other.arms}, other)
    return found


def _arm(name: str) -> Arm:
    checkpoint, _, prompt = name.partition("/")
    return checkpoint, prompt


def _one_each(pairs: Iterable[tuple[str, str]], other: RunNames) -> dict[str, str]:
    found: dict[str, str] = {}
    for old, new in pairs:
        if found.setdefault(old, new) != new:
            raise InputError(f"{old!r} of {other.run!r} would match both {found[old]!r} and {new!r}; match it with one of them")
    return found


def _all_differ(names: Mapping[str, str], other: RunNames) -> None:
    taken: dict[str, str] = {}
    for old, new in names.items():
        if taken.setdefault(new, old) != old:
            raise InputError(
                f"{taken[new]!r} and {old!r} of {other.run!r} would both be called {new!r}; match each of them with a name of "
                "its own"
            )
