"""Cosines between arms beside those for shuffled labels: a band for the figure by layer, and a table at the study's layers."""

from collections.abc import Sequence

from demur.analysis.arm_pairs import ArmPair, Interval, arm_pairs
from demur.analysis.summary import Summary
from demur.core.number_format import hundredths
from demur.report.cell_labels import arm_labels
from demur.report.figure_spec import TableSpec
from demur.report.sections.layer_view import study_layers

DIFFER = {"weights": "weights", "prompt": "prompt", "both": "weights and prompt"}


def shuffled_band(summary: Summary) -> tuple[Interval | None, ...] | None:
    """The middle 95 % of the cosines for shuffled labels by layer, the widest of the pairs that the figure shows.

    Args:
        summary: the run's summary.

    Returns:
        None if the run did not measure `direction-agreement`.
    """
    pairs = arm_pairs(summary.measurements)
    across = [pair for pair in pairs if pair.differ_in != "prompt"]
    shown = [pair for pair in across if pair.differ_in == "weights"] or across or pairs
    if not shown:
        return None
    return tuple(map(_widest, zip(*(pair.null95 for pair in shown), strict=True)))


def _widest(intervals: Sequence[Interval | None]) -> Interval | None:
    known = [one for one in intervals if one is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def null_table(summary: Summary) -> TableSpec | None:
    """The cosine of each pair of arms at the study's layers with its null, its corrected value and its ceilings.

    Args:
        summary: the run's summary.

    Returns:
        None if the run did not measure `direction-agreement`.
    """
    import pandas

    pairs = arm_pairs(summary.measurements)
    if not pairs:
        return None
    labels = {f"{checkpoint}/{prompt}": label for (checkpoint, prompt), label in arm_labels(summary).items()}
    rows = [
        {
            "first": labels.get(pair.arms[0], pair.arms[0]),
            "second": labels.get(pair.arms[1], pair.arms[1]),
            "differ in": DIFFER[pair.differ_in],
            "layer": layer,
            "cosine": pair.cosine[layer],
            "null low": _end(pair.null95[layer], 0),
            "null high": _end(pair.null95[layer], 1),
            "p above": pair.p_above[layer],
            "corrected": pair.corrected[layer],
            "corrected low": _end(pair.corrected_ci95[layer], 0),
            "corrected high": _end(pair.corrected_ci95[layer], 1),
            "first halves": pair.halves[0][layer],
            "second halves": pair.halves[1][layer],
        }
        for pair in pairs
        for layer in study_layers(summary)
    ]
    caption = (
        "Cosines between the directions of two arms. Shuffled labels: the middle 95 % of the cosines of the same two arms if the "
        "labels of the training instructions are shuffled, in the same way in both; p is for a cosine above them. Corrected: "
        "without the noise that both arms share, with a 95 % interval over instructions. Halves: the mean cosine of two "
        "directions of one arm, each from half of its instructions; with more instructions it would be higher."
    )
    readable = [_readable(pair, layer, labels) for pair in pairs for layer in study_layers(summary)]
    numbers = frozenset({"Layer", "Cosine", "Shuffled labels", "p", "Corrected", "Halves"})
    return TableSpec("cosine-nulls", caption, pandas.DataFrame(rows), pandas.DataFrame(readable), numbers)


def _readable(pair: ArmPair, layer: int, labels: dict[str, str]) -> dict[str, str]:
    p = pair.p_above[layer]
    return {
        "Arms": " and ".join(labels.get(arm, arm) for arm in pair.arms),
        "Differ in": DIFFER[pair.differ_in],
        "Layer": str(layer),
        "Cosine": hundredths(pair.cosine[layer]),
        "Shuffled labels": _range(pair.null95[layer]),
        "p": "" if p is None else f"{p:.2f}",
        "Corrected": " ".join(part for part in (hundredths(pair.corrected[layer]), _range(pair.corrected_ci95[layer])) if part),
        "Halves": ", ".join(hundredths(arm[layer]) for arm in pair.halves),
    }


def _range(ends: Interval | None) -> str:
    return "" if ends is None else f"[{hundredths(ends[0])}, {hundredths(ends[1])}]"


def _end(ends: Interval | None, which: int) -> float | None:
    return None if ends is None else ends[which]
