"""Directions and subspaces that a study will have, as records: arms, directions, controls, and several directions together."""

from dataclasses import dataclass
from functools import cached_property

from demur.directions.controls.control import control_kind
from demur.inputs.prompt_edits import is_edited


@dataclass(frozen=True)
class Arm:
    """A prompt format applied to a checkpoint.

    Attributes:
        checkpoint: the checkpoint's name.
        prompt: the format's short name.
        spec: the format as `demur.prompt_format` takes it: a name or a text.
        system: its system sentence; None if it has none.
    """

    checkpoint: str
    prompt: str
    spec: str
    system: str | None = None

    @property
    def name(self) -> str:
        """Unique within a study."""
        return f"{self.checkpoint}/{self.prompt}"

    @property
    def spelling(self) -> bool:
        """Whether its format is another one with a small edit. Such an arm is only asked without an edit of the stream."""
        return is_edited(self.prompt)


@dataclass(frozen=True)
class PlannedDirection:
    """A direction that the study will have: one for each arm and layer, their resamples, and the controls.

    Attributes:
        name: unique within a study.
        source: the checkpoint that it is extracted from, or the control's name without a layer.
        arm: the arm that it is extracted from; of a control, the arm of the direction that it is made for.
        layer: the layer at which it is read.
        beside: for a control, the direction that it is a control for; else None.
        control_kind: of a control, its kind as the study names it; else empty.
        number: of a control, which of its kind for this direction it is, from 0.
        answered: whether completions are made with it.
        pairs_seed: the seed by which its training instructions are drawn; None for the first ones of the set.
        resample_of: for a direction from a resample of the training pairs, the direction from all of them; else None.
        resample: for such a direction, which resample it is, from 1; else 0.
        estimator: the estimator that finds it, or finds the direction that it is a control for; empty for the study's first.
        part: of the directions that one estimator gives at one layer, which one it is, from 1; 0 if the estimator gives one.
    """

    name: str
    source: str
    arm: Arm
    layer: int
    beside: str | None = None
    control_kind: str = ""
    number: int = 0
    answered: bool = True
    pairs_seed: int | None = None
    resample_of: str | None = None
    resample: int = 0
    estimator: str = ""
    part: int = 0

    @property
    def own(self) -> bool:
        """Whether it is an arm's own direction from all training pairs: neither a null direction nor a resample."""
        return self.beside is None and self.resample_of is None

    @property
    def main(self) -> bool:
        """Whether it is an arm's own direction by the study's first estimator. Measurements are made with these."""
        return self.own and not self.estimator

    @property
    def control(self) -> bool:
        """Whether it is a null direction."""
        return self.beside is not None

    @property
    def from_activations(self) -> bool:
        """Whether it is a control or a resample that is made from the training activations of its arm."""
        return self.resample_of is not None or (self.control and control_kind(self.control_kind).needs == "activations")

    @property
    def control_name(self) -> str:
        """For a control, the name of its kind as sentences and names of directions use it; else empty."""
        return control_kind(self.control_kind).name if self.control_kind else ""

    @property
    def found_by(self) -> str:
        """The estimator and the number of the part, for labels; empty for the study's first estimator."""
        return f"{self.estimator} {self.part or ''}".strip()

    @property
    def members(self) -> "tuple[PlannedDirection, ...]":
        """The directions that an edit with it reads: itself."""
        return (self,)


@dataclass(frozen=True)
class PlannedSubspace:
    """Several directions of one arm, or several controls of one name, that an edit takes together. It is not stored itself.

    Attributes:
        name: unique within a study.
        members: its directions in order, at least two.
        beside: for one of controls, the subspace that it is a control for; else None.
        found_by: the estimators that find its directions, joined by `+`; empty if they are all of the study's first.
    """

    name: str
    members: tuple[PlannedDirection, ...]
    beside: str | None = None
    found_by: str = ""

    @property
    def source(self) -> str:
        """The checkpoint that its directions are extracted from, or the name of its controls."""
        return self.members[0].source

    @property
    def arm(self) -> Arm:
        """The arm that its directions are extracted from; of controls, the arm of those that they are made for."""
        return self.members[0].arm

    @cached_property
    def layer(self) -> int | None:
        """The layer at which its directions are read; None if these are several."""
        layers = {one.layer for one in self.members}
        return self.members[0].layer if len(layers) == 1 else None

    @property
    def control(self) -> bool:
        """Whether its directions are null directions."""
        return self.members[0].control

    @property
    def control_kind(self) -> str:
        """Of controls, their kind as the study names it; else empty."""
        return self.members[0].control_kind

    @property
    def control_name(self) -> str:
        """Of controls, the name of their kind as sentences use it; else empty."""
        return self.members[0].control_name

    @property
    def answered(self) -> bool:
        """Whether completions are made with it."""
        return all(one.answered for one in self.members)

    @property
    def pairs_seed(self) -> int | None:
        """The seed by which the training instructions of its directions are drawn; None for the first ones of the set."""
        return self.members[0].pairs_seed

    @property
    def resample_of(self) -> None:
        """None, because resamples are made of single directions only."""
        return


Used = PlannedDirection | PlannedSubspace
"""What an edit of a study takes: one direction, or several."""
