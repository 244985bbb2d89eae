"""The mean activation difference of two checkpoints on unrelated text: its size, its tokens and its cosine with directions.

Pure functions of typed records.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record
from demur.analysis.cell_phrases import named
from demur.analysis.diff.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class MeasuredLens:
    """A stored mean difference of a pair. Arrays are (layer, place); the last place is the mean over positions.

    Attributes:
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        texts: the number of texts.
        tokens: how many tokens of each were read.
        layer: the layer of the study's direction, at which sentences are.
        norm: the norm of the mean difference.
        stream_norm: the mean norm of the later checkpoint's stream.
        halves: the cosine of the mean differences of both halves of the texts.
        cosine: with the direction of each checkpoint, (checkpoint, layer, place).
        null95: the absolute cosine that 95 % of directions for shuffled labels stay below.
        p: the share of shuffled labels with an absolute cosine at least as high.
        up: the tokens that the difference makes most likely.
        down: those that its opposite makes most likely.
    """

    subject: str
    first: str
    second: str
    texts: int
    tokens: int
    layer: int
    norm: "NDArray[Any]"
    stream_norm: "NDArray[Any]"
    halves: "NDArray[Any]"
    cosine: "NDArray[Any]"
    null95: "NDArray[Any]"
    p: "NDArray[Any]"
    up: Sequence[Sequence[Sequence[str]]]
    down: Sequence[Sequence[Sequence[str]]]


class DirectionCosine(Record):
    """The cosine of the mean difference with a checkpoint's direction at the same layer.

    Attributes:
        checkpoint: whose direction.
        cosine: the cosine; None if the difference is zero.
        null95: the absolute cosine that 95 % of directions for shuffled labels stay below.
        p: (1 + shuffled labels with an absolute cosine at least as high) / (1 + shuffles).
    """

    checkpoint: str
    cosine: float | None
    null95: float | None
    p: float | None


class LensPlace(Record):
    """The mean difference at one layer and place.

    Attributes:
        layer: the layer.
        position: the token position from the text's beginning; None for the mean over all positions but the first.
        norm: its norm.
        share: its norm as a share of the mean norm of the later checkpoint's stream.
        halves: the cosine of both halves of the texts; None if the difference is zero.
        cosines: with the direction of each checkpoint.
        up: the tokens that it makes most likely.
        down: the tokens that its opposite makes most likely.
    """

    layer: int
    position: int | None
    norm: float
    share: float
    halves: float | None
    cosines: tuple[DirectionCosine, DirectionCosine]
    up: tuple[str, ...]
    down: tuple[str, ...]


class LensResult(Record):
    """The mean difference of a pair at every layer and place.

    Attributes:
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        texts: the number of texts.
        tokens: how many tokens of each were read.
        layer: the layer of the study's direction.
        places: the mean difference, layer by layer.
    """

    subject: str
    first: str
    second: str
    texts: int
    tokens: int
    layer: int
    places: tuple[LensPlace, ...]

    @property
    def overall(self) -> tuple[LensPlace, ...]:
        """The mean over positions at every layer."""
        return tuple(one for one in self.places if one.position is None)


def lens_results(measured: Sequence[MeasuredLens]) -> list[LensResult]:
    """The results of measurements of `difference-lens`.

    Args:
        measured: the measurements.

    Returns:
        One result for each, in order.
    """
    return [
        LensResult(
            subject=one.subject,
            first=one.first,
            second=one.second,
            texts=one.texts,
            tokens=one.tokens,
            layer=one.layer,
            places=tuple(_place(one, *at) for at in _grid(one)),
        )
        for one in measured
    ]


def _grid(one: MeasuredLens) -> Iterator[tuple[int, int]]:
    layers, places = one.norm.shape
    yield from ((layer, place) for layer in range(layers) for place in range(places))


def _place(one: MeasuredLens, layer: int, place: int) -> LensPlace:
    cosines = [
        DirectionCosine(
            checkpoint=name,
            cosine=_known(one.cosine[number, layer, place]),
            null95=_known(one.null95[number, layer, place]),
            p=_known(one.p[number, layer, place]) if _known(one.cosine[number, layer, place]) is not None else None,
        )
        for number, name in enumerate((one.first, one.second))
    ]
    norm, stream = float(one.norm[layer, place]), float(one.stream_norm[layer, place])
    return LensPlace(
        layer=layer,
        position=None if place == one.norm.shape[1] - 1 else place,
        norm=norm,
        share=norm / stream if stream else 0.0,
        halves=_known(one.halves[layer, place]),
        cosines=(cosines[0], cosines[1]),
        up=tuple(one.up[layer][place]),
        down=tuple(one.down[layer][place]),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def lens_findings(one: LensResult) -> Iterator[Finding]:
    """Whether the mean difference on unrelated text is along a direction of refusal, at the layer of the study's direction.

    Args:
        one: the mean difference of a pair.

    Yields:
        One step.
    """
    question = f"Is what training added to the stream on unrelated text along the direction of {named(one.second)}?"
    at = one.overall[one.layer]
    other, own = at.cosines
    shown = False
    if own.cosine is None or own.null95 is None or own.p is None:
        answer = f"Nothing was added: up to layer {one.layer} both checkpoints have the same stream."
    elif own.p >= 0.05:
        answer = f"No: its cosine with it is {own.cosine:+.2f} at layer {one.layer}, not above that of shuffled labels."
    else:
        shown = True
        sense = "towards refusal" if own.cosine > 0 else "away from refusal"
        answer = f"In part, {sense}: its cosine with the direction is {own.cosine:+.2f} at layer {one.layer}."
    parts = [f"mean difference over {one.texts} texts of {one.tokens} tokens, {100 * at.share:.2g} % of the stream's norm"]
    if at.halves is not None:
        parts.append(f"cosine of both halves of the texts {at.halves:.2f}")
    parts += [
        f"cosine with the direction of {each.checkpoint} {each.cosine:+.2f}, shuffled labels within {each.null95:.2f} in 95 %"
        for each in (own, other)
        if each.cosine is not None and each.null95 is not None
    ]
    if at.halves is not None:
        parts.append(f"its tokens: {', '.join(map(repr, at.up[:5]))}; of its opposite: {', '.join(map(repr, at.down[:5]))}")
    yield Finding(subject=one.subject, question=question, answer=answer, evidence="; ".join(parts), shown=shown)
