"""`loss`: measures how much an edit damages a checkpoint, by the loss on its own unedited completions."""

import math
from typing import ClassVar, Literal

from pydantic import BaseModel, JsonValue

from demur.measurements.measurement import CellSubject, MeasurementRecord, PlannedSubject


class CompletionLoss:
    """The measurement `loss` of a cell: cross-entropy of the target's own unedited completions under the cell's edit.

    Arditi et al. 2024, appendix E, measure the same on a checkpoint's own completions of Alpaca instructions.
    """

    name: ClassVar[str] = "loss"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "cell"
    settings: ClassVar[type[BaseModel] | None] = None

    def measure(self, subject: CellSubject, settings: None) -> MeasurementRecord:  # noqa: ARG002
        """Score the target's unedited completions twice: without an edit, and under the cell's edit.

        Args:
            subject: the cell.
            settings: none.

        Returns:
            `loss` and `unedited_loss` in nats per token, and the number of `tokens`.

        Raises:
            InputError: if the completions hold no token.
        """
        from demur.engine.generate import Completion
        from demur.measurements.cross_entropy import completion_losses

        written = [
            Completion(instruction, "", tokens)
            for instruction, tokens in zip(subject.instructions, subject.completions, strict=True)
        ]
        edits = [None] if subject.edit is None else [None, subject.edit]
        losses = completion_losses(subject.arm.checkpoint, written, subject.arm.prompt, edits, progress=subject.arm.progress)
        facts: dict[str, JsonValue] = {
            "loss": losses[-1].mean,
            "unedited_loss": losses[0].mean,
            "tokens": losses[0].tokens,
        }
        return MeasurementRecord(facts)

    def prompts(self, settings: None, planned: PlannedSubject) -> float | int:  # noqa: ARG002
        """The instructions, each with its completion."""
        return sum(planned.test.values())

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """Both losses, their difference and the perplexity under the edit.

        Args:
            record: what `measure` gave.
        """
        loss, unedited = float(str(record.facts["loss"])), float(str(record.facts["unedited_loss"]))
        return {**record.facts, "change": loss - unedited, "perplexity": math.exp(loss)}
