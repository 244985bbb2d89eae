"""`coherence`: whether a cell's completions are still text, and how much its edit moves the target on harmless instructions."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from demur.core.errors import InputError, NotFinite, WorkError, nearest
from demur.judges.judge import Verdict, answers, get_judge
from demur.measurements.measurement import ArmSubject, CellCompletion, CellSubject, MeasurementRecord, PlannedSubject

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention

SHAPES = "taxonomy"
"""The judge whose labels `echo` and `degenerate` are used. It decides them by the text alone."""


class CoherenceSettings(BaseModel):
    """Settings of `coherence`.

    Attributes:
        reference: the checkpoint whose unedited weights score the completions; the first of the study unless given.
        instructions: how many completions of a cell are scored, from the first; all unless given.
        harmless: on how many harmless instructions the divergence is measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str | None = None
    instructions: int | None = Field(default=None, ge=1)
    harmless: int = Field(default=32, ge=1)


class TextCoherence:
    """The measurement `coherence` of a cell, also of one without an edit, with which others are compared.

    The completions are scored by a checkpoint without an edit. By default it is the first of the study: the target of an edit
    may refuse nearly every instruction, and then finds any other answer unlikely, however good the text is.
    """

    name: ClassVar[str] = "coherence"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "cell"
    reads_completions: ClassVar[bool] = True
    settings: ClassVar[type[BaseModel] | None] = CoherenceSettings

    def reference(self, settings: CoherenceSettings, checkpoints: Sequence[str]) -> str:
        """The checkpoint that scores the completions.

        Args:
            settings: the settings.
            checkpoints: the checkpoints of the study.

        Raises:
            InputError: if the study has no checkpoint of this name.
        """
        if settings.reference is not None and settings.reference not in checkpoints:
            hint = nearest(settings.reference, checkpoints)
            raise InputError(f"the measurement coherence has the reference {settings.reference!r}; {hint}")
        return settings.reference or checkpoints[0]

    def measure(self, subject: CellSubject, settings: CoherenceSettings) -> MeasurementRecord:
        """The coherence of one cell.

        Args:
            subject: the cell.
            settings: what is measured.

        Returns:
            Arrays with one number for each completion: `loss`, the mean over its tokens in nats (NaN without tokens), `tokens`,
            and `echo` and `degenerate`, which are 0 or 1. For an edited cell also `divergence`: KL(unedited || edited) of the
            next token after each harmless prompt, in nats. The facts are the reference's arm and the version of the labels.

        Raises:
            InputError: if a completion cannot be scored.
            WorkError: if a number is not finite.
        """
        return next(self.measure_together([subject], settings))

    def measure_together(self, subjects: Sequence[CellSubject], settings: CoherenceSettings) -> Iterator[MeasurementRecord]:
        """The coherence of cells of one arm. Equal completions are scored once, and so are equal edits.

        Args:
            subjects: the cells.
            settings: what is measured.

        Yields:
            A record for each cell, as `measure` gives it.

        Raises:
            InputError: if a completion cannot be scored.
            WorkError: if a number is not finite.
        """
        import numpy

        kept = [subject.written[: settings.instructions] for subject in subjects]
        reference = subjects[0].reference or subjects[0].arm
        losses = _losses([one for written in kept for one in written], subjects[0].arm, reference)
        moved = _divergences([one.edit for one in subjects if one.edit is not None], subjects[0].arm, settings.harmless)
        facts: dict[str, JsonValue] = {"reference": reference.name, "shapes": SHAPES, "version": get_judge(SHAPES).version}
        for subject, written in zip(subjects, kept, strict=True):
            labels = _labels(written)
            own = [losses[one] for one in written]
            arrays = {
                "loss": numpy.array([loss / tokens if tokens else math.nan for loss, tokens in own]),
                "tokens": numpy.array([tokens for _, tokens in own], dtype=numpy.float64),
                "echo": numpy.array([label == "echo" for label in labels], dtype=numpy.float64),
                "degenerate": numpy.array([label == "degenerate" for label in labels], dtype=numpy.float64),
            }
            if subject.edit is not None:
                arrays["divergence"] = numpy.array(moved[subject.edit])
            yield MeasurementRecord(facts, arrays)

    def prompts(self, settings: CoherenceSettings, planned: PlannedSubject) -> float | int:
        """The completions that are scored, as if the target scored them, and the harmless instructions under the edit."""
        scored = sum(min(test, settings.instructions or test) for test in planned.test.values())
        return scored + (settings.harmless if planned.edited else 0)

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """Means over completions. `summary.json` compares them with those without an edit under `coherence`.

        Args:
            record: what `measure` gave.

        Returns:
            `n`, `loss` in nats per token (None if no completion has a token), the shares `echo` and `degenerate`, `divergence` in
            nats (None without an edit), and the facts.
        """
        loss = [value for value in record.arrays["loss"].tolist() if not math.isnan(value)]
        echo, degenerate = (record.arrays[name].tolist() for name in ("echo", "degenerate"))
        moved = record.arrays["divergence"].tolist() if "divergence" in record.arrays else []
        return {
            "n": len(echo),
            "loss": sum(loss) / len(loss) if loss else None,
            "echo": sum(echo) / len(echo),
            "degenerate": sum(degenerate) / len(degenerate),
            "divergence": sum(moved) / len(moved) if moved else None,
            **record.facts,
        }


