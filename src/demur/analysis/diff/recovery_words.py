"""What a run of a pair recovers, as numbers and words for the argument."""

from demur.analysis.diff.pair_results import PairCurve, PairRun

SPECIFIC = 0.25
"""A recovery counts as that of a null if the null recovers more than this share of it."""

BROKEN = 0.25
"""If the share of broken text is above that of the target by more than this, a change of refusals shows nothing."""


def is_broken(run: PairRun) -> bool:
    """Whether the text is broken in this run."""
    return run.broken_more is not None and run.broken_more > BROKEN


def broken_text(run: PairRun) -> str:
    """How much of the text is broken, for the evidence."""
    return f"the text is broken: {share(run.broken_more or 0.0)} more of the completions only repeat themselves or mean nothing"


def recovered(run: PairRun) -> float:
    """What a run recovers; 0 where it is not defined."""
    return run.recovery or 0.0


def most_at(null: PairCurve, run: PairRun) -> float:
    """The most that a null recovers at the place of a run; 0 if it has no run there."""
    return max((recovered(one) for one in null.runs if one.place == run.place), default=0.0)


def carries(run: PairRun, null: float) -> bool:
    """Whether a run is shown to recover something that is not that of its null.

    Args:
        run: the run.
        null: what its null recovers at the same place.
    """
    return run.recovery_ci95 is not None and run.recovery_ci95[0] > 0 and null <= SPECIFIC * recovered(run)


def near_none(run: PairRun) -> bool:
    """Whether a run is shown to recover less than half."""
    return run.recovery_ci95 is not None and run.recovery_ci95[1] < 0.5


def head_words(kind: str) -> str:
    """A head in words, from the kind of its runs: head 3 of layer 12 for `head 12.3`."""
    layer, head = kind.removeprefix("head ").split(".")
    return f"head {head} of layer {layer}"


def place_of(run: PairRun) -> str:
    """Its place as text; empty if it has none."""
    return "" if run.place is None else f"{run.place:g}"


def recovery_of(run: PairRun) -> str:
    """What it recovers with its interval, as text."""
    if run.recovery is None or run.recovery_ci95 is None:
        return "not defined"
    return f"{share(run.recovery)} ({share(run.recovery_ci95[0])} to {share(run.recovery_ci95[1])})"


def share(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:z.0f} %"


def points(value: float) -> str:
    """A change of a share in points."""
    return f"{100 * value:+z.0f} points"
