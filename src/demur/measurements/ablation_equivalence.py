"""`equivalence`: checks that ablating an arm's directions by hooks equals editing the weights."""

from dataclasses import asdict
from typing import ClassVar, Literal

from pydantic import BaseModel, JsonValue

from demur.core.errors import InputError
from demur.measurements.measurement import ArmSubject, MeasurementRecord


class AblationEquivalence:
    """The measurement `equivalence` of an arm: one comparison for each of its directions (Arditi et al. 2024, section 4.1)."""

    name: ClassVar[str] = "equivalence"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "arm"
    settings: ClassVar[type[BaseModel] | None] = None

    def measure(self, subject: ArmSubject, settings: None) -> MeasurementRecord:  # noqa: ARG002
        """Compare ablation by hooks with an orthogonalised copy of the weights, for each of the arm's directions.

        Args:
            subject: the arm with its own directions.
            settings: none.

        Returns:
            For each direction, under its name: the fields of `Equivalence`, and whether it `holds`.

        Raises:
            InputError: if the weights are quantised, spread over several devices, or in a lower precision than float32, or if the
                arm has no directions.
            WorkError: if it is not known which weights of the model write to the stream.
        """
        from demur.measurements.weight_equivalence import equivalence

        if not subject.directions:
            raise InputError(f"the arm {subject.name!r} has no direction of its own to ablate")
        facts: dict[str, JsonValue] = {}
        for direction in subject.directions:
            found = equivalence(subject.checkpoint, direction)
            facts[direction.name] = {**asdict(found), "holds": found.holds}
        return MeasurementRecord(facts)

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The numbers and the explanation for each direction, under its name.

        Args:
            record: what `measure` gave.
        """
        return dict(record.facts)
