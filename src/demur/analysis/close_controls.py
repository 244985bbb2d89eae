"""Tells of controls that resemble the direction that they are compared with."""

from collections.abc import Sequence

from demur.analysis.manifest import DirectionFacts

CLOSE = 0.5
"""A control is told of if its cosine with the direction beside it is larger than this, or smaller than its negative."""


def close_controls(directions: Sequence[DirectionFacts]) -> list[str]:
    """A sentence for each kind of control of which some resemble the direction that they stand beside.

    Args:
        directions: the directions of a run. Controls of earlier versions have no cosine and are left out.

    Returns:
        The sentences, in the order of the directions.
    """
    kinds: dict[str, list[float]] = {}
    for each in directions:
        if each.control and each.cosine is not None:
            kinds.setdefault(each.control_kind, []).append(each.cosine)
    told = []
    for kind, cosines in kinds.items():
        close = [cosine for cosine in cosines if abs(cosine) > CLOSE]
        if close:
            verb = "has" if len(close) == 1 else "have"
            told.append(
                f"{len(close)} of {len(cosines)} {kind} controls {verb} a cosine beyond {CLOSE} with the direction they stand "
                f"beside (the largest is {max(close, key=abs):.2f}), so they may do what it does because they resemble it; "
                f"controls {kind}-orthogonal have no part along it."
            )
    return told
