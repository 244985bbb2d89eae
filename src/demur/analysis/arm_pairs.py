"""The cosines of pairs of arms, each with its null, as typed values; and what they say, in sentences.

They come from the measurement `direction-agreement`. Pure functions of typed records.
"""

from collections.abc import Sequence
from typing import Literal

from demur.analysis.cell import Answer, Record
from demur.analysis.summary import MeasurementSummary
from demur.core.statistics import LEVEL

Interval = tuple[float, float]

MEASUREMENT = "direction-agreement"

NAMED = 3
"""Up to this many pairs get a sentence of their own."""


class ArmPair(Record):
    """The directions of two arms at every layer. Each list has one entry for each layer, None where a number is not defined.

    Attributes:
        arms: the names of the arms, `checkpoint/prompt`.
        cosine: the cosine of their differences of means.
        corrected: the cosine without the noise that both arms share, because they read the same instructions.
        corrected_ci95: its interval over instructions.
        null_mean: the mean cosine for shuffled labels.
        null95: the middle 95 % of the cosines for shuffled labels.
        p_above: p value of the cosine against those for shuffled labels; small if it is higher.
        halves: for each arm, the mean cosine between directions from two halves of its instructions.
    """

    arms: tuple[str, str]
    cosine: tuple[float | None, ...]
    corrected: tuple[float | None, ...]
    corrected_ci95: tuple[Interval | None, ...]
    null_mean: tuple[float | None, ...]
    null95: tuple[Interval | None, ...]
    p_above: tuple[float | None, ...]
    halves: tuple[tuple[float | None, ...], tuple[float | None, ...]]

    @property
    def differ_in(self) -> Literal["weights", "prompt", "both"]:
        """What the two arms do not share."""
        (one, one_prompt), (other, other_prompt) = (arm.split("/", 1) for arm in self.arms)
        if one == other:
            return "prompt"
        return "weights" if one_prompt == other_prompt else "both"


def arm_pairs(measured: Sequence[MeasurementSummary]) -> list[ArmPair]:
    """The pairs among the measurements of a run.

    Args:
        measured: all measurements of the run.
    """
    # A record of another version of the measurement has other numbers, and is left out.
    return [ArmPair.model_validate(one.summary) for one in measured if one.name == MEASUREMENT and "null95" in one.summary]


def agreement_answers(pairs: Sequence[ArmPair], layers: Sequence[int]) -> list[Answer]:
    """What the cosines between checkpoints say of a direction that they share.

    Args:
        pairs: all pairs of arms.
        layers: the layers of the study's directions.

    Returns:
        A sentence for each pair of different checkpoints and each layer; pairs of one prompt format are preferred. One sentence
        for all of them if there are more than three. A cosine counts as shown if it is higher than those for shuffled labels.
    """
    found = _at_layers(_across(pairs), layers)
    if len(found) <= NAMED:
        return [_sentence(*one) for one in found]
    above = sum(p <= LEVEL for *_, p in found)
    cosines = [cosine for _, _, cosine, _, _ in found]
    text = (
        f"The directions of two checkpoints at one layer have cosines from {min(cosines):.2f} to {max(cosines):.2f}; {above} of "
        f"{len(found)} are higher than those for shuffled labels (p < {LEVEL}, not corrected)."
    )
    return [Answer(text=text, shown=above > 0)]


def cosines_of_checkpoints(pairs: Sequence[ArmPair], layers: Sequence[int]) -> dict[frozenset[str], list[str]]:
    """The same sentences for each two checkpoints, but one sentence for each layer, however many there are.

    Args:
        pairs: all pairs of arms.
        layers: the layers of the study's directions.

    Returns:
        The two checkpoints -> the sentences.
    """
    found: dict[frozenset[str], list[str]] = {}
    for one in _at_layers(_across(pairs), layers):
        checkpoints = frozenset(arm.split("/", 1)[0] for arm in one[0].arms)
        found.setdefault(checkpoints, []).append(_sentence(*one).text)
    return found


def _across(pairs: Sequence[ArmPair]) -> list[ArmPair]:
    """The pairs of different checkpoints; those of one prompt format if there are any."""
    across = [pair for pair in pairs if pair.differ_in != "prompt"]
    return [pair for pair in across if pair.differ_in == "weights"] or across


def _at_layers(pairs: Sequence[ArmPair], layers: Sequence[int]) -> list[tuple[ArmPair, int, float, Interval, float]]:
    return [(pair, layer, *known) for pair in pairs for layer in layers if (known := _known(pair, layer))]


def _known(pair: ArmPair, layer: int) -> tuple[float, Interval, float] | None:
    """The cosine, the middle of its null and its p value; None if they are not defined."""
    cosine, null, p = pair.cosine[layer], pair.null95[layer], pair.p_above[layer]
    return None if cosine is None or null is None or p is None else (cosine, null, p)


def _sentence(pair: ArmPair, layer: int, cosine: float, null: Interval, p: float) -> Answer:
    one, other = (f'"{arm if pair.differ_in == "both" else arm.split("/", 1)[0]}"' for arm in pair.arms)
    shown = p <= LEVEL
    said = "higher than" if shown else "no higher than"
    so = (
        "so the two share more than the instructions that they read"
        if shown
        else "so it does not show that they share a mechanism"
    )
    text = (
        f"The directions of {one} and {other} at layer {layer} have a cosine of {cosine:.2f}; this is {said} the {null[0]:.2f} "
        f"to {null[1]:.2f} that shuffled labels give, {so}."
    )
    return Answer(text=text, shown=shown)
