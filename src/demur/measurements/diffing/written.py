"""Greedy completions of a pair in lockstep, with whether each is a refusal and how unlikely its text is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from pydantic import JsonValue

from demur.measurements.diffing.diff_runs import PairMaterial, PairSettings

if TYPE_CHECKING:
    from demur.engine.lockstep.greedy_pair import Mix
    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.engine.lockstep.stream_patch import StreamPatch


@dataclass(frozen=True)
class Written:
    """A greedy completion of a pair.

    Attributes:
        source: the checkpoint that something was taken from.
        target: the checkpoint that it was put into.
        place: the layer or the coefficient; None for the target as it is.
        text: the completion.
        refusal: whether it is a refusal.
        loss: in nats per token, under the target as it is. What is put in may break the language before it changes refusals.
    """

    source: str
    target: str
    place: float | int | None
    text: str
    refusal: bool
    loss: float


def written_by(
    pair: "MatchedPair",
    material: PairMaterial,
    settings: PairSettings,
    n: int,
    place: float | int | None,
    patch: "StreamPatch | None" = None,
    mix: "Mix | None" = None,
) -> list[Written]:
    """Greedy completions of the first instructions.

    Args:
        pair: the checkpoints.
        material: the instructions with their prompts.
        settings: the judge and the length of completions.
        n: how many completions.
        place: the place of the run.
        patch: what is put into the target's stream.
        mix: the logits that choose the next token; the target's unless given.
    """
    from demur.engine.engine_protocol import Continuation
    from demur.engine.lockstep.greedy_pair import decode_pair, target_logits
    from demur.judges.judge import Judged, Verdict, answers, get_judge
    from demur.measurements.cross_entropy import row_losses

    texts, prompts = material.texts[:n], material.prompts[:n]
    tokens = decode_pair(
        pair,
        prompts,
        patch,
        mix=mix or target_logits,
        max_new_tokens=settings.max_new_tokens,
        stop_ids=pair.stop_ids,
    )
    written = [pair.target.tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens]
    verdicts = answers(get_judge(settings.judge), [Judged(*one) for one in zip(written, texts, strict=True)])
    losses = row_losses(pair.target, [Continuation(*one) for one in zip(prompts, map(tuple, tokens), strict=True)])
    refusals = [isinstance(one, Verdict) and one.refusal for one in verdicts]
    return [
        Written(pair.source.name, pair.target.name, place, text, refusal, loss / len(ids))
        for text, refusal, loss, ids in zip(written, refusals, losses, tokens, strict=True)
    ]


def written_facts(written: Sequence[Written]) -> dict[str, JsonValue]:
    """Facts of a record: for each attribute a list whose name begins with `written_`, with one entry for each completion."""
    return {f"written_{field.name}": [getattr(one, field.name) for one in written] for field in fields(Written)}
