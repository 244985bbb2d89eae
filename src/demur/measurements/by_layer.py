"""`by-layer`: how well an arm separates harmful from harmless instructions at every layer."""

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import BaseModel, JsonValue

from demur.measurements.measurement import ArmSubject, MeasurementRecord, PlannedSubject

if TYPE_CHECKING:
    from demur.models.layouts import Site


class SeparationByLayer:
    """The measurement `by-layer`: an arm's direction at every layer, and projections of held-out instructions on it."""

    name: ClassVar[str] = "by-layer"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "arm"
    settings: ClassVar[type[BaseModel] | None] = None

    def measure(self, subject: ArmSubject, settings: None) -> MeasurementRecord:  # noqa: ARG002
        """Project held-out instructions on the difference of the training means, at every layer.

        The means are computed if the subject has none.

        Args:
            subject: the arm.
            settings: none.

        Returns:
            The arrays of `Layerwise`. The facts are the arm, the site and the position.

        Raises:
            InputError: if a prompt does not have the position.
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

    def prompts(self, settings: None, planned: PlannedSubject) -> float | int:  # noqa: ARG002
        """The held-out instructions. The training means are there already."""
        return planned.test["harmful"] + planned.test["harmless"]

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """Norms, the held-out AUROC with its interval, and the AUROC of random directions, by layer.

        Args:
            record: what `measure` gave.

        Returns:
            The numbers of one arm. Each list has one entry for each layer.
        """
        from demur.measurements.by_layer_summary import of_arm

        return {**record.facts, **of_arm(record)}
