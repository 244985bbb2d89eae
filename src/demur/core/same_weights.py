"""Whether two fingerprints are of the same weights. They are made in `demur.models.fingerprint`, which needs torch."""

JOINED = "-"
"""Joins the two parts of a fingerprint."""


def same_weights(one: object, other: object) -> bool:
    """Whether two fingerprints are of the same weights. One that an earlier version stored has only the first part.

    Example:
        >>> same_weights("0123-ab", "0123-ab"), same_weights("0123-ab", "0123-cd"), same_weights("0123", "0123-cd")
        (True, False, True)
    """
    if not isinstance(one, str) or not isinstance(other, str):
        return one == other
    (first, _, content), (second, _, other_content) = one.partition(JOINED), other.partition(JOINED)
    return first == second and (not content or not other_content or content == other_content)
