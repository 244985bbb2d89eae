"""Greedy completions of a pair in lockstep, with whether each is a refusal and how unlikely its text is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from pydantic import JsonValue

from demur.measurements.diffing.diff_runs import DiffRun, PairMaterial, PairSettings

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
        kind: the kind of the run; `alone` for the target as it is.
        place: the place of the run, such as a layer.
        text: the completion.
        refusal: whether it is a refusal.
        loss: in nats per token, under the target as it is. What is put in may break the language before it changes refusals.
    """

    source: str
    target: str
    kind: str
    place: float | int | None
    text: str
    refusal: bool
    loss: float


@dataclass(frozen=True, eq=False)
class Draft:
    """Greedy completions of the first instructions in one run, before they are judged.

    Attributes:
        run: the run.
        tokens: the tokens of each completion.
    """

    run: DiffRun
    tokens: Sequence[Sequence[int]]


def written_by(
    pair: "MatchedPair",
    material: PairMaterial,
    settings: PairSettings,
    n: int,
    run: DiffRun,
    patch: "StreamPatch | None" = None,
    mix: "Mix | None" = None,
) -> list[Written]:
    """Greedy completions of the first instructions.

    Args:
        pair: the checkpoints.
        material: the instructions with their prompts.
        settings: the judge and the length of completions.
        n: how many completions.
        run: the run.
        patch: what is put into the target's stream.
        mix: the logits that choose the next token; the target's unless given.
    """
    from demur.engine.lockstep.greedy_pair import decode_pair, target_logits

    tokens = decode_pair(
        pair,
        material.prompts[:n],
        patch,
        mix=mix or target_logits,
        max_new_tokens=settings.max_new_tokens,
        stop_ids=pair.stop_ids,
    )
    return judged(pair, material, settings, [Draft(run, tokens)])


def judged(pair: "MatchedPair", material: PairMaterial, settings: PairSettings, drafts: Sequence[Draft]) -> list[Written]:
    """Completions with whether each is a refusal, and their loss under the target as it is.

    Args:
        pair: the checkpoints.
        material: the instructions with their prompts.
        settings: the judge.
        drafts: the completions.
    """
    from demur.engine.engine_protocol import Continuation
    from demur.judges.judge import Judged, Verdict, answers, get_judge
    from demur.measurements.cross_entropy import row_losses

    rows = [(one.run, place, tuple(tokens)) for one in drafts for place, tokens in enumerate(one.tokens)]
    texts = [pair.target.tokenizer.decode(list(tokens), skip_special_tokens=True) for _, _, tokens in rows]
    asked = [Judged(text, material.texts[place]) for text, (_, place, _) in zip(texts, rows, strict=True)]
    verdicts = answers(get_judge(settings.judge), asked)
    losses = row_losses(pair.target, [Continuation(material.prompts[place], tokens) for _, place, tokens in rows])
    return [
        Written(
            source=pair.source.name,
            target=pair.target.name,
            kind=run.kind,
            place=run.place,
            text=text,
            refusal=isinstance(verdict, Verdict) and verdict.refusal,
            loss=loss / len(tokens),
        )
        for (run, _, tokens), text, verdict, loss in zip(rows, texts, verdicts, losses, strict=True)
    ]


def written_facts(written: Sequence[Written]) -> dict[str, JsonValue]:
    """Facts of a record: for each attribute a list whose name begins with `written_`, with one entry for each completion."""
    return {f"written_{field.name}": [getattr(one, field.name) for one in written] for field in fields(Written)}
