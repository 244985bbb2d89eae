"""`by-layer`: how well an arm separates harmful from harmless instructions at every layer."""

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import BaseModel, JsonValue

from demur.measurements.measurement import ArmSubject, MeasurementRecord

if TYPE_CHECKING:
    from demur.models.layouts import Site


class SeparationByLayer:
    """The measurement `by-layer`: an arm's direction at every layer, and projections of held-out instructions on it."""

    name: ClassVar[str] = "by-layer"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "arm"
    settings: ClassVar[type[BaseModel] | None] = None

    def measure(self, subject: ArmSubject, settings: None) -> MeasurementRecord:  # noqa: ARG002
        """Compute the means of the training instructions, if the subject has none, and project held-out ones on their difference.

        Args:
            subject: the arm.
            settings: none.

        Returns:
            The arrays of `Layerwise`, and where they were read.

        Raises:
            InputError: for a position that a prompt does not have.
            WorkError: if an activation is not finite.
        """
        from demur.engine.capture import mean_activations
        from demur.measurements.by_layer_projections import measure

        site = cast("Site", subject.site)
        means = subject.means or {
            label: mean_activations(
                subject.checkpoint,
                subject.train[label],
                subject.prompt,
                layers=range(subject.checkpoint.n_layers),
                site=site,
                position=subject.position,
                batch_tokens=subject.batch_tokens,
            )
            for label in ("harmful", "harmless")
        }
        found = measure(
            subject.checkpoint,
            means["harmful"],
            means["harmless"],
            subject.held_out,
            subject.prompt,
            site=site,
            position=subject.position,
            batch_tokens=subject.batch_tokens,
            progress=subject.progress,
        )
        checkpoint, _, prompt = subject.name.partition("/")
        facts: dict[str, JsonValue] = {
            "checkpoint": checkpoint,
            "prompt": prompt,
            "site": subject.site,
            "position": subject.position,
        }
        return MeasurementRecord(facts, found.arrays())

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """Norms, and the held-out AUROC with its interval and that of random directions, by layer.

        Args:
            record: what `measure` gave.

        Returns:
            The numbers of one arm, one entry a layer in each list.
        """
        from demur.measurements.by_layer_summary import of_arm

        return {**record.facts, **of_arm(record)}
