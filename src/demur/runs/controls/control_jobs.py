"""The jobs that make null directions. All that need the activations of one arm are made in one job, which reads these once."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from demur.study.plan import Arm, Plan


def direction_key(name: str) -> str:
    """The key of a stored direction."""
    return f"direction:{name}"


@dataclass(frozen=True)
class AskedControl:
    """A null direction that a study asks for.

    Attributes:
        direction: its name.
        kind: the kind of control.
        beside: the name of the direction that it is a null for.
        seed: the study's seed of controls.
        number: which of its kind for `beside` it is, from 0.
    """

    direction: str
    kind: str
    beside: str
    seed: int
    number: int = 0


@dataclass(frozen=True)
class AskedResample:
    """A direction from a resample of the training pairs that a study asks for. It is no control.

    Attributes:
        direction: its name.
        beside: the name of the direction from all pairs.
        number: which resample it is, from 1.
    """

    direction: str
    beside: str
    number: int


AskedOfActivations = AskedControl | AskedResample
"""What is made from an arm's training activations in addition to its own directions."""


@dataclass(frozen=True)
class ControlJob(AskedControl):
    """Make one null direction from the direction that it is a null for alone."""

    @property
    def key(self) -> str:
        """Names the job."""
        return f"control {self.direction}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded: none."""
        return ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the stored inputs."""
        return (direction_key(self.beside),)

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards."""
        return (direction_key(self.direction),)


@dataclass(frozen=True)
class ArmControlsJob:
    """Read an arm's training activations and make null directions and resamples. The arm's own directions are stored already.

    Attributes:
        arm: the arm's name.
        checkpoint: the checkpoint whose weights are needed.
        controls: the null directions and resamples to make.
        pairs_seed: the seed by which the training instructions are drawn; None for the first ones.
    """

    arm: str
    checkpoint: str
    controls: tuple[AskedOfActivations, ...]
    pairs_seed: int | None = None

    @property
    def key(self) -> str:
        """Names the job."""
        return f"controls of {self.arm}" + ("" if self.pairs_seed is None else f" with pairs {self.pairs_seed}")

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded."""
        return (self.checkpoint,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the stored inputs."""
        return tuple(dict.fromkeys(direction_key(one.beside) for one in self.controls))

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards."""
        return tuple(direction_key(one.direction) for one in self.controls)


def arm_controls(plan: Plan, arm: Arm, seed: int | None, stored: Collection[str]) -> tuple[AskedOfActivations, ...]:
    """What is made from the activations of an arm and a seed of training pairs and is not stored yet: controls and resamples."""
    own = (one for one in plan.directions if one.arm == arm and one.from_activations and one.pairs_seed == seed)
    missing = (one for one in own if one.name not in stored)
    return tuple(
        AskedResample(one.name, one.resample_of, one.resample)
        if one.resample_of is not None
        else AskedControl(one.name, one.control_kind, one.beside or "", plan.study.controls.seed, one.number)
        for one in missing
    )


def control_jobs(plan: Plan, stored: Collection[str]) -> Sequence[ControlJob]:
    """A job for each null direction that needs no activations and is not stored yet."""
    return [
        ControlJob(one.name, one.control_kind, one.beside, plan.study.controls.seed, one.number)
        for one in plan.directions
        if one.beside is not None and not one.from_activations and one.name not in stored
    ]
