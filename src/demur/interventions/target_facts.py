"""What an edit knows of the arm that it edits: facts that are measured in the target and differ between targets."""

from dataclasses import dataclass, fields

from demur.core.errors import InputError
from demur.interventions.edit_kind import Fact
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.stream_means import Label, StreamMeans
from demur.models.layouts import Point


@dataclass(frozen=True)
class TargetFacts:
    """Facts of one target. Each is None, or empty, while it is not known.

    Attributes:
        residual_norm: the mean norm of the stream at the edited layer: the length of the unit `residual`.
        harmless: mean activations over harmless training instructions, by point of the stream.
        harmful: mean activations over harmful training instructions.
        spreads: how training activations vary within the classes, at each point where this is known.
    """

    residual_norm: float | None = None
    harmless: StreamMeans | None = None
    harmful: StreamMeans | None = None
    spreads: tuple[StreamSpread, ...] = ()

    @classmethod
    def of_means(cls, *read: StreamMeans | StreamSpread) -> "TargetFacts":
        """Facts that were read from training activations: means, each under the label of its instructions, and spreads."""
        by_label = {one.label: one for one in read if isinstance(one, StreamMeans)}
        spreads = tuple(one for one in read if isinstance(one, StreamSpread))
        return cls(harmless=by_label.get("harmless"), harmful=by_label.get("harmful"), spreads=spreads)

    def knows(self, fact: Fact) -> bool:
        """Whether a fact is known."""
        if fact == "spread":
            return bool(self.spreads)
        label = label_of(fact)
        return (self.residual_norm if label is None else getattr(self, label)) is not None

    def means(self, label: Label) -> StreamMeans:
        """The means of one label.

        Raises:
            InputError: if they are not known.
        """
        found: StreamMeans | None = getattr(self, label)
        if found is None:
            raise InputError(
                f"this edit needs the target's mean activations over {label} instructions; read them with "
                f"demur.stream_means(checkpoint, instructions, prompt, label={label!r}) and give them with "
                "demur.affine(direction, to=means), or with edit.with_facts(...)"
            )
        return found

    def spread(self, where: Point) -> StreamSpread:
        """How the training activations vary at a point.

        Raises:
            InputError: if this is not known.
        """
        for one in self.spreads:
            if one.where == where:
                return one
        raise InputError(
            f"this edit needs to know how the target's training activations vary at {where.site} of layer {where.layer}, where "
            "its direction was read; read this with demur.leace_facts(checkpoint, harmful, harmless, prompt, [direction]) and "
            "give it with edit.with_facts(...)"
        )

    def joined(self, other: "TargetFacts") -> "TargetFacts":
        """These facts and those of another record; where both know a fact, the other's counts."""
        pairs = {one.name: (getattr(self, one.name), getattr(other, one.name)) for one in fields(self)}
        return TargetFacts(**{name: mine if theirs in (None, ()) else theirs for name, (mine, theirs) in pairs.items()})


NO_FACTS = TargetFacts()


def label_of(fact: Fact) -> Label | None:
    """The label of the instructions whose means a fact is; None for a fact that is no mean."""
    labels: dict[Fact, Label] = {"harmless means": "harmless", "harmful means": "harmful"}
    return labels.get(fact)