def _labels(written: Sequence[CellCompletion]) -> list[str]:
    """The label of each completion; empty for one that cannot be judged."""
    given = answers(get_judge(SHAPES), [one.said for one in written])
    return [one.label if isinstance(one, Verdict) else "" for one in given]


def _losses(
    written: Sequence[CellCompletion], target: ArmSubject, reference: ArmSubject
) -> dict[CellCompletion, tuple[float, int]]:
    """The loss of each completion under the reference without an edit, in nats, with the number of its tokens."""
    from demur.engine.engine_protocol import Continuation
    from demur.measurements.cross_entropy import row_losses

    distinct = list(dict.fromkeys(written))
    prompt = reference.prompt
    # Tokens of another vocabulary mean nothing to the reference, so their text is divided into tokens anew.
    if target.prompt.tokenizer.get_vocab() == prompt.tokenizer.get_vocab():
        prompts = prompt.encode([one.said.instruction for one in distinct])
        rows = [Continuation(tuple(ids), one.token_ids) for ids, one in zip(prompts, distinct, strict=True)]
    else:
        divided = (prompt.continued(one.said.instruction, one.said.text) for one in distinct)
        rows = [Continuation(tuple(before), tuple(after)) for before, after in divided]
    scored = [place for place, row in enumerate(rows) if row.continuation]
    sums = dict(zip(scored, row_losses(reference.checkpoint, [rows[place] for place in scored], target.progress), strict=True))
    for place, total in sums.items():
        if not math.isfinite(total):
            raise WorkError(f"the loss of a completion of {distinct[place].said.instruction[:40]!r} is not finite")
    return {one: (sums.get(place, 0.0), len(rows[place].continuation)) for place, one in enumerate(distinct)}


def _divergences(edits: "Sequence[Intervention]", arm: ArmSubject, most: int) -> "dict[Intervention, list[float]]":
    """For each edit, the divergence of the target's next token on each harmless prompt."""
    import torch

    from demur.engine.engine_protocol import Row
    from demur.measurements.divergence import divergence

    distinct = list(dict.fromkeys(edits))
    if not distinct:
        return {}
    texts = arm.held_out["harmless"][:most]
    prompts = [tuple(ids) for ids in arm.prompt.encode(texts)]
    engine, n = arm.checkpoint.engine_for("next tokens", "edits"), len(texts)
    before, found = dict[int, torch.Tensor](), [0.0] * (n * len(distinct))
    try:
        for batch in engine.next_tokens([Row(ids) for ids in prompts], batch_tokens=arm.batch_tokens):
            before |= zip(batch.indices, batch.logits, strict=True)
        # Logits of all rows together would take much memory, so those of a batch are used at once.
        for batch in engine.next_tokens([Row(ids, edit) for edit in distinct for ids in prompts], batch_tokens=arm.batch_tokens):
            unedited = torch.stack([before[index % n] for index in batch.indices])
            for index, moved in zip(batch.indices, divergence(unedited, batch.logits).tolist(), strict=True):
                found[index] = moved
            arm.progress(len(batch.indices))
    except NotFinite as error:
        raise error.named(arm.checkpoint.name, texts[error.row % n]) from error
    return {edit: found[place * n : (place + 1) * n] for place, edit in enumerate(distinct)}
