"""What a hypothesis is: a sentence about checkpoints, and the cells that it needs.

There are three forms. Each is a typed record; `post_hypotheses` lists those of the post.
"""

from dataclasses import dataclass
from typing import Literal

from demur.analysis.cell_phrases import named

Effect = Literal["induces", "suppresses"]
"""What a direction is said to do: make a checkpoint refuse harmless instructions, or refuse fewer harmful ones."""


@dataclass(frozen=True)
class RefusesHarmful:
    """A checkpoint refuses harmful instructions more often than harmless ones. It needs both sets under one prompt format.

    Attributes:
        id: names the hypothesis; the same in every run.
        checkpoint: the name of the checkpoint; None if the study has none with this role.
        role: the role of the checkpoint that the hypothesis is about.
    """

    id: str
    checkpoint: str | None
    role: str = "base"

    @property
    def text(self) -> str:
        """The hypothesis as one sentence."""
        who = f"The {self.role} checkpoint" if self.checkpoint is None else named(self.checkpoint)
        return f"{who} refuses harmful instructions more often than harmless ones."

    @property
    def short(self) -> str:
        """The hypothesis in few words."""
        return f"{self.checkpoint or self.role} refuses"

    @property
    def missing(self) -> str:
        """What is missing if it was not tested."""
        if self.checkpoint is None:
            return f"the study has no {self.role} checkpoint"
        return f"no prompt format of {named(self.checkpoint)} has verdicts on both harmful and harmless instructions"


@dataclass(frozen=True)
class DirectionActs:
    """The direction of one checkpoint acts in a checkpoint. It needs cells of such an edit, and null directions beside them.

    Attributes:
        id: names the hypothesis; the same in every run.
        source: the checkpoint that the direction comes from.
        target: the checkpoint that is edited.
        effect: what the direction should do.
    """

    id: str
    source: str
    target: str
    effect: Effect

    @property
    def text(self) -> str:
        """The hypothesis as one sentence."""
        target, own = named(self.target), self.source == self.target
        if self.effect == "induces":
            to = "own direction makes it" if own else f"direction to {target} makes it"
            return f"Adding {named(self.source)}'s {to} refuse harmless instructions."
        whose = "its own" if own else f"{named(self.source)}'s"
        return f"Without {whose} direction, {target} refuses fewer harmful instructions."

    @property
    def short(self) -> str:
        """The hypothesis in few words."""
        return f"{self.source}'s direction {self.effect} in {self.target}"

    @property
    def missing(self) -> str:
        """What is missing if it was not tested."""
        done, into, on = ("added", "to", "harmless") if self.effect == "induces" else ("ablated", "in", "harmful")
        return f"no cell has {named(self.source)}'s direction {done} {into} {named(self.target)} on {on} instructions"


@dataclass(frozen=True)
class MechanismsShared:
    """Two checkpoints share a refusal mechanism: the direction of each acts in the other. It holds only if all its parts hold.

    Attributes:
        id: names the hypothesis; the same in every run.
        checkpoints: the two checkpoints; None if the study does not have both.
        ways: for each of the two ways, the ids of the hypotheses that the direction of the one acts in the other. Every one that
            was tested is a part, and each way needs one.
    """

    id: str
    checkpoints: tuple[str, str] | None
    ways: tuple[tuple[str, ...], ...] = ()

    @property
    def text(self) -> str:
        """The hypothesis as one sentence."""
        both = ("The base", "the chat checkpoint") if self.checkpoints is None else tuple(map(named, self.checkpoints))
        return f"{both[0]} and {both[1]} share a refusal mechanism: the direction of each acts in the other."

    @property
    def short(self) -> str:
        """The hypothesis in few words."""
        one, other = self.checkpoints or ("base", "chat")
        return f"{one} and {other} share a mechanism"

    @property
    def missing(self) -> str:
        """What is missing if it was not tested."""
        if self.checkpoints is None:
            return "the study does not have both a base and a chat checkpoint"
        one, other = map(named, self.checkpoints)
        return f"the direction of {one} has to be tested in {other}, and that of {other} in {one}"


Hypothesis = RefusesHarmful | DirectionActs | MechanismsShared
