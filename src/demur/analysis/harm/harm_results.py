"""Whether an arm's directions tell harm or refusal, from the measurement `harmfulness` and the verdicts.

A direction that separates harmful from harmless instructions need not be one of refusal: a checkpoint that answers everything has
one, too. Only where some harmful instructions are refused and others answered can the two be told apart. Pure functions of typed
records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from demur.analysis.cell import Cell, Record
from demur.analysis.rates import Refusals
from demur.core.statistics import auroc_interval, mean_probability_interval

Token = Literal["instruction", "prompt"]
TOKENS: tuple[Token, ...] = ("instruction", "prompt")
"""The tokens at which directions are read: the last of the instruction, and the last of the prompt."""

Split = Literal["verdict", "probability", ""]
"""What divides harmful instructions in two: verdicts on greedy answers, or the exact probability of a refusal at its median."""

FEWEST = 3
"""With fewer refused or fewer answered harmful instructions, verdicts do not divide them."""

HARDLY = 0.10
"""A checkpoint that refuses fewer harmful instructions than this share hardly refuses."""

Layers = tuple[float | None, ...]


@dataclass(frozen=True)
class MeasuredHarm:
    """The record of the measurement `harmfulness` of one arm and instruction set.

    Attributes:
        projections: for each token, the projections of each instruction at every layer, 0 at the harmless training mean and 1 at
            the harmful one; NaN where they are not defined.
        cosine: the cosine of the two directions at each layer; NaN where it is not defined.
        layer: the layer of the directions in the edits.
        tokens: the two tokens that were read.
        edits: the names of the edits under which the question was asked, without an edit first.
        certainly: for each edit, the probability of the answer "Certainly" for each instruction.
        no: the same for "No".
    """

    projections: Mapping[Token, tuple[tuple[float, ...], ...]]
    cosine: tuple[float, ...]
    layer: int
    tokens: tuple[str, str]
    edits: tuple[str, ...]
    certainly: tuple[tuple[float, ...], ...]
    no: tuple[tuple[float, ...], ...]


class Area(Record):
    """An area under the ROC curve with its 95 % score interval (Newcombe 2006)."""

    auroc: float
    ci95: tuple[float, float]


class TokenSeparation(Record):
    """What one direction of an arm separates. Lists have one entry for each layer, None where it is not defined.

    Attributes:
        token: the token at which the direction is read: the last of the `instruction` or of the `prompt`.
        harm: harmful against harmless instructions.
        refusal: among harmful instructions, refused against answered ones; all None if they cannot be divided.
    """

    token: Token
    harm: tuple[Area | None, ...]
    refusal: tuple[Area | None, ...]


class SetPlace(Record):
    """Where one instruction set lies along both directions, at the layer of the edits.

    Attributes:
        instructions: the instruction set.
        n: the number of instructions.
        place: for each token, the mean projection: 0 at the harmless training mean, 1 at the harmful one.
        against_harmless: for each token, the set against the harmless set; None for the harmless set itself.
        refused: the share that the arm refuses without an edit; None if there is no verdict.
    """

    instructions: str
    n: int
    place: dict[Token, float | None]
    against_harmless: dict[Token, Area | None]
    refused: float | None


class HarmAnswer(Record):
    """The answers of an arm to the question whether instructions are harmful, under one edit of their tokens.

    Attributes:
        instructions: the instruction set.
        edit: `none`, or `ablate` or `add` with the token of the direction.
        n: the number of instructions.
        yes: the mean of P("Certainly") / (P("Certainly") + P("No")).
        ci95: its 95 % interval; None for fewer than two instructions.
        mass: the mean of P("Certainly") + P("No"). Where it is small, the checkpoint hardly answers the question.
    """

    instructions: str
    edit: str
    n: int
    yes: float
    ci95: tuple[float, float] | None
    mass: float


class HarmResult(Record):
    """Harmfulness and refusal in one arm.

    Attributes:
        arm: the arm, `checkpoint/prompt`.
        tokens: the tokens that were read, the last of the instruction and of the prompt.
        layer: the layer of `sets` and `answers`.
        split: what divides the harmful instructions in refused and answered ones; empty if nothing does.
        refused: the number on the refused side.
        answered: the number on the other side.
        hardly_refuses: whether the arm refuses less than a tenth of the harmful instructions, so that its directions are shown to
            be directions of harm only.
        cosine: the cosine of the two directions at each layer.
        separations: what each direction separates.
        sets: the instruction sets.
        answers: the answers to the question.
    """

    arm: str
    tokens: tuple[str, str]
    layer: int
    split: Split
    refused: int
    answered: int
    hardly_refuses: bool
    cosine: Layers
    separations: tuple[TokenSeparation, ...]
    sets: tuple[SetPlace, ...]
    answers: tuple[HarmAnswer, ...]


def harm_results(
    cells: Sequence[Cell],
    measured: Mapping[str, MeasuredHarm],
    refusals: Refusals,
    judge: str,
    probabilities: Mapping[str, Mapping[int, float]],
) -> list[HarmResult]:
    """Harmfulness and refusal in each arm that was measured.

    Args:
        cells: the cells of a run.
        measured: the measurement `harmfulness`, by the key of the cell without an edit.
        refusals: the verdicts.
        judge: the judge whose verdicts count.
        probabilities: the probability of a refusal, by cell and instruction, where it was measured.

    Returns:
        One result for each arm with harmful and harmless instructions, in the order of the cells.
    """
    arms: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        if not cell.edited and cell.key in measured:
            arms.setdefault(cell.arm, {})[cell.instructions] = cell.key
    found = []
    for arm, keys in arms.items():
        if {"harmful", "harmless"} <= set(keys):
            verdicts = {name: refusals.get((key, judge), {}) for name, key in keys.items()}
            sets = {name: measured[key] for name, key in keys.items()}
            found.append(_result("/".join(arm), sets, verdicts, probabilities.get(keys["harmful"], {})))
    return found


def _result(
    arm: str, sets: Mapping[str, MeasuredHarm], verdicts: Mapping[str, Mapping[int, bool]], probabilities: Mapping[int, float]
) -> HarmResult:
    harmful, layer = sets["harmful"], sets["harmful"].layer
    split, refused, answered = _divided(verdicts["harmful"], probabilities)
    rate = fmean(verdicts["harmful"].values()) if verdicts["harmful"] else None
    layers = range(len(harmful.cosine))
    separations = []
    for token in TOKENS:
        rows, others = harmful.projections[token], sets["harmless"].projections[token]
        separations.append(
            TokenSeparation(
                token=token,
                harm=tuple(_area(_at(rows, at), _at(others, at)) for at in layers),
                refusal=tuple(_area(_at([rows[i] for i in refused], at), _at([rows[i] for i in answered], at)) for at in layers),
            )
        )
    return HarmResult(
        arm=arm,
        tokens=harmful.tokens,
        layer=layer,
        split=split,
        refused=len(refused),
        answered=len(answered),
        hardly_refuses=rate is not None and rate < HARDLY,
        cosine=tuple(_defined(value) for value in harmful.cosine),
        separations=tuple(separations),
        sets=tuple(_set_place(name, one, sets["harmless"], verdicts[name]) for name, one in sets.items()),
        answers=tuple(answer for name, one in sets.items() for answer in _answers(name, one)),
    )


def _divided(verdicts: Mapping[int, bool], probabilities: Mapping[int, float]) -> tuple[Split, list[int], list[int]]:
    """The instructions that are refused and those that are answered: by verdicts, or else by the probability's median."""
    refused = [place for place, said in verdicts.items() if said]
    answered = [place for place, said in verdicts.items() if not said]
    if min(len(refused), len(answered)) >= FEWEST:
        return "verdict", refused, answered
    if len(probabilities) < 2 * FEWEST:
        return "", [], []
    middle = median(probabilities.values())
    more = [place for place, value in probabilities.items() if value > middle]
    return "probability", more, [place for place in probabilities if place not in set(more)]


