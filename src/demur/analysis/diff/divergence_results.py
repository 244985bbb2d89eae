"""How far apart two checkpoints' next tokens are along responses, and whether ablation brings the later one back.

Every number is a mean over instructions, with Student's t interval between them. Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record
from demur.core.effects.mean_change import mean_change

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = 5
"""The first tokens of a response are compared with the later ones."""


@dataclass(frozen=True, eq=False)
class MeasuredDivergence:
    """A stored divergence of a pair.

    Attributes:
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        prompt: the prompt format in which both were asked.
        writers: the checkpoints whose responses both were run along.
        compared: the two runs of each comparison: `later`, `earlier`, `ablated` or `null`.
        values: by label and name of a number, (writer, comparison, instruction, token); NaN after the end of a response.
    """

    subject: str
    first: str
    second: str
    prompt: str
    writers: tuple[str, ...]
    compared: tuple[tuple[str, str], ...]
    values: "Mapping[str, Mapping[str, NDArray[Any]]]"


class Estimate(Record):
    """A mean over instructions with its 95 % interval; None for fewer than two instructions."""

    mean: float
    ci95: tuple[float, float] | None


class TokenDivergence(Record):
    """The divergence at one token of responses.

    Attributes:
        n: how many responses are that long.
        kl: KL(one || other) in nats.
        js: the Jensen-Shannon divergence in nats.
        agrees: the share in which both have the same most likely token.
    """

    n: int
    kl: Estimate
    js: Estimate
    agrees: float


class DivergenceCurve(Record):
    """The divergence of two runs along the responses of one checkpoint.

    Attributes:
        instructions: their label.
        responses: the checkpoint that wrote the responses.
        one: the first run: `later`; `ablated`, the later checkpoint with its direction ablated; `null`, with a random one.
        other: the second run: `earlier` or `later`.
        n: the number of instructions.
        kl: KL(one || other) in nats per token.
        reverse: KL(other || one).
        js: the Jensen-Shannon divergence.
        agrees: the share of tokens at which both have the same most likely token.
        beginning: KL(one || other) in the first tokens.
        rest: the same in the later tokens; None if no response is longer.
        fall: `beginning` minus `rest`, within the instructions whose responses are longer.
        by_token: each token of a response.
    """

    instructions: str
    responses: str
    one: str
    other: str
    n: int
    kl: Estimate
    reverse: Estimate
    js: Estimate
    agrees: Estimate
    beginning: Estimate
    rest: Estimate | None
    fall: Estimate | None
    by_token: tuple[TokenDivergence, ...]


class Ablation(Record):
    """What ablating the later checkpoint's direction does to its divergence from the earlier one, KL(later || earlier).

    Attributes:
        instructions: their label.
        responses: the checkpoint that wrote the responses.
        n: the number of instructions.
        before: without an edit, in nats per token.
        after: with the direction ablated.
        null: with a random direction ablated.
        beyond_null: `after` minus `null`: below 0 if ablation brings it nearer than a random direction does.
        js_beyond_null: the same of the Jensen-Shannon divergence.
    """

    instructions: str
    responses: str
    n: int
    before: float
    after: float
    null: float
    beyond_null: Estimate
    js_beyond_null: Estimate

    @property
    def sign(self) -> int:
        """-1 if it is shown to be nearer, 1 if it is shown to be further away, 0 if neither: both divergences have to agree."""
        signs = {
            0 if one.ci95 is None else -1 if one.ci95[1] < 0 else 1 if one.ci95[0] > 0 else 0
            for one in (self.beyond_null, self.js_beyond_null)
        }
        return signs.pop() if len(signs) == 1 else 0


class DivergenceResult(Record):
    """The divergence of a pair of checkpoints under one prompt format.

    Attributes:
        subject: the pair.
        first: the earlier checkpoint.
        second: the later one.
        prompt: the prompt format in which both were asked.
        curves: every comparison along the responses of each checkpoint.
        ablations: what ablation does; empty if it was not measured.
    """

    subject: str
    first: str
    second: str
    prompt: str
    curves: tuple[DivergenceCurve, ...]
    ablations: tuple[Ablation, ...] = ()


def divergence_results(measured: Sequence[MeasuredDivergence]) -> list[DivergenceResult]:
    """The results of measurements of `divergence`.

    Args:
        measured: the measurements.

    Returns:
        One result for each, in order.
    """
    return [_result(one) for one in measured]


def _result(one: MeasuredDivergence) -> DivergenceResult:
    curves, ablations = [], []
    places: dict[tuple[str, str], list[int]] = {}
    for place, pair in enumerate(one.compared):
        places.setdefault(pair, []).append(place)
    for label, values in one.values.items():
        for writer, name in enumerate(one.writers):
            found = {pair: _joined(values, writer, mine) for pair, mine in places.items()}
            curves += [_curve(label, name, pair, numbers) for pair, numbers in found.items()]
            runs = [found.get((run, "earlier")) for run in ("later", "ablated", "null")]
            before, after, null = runs
            if before is not None and after is not None and null is not None:
                ablations.append(_ablation(label, name, before, after, null))
    return DivergenceResult(
        subject=one.subject,
        first=one.first,
        second=one.second,
        prompt=one.prompt,
        curves=tuple(curves),
        ablations=tuple(ablations),
    )


def _joined(values: "Mapping[str, NDArray[Any]]", writer: int, places: Sequence[int]) -> "dict[str, NDArray[Any]]":
    """The numbers of one comparison, (instruction, token); the mean over several nulls."""
    return {name: numbers[writer, list(places)].mean(axis=0) for name, numbers in values.items()}


def _curve(label: str, writer: str, pair: tuple[str, str], numbers: "Mapping[str, NDArray[Any]]") -> DivergenceCurve:
    import numpy

    kl = numbers["kl"]
    longer = ~numpy.isnan(kl[:, FIRST:]).all(axis=1)
    beginning = numpy.nanmean(kl[:, :FIRST], axis=1)
    rest = numpy.nanmean(kl[longer, FIRST:], axis=1) if longer.any() else None
    return DivergenceCurve(
        instructions=label,
        responses=writer,
        one=pair[0],
        other=pair[1],
        n=len(kl),
        **{name: estimate_of(numpy.nanmean(each, axis=1)) for name, each in numbers.items()},
        beginning=estimate_of(beginning),
        rest=None if rest is None else estimate_of(rest),
        fall=None if rest is None else _change(rest, beginning[longer]),
        by_token=tuple(_at_token(numbers, token) for token in range(kl.shape[1]) if not numpy.isnan(kl[:, token]).all()),
    )


def _at_token(numbers: "Mapping[str, NDArray[Any]]", token: int) -> TokenDivergence:
    import numpy

    there = ~numpy.isnan(numbers["kl"][:, token])
    kl, js, agrees = (numbers[name][there, token] for name in ("kl", "js", "agrees"))
    return TokenDivergence(n=len(kl), kl=estimate_of(kl), js=estimate_of(js), agrees=float(agrees.mean()))


def _ablation(
    label: str,
    writer: str,
    before: "Mapping[str, NDArray[Any]]",
    after: "Mapping[str, NDArray[Any]]",
    null: "Mapping[str, NDArray[Any]]",
) -> Ablation:
    import numpy

    means = [{name: numpy.nanmean(each[name], axis=1) for name in ("kl", "js")} for each in (before, after, null)]
    return Ablation(
        instructions=label,
        responses=writer,
        n=len(means[0]["kl"]),
        before=float(means[0]["kl"].mean()),
        after=float(means[1]["kl"].mean()),
        null=float(means[2]["kl"].mean()),
        beyond_null=_change(means[2]["kl"], means[1]["kl"]),
        js_beyond_null=_change(means[2]["js"], means[1]["js"]),
    )


def estimate_of(values: "NDArray[Any]") -> Estimate:
    """The mean of one number for each instruction, with Student's t interval.

    Args:
        values: the numbers.
    """
    import numpy

    return _change(numpy.zeros(len(values)), values)


def _change(before: "NDArray[Any]", after: "NDArray[Any]") -> Estimate:
    found = mean_change(before.astype(float).tolist(), after.astype(float).tolist())
    return Estimate(mean=found.change, ci95=found.ci95)
