"""`harmfulness`: whether a checkpoint's directions tell harm or refusal, at the end of the instruction and of the prompt.

Zhao et al. 2025, "LLMs Encode Harmfulness and Refusal Separately" (arXiv 2507.11878): at the last token of the instruction a
checkpoint holds whether the instruction is harmful, and at the last token of the prompt whether it will refuse. Here both
directions are differences of means of harmful and harmless training instructions, so that they differ only in the token.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from demur.core.errors import InputError
from demur.measurements.harm.harm_words import ANSWERS, QUESTION, TOKENS
from demur.measurements.measurement import CellSubject, MeasurementRecord, PlannedSubject

if TYPE_CHECKING:
    from demur.inputs.prompts import Prompt


class HarmSettings(BaseModel):
    """Settings of `harmfulness`.

    Attributes:
        layer: the layer whose directions are used in the edits under which the question is asked; the study's first layer unless
            given.
        coefficient: the multiple of the raw difference of means that is added in such an edit.
        instructions: of how many instructions of a set the question is asked, from the first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: int | None = Field(default=None, ge=0)
    coefficient: float = Field(default=1.0, gt=0)
    instructions: int = Field(default=32, ge=1)


class Harmfulness:
    """The measurement `harmfulness` of each arm and instruction set, without an edit."""

    name: ClassVar[str] = "harmfulness"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "cell"
    unedited_only: ClassVar[bool] = True
    settings: ClassVar[type[BaseModel] | None] = HarmSettings

    def measure(self, subject: CellSubject, settings: HarmSettings) -> MeasurementRecord:
        """Project a set's instructions on both directions, and ask whether they are harmful.

        Args:
            subject: the cell, without an edit.
            settings: what is asked.

        Returns:
            Arrays. `instruction` and `prompt`, (instruction, layer): the projections on the direction at each token, scaled so
            that the arm's harmless training mean is 0 and its harmful one 1; NaN where both means are the same. `cosine`, one
            for each layer: that of the two directions. `certainly` and `no`, (edit, instruction): the probabilities of the first
            tokens of the answers. The facts are the positions and tokens that were read, the layer and names of the edits, the
            question and the answers.

        Raises:
            InputError: if the prompt format has no token after the instruction.
            WorkError: if a number is not finite.
        """
        return next(self.measure_together([subject], settings))

    def measure_together(self, subjects: Sequence[CellSubject], settings: HarmSettings) -> Iterator[MeasurementRecord]:
        """The same for all instruction sets of one arm, whose directions are made once.

        Args:
            subjects: the cells.
            settings: what is asked.

        Yields:
            A record for each cell, as `measure` gives it.

        Raises:
            InputError: as `measure`.
            WorkError: as `measure`.
        """
        from demur.measurements.harm.harm_projections import TokenDirections
        from demur.measurements.harm.harm_question import answer_probabilities, question_edits

        arm = subjects[0].arm
        positions = (instruction_position(arm.prompt), -1)
        directions = TokenDirections.of(arm, positions)
        layer = arm.layers[0] if settings.layer is None else settings.layer
        edits = question_edits(directions, layer, settings.coefficient)
        facts: dict[str, JsonValue] = {
            "positions": list(positions),
            "tokens": [arm.prompt.token_read(position) for position in positions],
            "layer": layer,
            "coefficient": settings.coefficient,
            "edits": list(edits),
            "question": QUESTION,
            "answers": list(ANSWERS),
        }
        for subject in subjects:
            projected = directions.projections(arm, subject.instructions)
            asked = subject.instructions[: settings.instructions]
            yes, no = answer_probabilities(arm, asked, list(edits.values()))
            arrays = {
                **{token: projected[:, :, place].numpy() for place, token in enumerate(TOKENS)},
                "cosine": directions.cosine().numpy(),
                "certainly": yes.numpy(),
                "no": no.numpy(),
            }
            yield MeasurementRecord(facts, arrays)

    def prompts(self, settings: HarmSettings, planned: PlannedSubject) -> float | int:
        """The set's instructions, the question under five edits, and the set's share of the training instructions."""
        asked = sum(planned.test.values())
        return asked + 5 * min(asked, settings.instructions) + planned.training / 2

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """Means of one instruction set. `summary.json` compares sets under `harmfulness`.

        Args:
            record: what `measure` gave.

        Returns:
            `n`; for each token, the mean projection by layer (None where it is not defined); `cosine` by layer; `certainly` and
            `no`, the mean probabilities under each edit; and the facts.
        """
        arrays = record.arrays
        found: dict[str, JsonValue] = {"n": len(arrays["prompt"])}
        for token in TOKENS:
            found[token] = [_defined(value) for value in arrays[token].mean(axis=0).tolist()]
        found["cosine"] = [_defined(value) for value in arrays["cosine"].tolist()]
        edits = record.facts["edits"]
        assert isinstance(edits, list)
        for name in ("certainly", "no"):
            found[name] = dict(zip(map(str, edits), arrays[name].mean(axis=1).tolist(), strict=True))
        return {**found, **record.facts}


def _defined(value: float) -> float | None:
    return value if value == value else None  # NaN is not equal to itself


def instruction_position(prompt: "Prompt") -> int:
    """The position of the last token that depends on the instruction, counted from the prompt's end.

    Args:
        prompt: the prompt format.

    Raises:
        InputError: if no token follows the instruction, so that the two positions are one.
    """
    after = prompt.positions()
    if not after:
        raise InputError(
            f"the prompt format {prompt.name!r} has no token after the instruction, so the last token of the instruction is that "
            "of the prompt; use a format with a text after {instruction}"
        )
    return after[0] - 1