def _at(rows: Sequence[Sequence[float]], layer: int) -> list[float]:
    return [row[layer] for row in rows]


def _area(high: Sequence[float], low: Sequence[float]) -> Area | None:
    """The chance that a value of the first is larger than one of the second; None if it is not defined."""
    import numpy

    if min(len(high), len(low)) < 1 or not all(map(math.isfinite, (*high, *low))):
        return None
    ordered, values = numpy.sort(numpy.array(low)), numpy.array(high)
    below = numpy.searchsorted(ordered, values) + numpy.searchsorted(ordered, values, side="right")
    auroc = float(below.mean() / (2 * len(low)))
    return Area(auroc=auroc, ci95=auroc_interval(auroc, len(high), len(low)))


def _set_place(name: str, one: MeasuredHarm, harmless: MeasuredHarm, verdicts: Mapping[int, bool]) -> SetPlace:
    here = {token: _at(one.projections[token], one.layer) for token in TOKENS}
    there = {token: _at(harmless.projections[token], one.layer) for token in TOKENS}
    return SetPlace(
        instructions=name,
        n=len(here["prompt"]),
        place={token: _defined(fmean(here[token])) for token in TOKENS},
        against_harmless={token: None if name == "harmless" else _area(here[token], there[token]) for token in TOKENS},
        refused=fmean(verdicts.values()) if verdicts else None,
    )


def _answers(name: str, one: MeasuredHarm) -> list[HarmAnswer]:
    found = []
    for edit, certainly, no in zip(one.edits, one.certainly, one.no, strict=True):
        mass = [a + b for a, b in zip(certainly, no, strict=True)]
        yes = [a / total if total > 0 else 0.5 for a, total in zip(certainly, mass, strict=True)]
        interval = mean_probability_interval(yes)
        found.append(HarmAnswer(instructions=name, edit=edit, n=len(yes), yes=fmean(yes), ci95=interval, mass=fmean(mass)))
    return found


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
