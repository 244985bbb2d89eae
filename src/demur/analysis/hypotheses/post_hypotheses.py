"""The hypotheses of the post "Base LLMs refuse too" (Kissane et al. 2024), in the names of a study.

`HYPOTHESES` lists them. A further hypothesis is one more function in this list.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from demur.analysis.hypotheses.hypothesis import DirectionActs, Effect, Hypothesis, MechanismsShared, RefusesHarmful

Transfer = tuple[str, str, Effect]
"""Source and target of a direction, and what it should do."""


@dataclass(frozen=True)
class Lineage:
    """The checkpoints of a study in their order, and which two of them the post's hypotheses are about.

    Attributes:
        checkpoints: all checkpoints.
        base: the base checkpoint, None if there is none.
        chat: the chat checkpoint, None if there is none.
    """

    checkpoints: tuple[str, ...]
    base: str | None
    chat: str | None

    @classmethod
    def of(cls, roles: Mapping[str, str]) -> "Lineage":
        """Finds the base and the chat checkpoint.

        Args:
            roles: the role of each checkpoint, in the order of the study; empty where the study gives none.

        Returns:
            The base checkpoint is the first one with the role `base`, and the chat checkpoint the last one with the role `chat`.
            If no checkpoint has such a role, it is the first or the last one of the study. A single checkpoint is only one of the
            two: `chat` if that is its role, and otherwise `base`.

        Example:
            >>> Lineage.of({"start": "", "sft": "", "end": ""})
            Lineage(checkpoints=('start', 'sft', 'end'), base='start', chat='end')
        """
        words = {name: role.strip().casefold() for name, role in roles.items()}
        base = next((name for name, role in words.items() if role == "base"), None)
        chat = next((name for name, role in reversed(words.items()) if role == "chat"), None)
        base = base or next((name for name in words if name != chat), None)
        chat = chat or next((name for name in reversed(words) if name != base), None)
        return cls(tuple(words), base, chat)

    def word(self, checkpoint: str) -> str:
        """The word for a checkpoint in the id of a hypothesis: `base`, `chat`, or its name."""
        if checkpoint in (self.base, self.chat):
            return "base" if checkpoint == self.base else "chat"
        return f"checkpoint-{checkpoint}" if checkpoint in ("base", "chat") else checkpoint

    def transfer(self, source: str, target: str, effect: Effect) -> DirectionActs:
        """The hypothesis that a direction acts in a checkpoint."""
        return DirectionActs(f"{self.word(source)}-direction-{effect}-in-{self.word(target)}", source, target, effect)

    def pairs(self, tried: Collection[Transfer], effect: Effect) -> list[tuple[str, str]]:
        """Sources and targets: those of base and chat checkpoint, and of other checkpoints those that were tried."""
        post = [name for name in (self.base, self.chat) if name is not None]
        ordered = [(source, target) for source in post for target in post]
        others = ((source, target) for source in self.checkpoints for target in self.checkpoints)
        return ordered + [pair for pair in others if pair not in ordered and (*pair, effect) in tried]


def base_refuses(lineage: Lineage, tried: Collection[Transfer]) -> list[Hypothesis]:  # noqa: ARG001
    """The base checkpoint refuses."""
    return [RefusesHarmful("base-refuses", lineage.base)]


def directions_induce(lineage: Lineage, tried: Collection[Transfer]) -> list[Hypothesis]:
    """Every direction makes every checkpoint refuse harmless instructions."""
    return [lineage.transfer(source, target, "induces") for source, target in lineage.pairs(tried, "induces")]


def directions_suppress(lineage: Lineage, tried: Collection[Transfer]) -> list[Hypothesis]:
    """Without any of the directions, a checkpoint refuses fewer harmful instructions."""
    return [lineage.transfer(source, target, "suppresses") for source, target in lineage.pairs(tried, "suppresses")]


def mechanisms_shared(lineage: Lineage, tried: Collection[Transfer]) -> list[Hypothesis]:
    """Base and chat checkpoint share a mechanism, and so do any other two whose directions were tried both ways."""
    pair = None if lineage.base is None or lineage.chat is None else (lineage.base, lineage.chat)
    found: list[Hypothesis] = [MechanismsShared("mechanisms-shared", pair, () if pair is None else _ways(lineage, *pair))]
    ways = {(source, target) for source, target, _ in tried if source != target}
    for number, one in enumerate(lineage.checkpoints):
        for other in lineage.checkpoints[number + 1 :]:
            if {one, other} != set(pair or ()) and {(one, other), (other, one)} <= ways:
                name = f"mechanisms-shared-by-{lineage.word(one)}-and-{lineage.word(other)}"
                found.append(MechanismsShared(name, (one, other), _ways(lineage, one, other)))
    return found


def _ways(lineage: Lineage, one: str, other: str) -> tuple[tuple[str, ...], ...]:
    effects: tuple[Effect, ...] = ("induces", "suppresses")
    return tuple(tuple(lineage.transfer(*way, effect).id for effect in effects) for way in ((one, other), (other, one)))


HYPOTHESES: Sequence[Callable[[Lineage, Collection[Transfer]], list[Hypothesis]]] = (
    base_refuses,
    directions_induce,
    directions_suppress,
    mechanisms_shared,
)
"""Each function takes the lineage and the transfers that were tried, and gives hypotheses in the order of a report."""
