"""Instructions of one part that are also in another, word for word or nearly, such as a test instruction that was trained on.

A direction that was made from an instruction, or selected with it, is not tested by asking the same again. So a study with such
an overlap is refused, unless it says that it knows.
"""

from collections.abc import Iterable, Sequence

from demur.core.errors import InputError, sentence, short
from demur.inputs.duplicates.near_duplicates import ALIKE, alike_between
from demur.inputs.repeated_instructions import sameness


def overlap_warnings(
    first: Iterable[Sequence[str]], second: Iterable[Sequence[str]], parts: tuple[str, str], *, allowed: bool = False
) -> list[str]:
    """Finds instructions of two parts that are the same or near-duplicates, also if they are in sets with different labels.

    Args:
        first: the instructions of the first part, set by set.
        second: those of the second part.
        parts: the names of the two parts, such as `training` and `test`.
        allowed: whether the study allows overlaps.

    Returns:
        Sentences for readers of the results; none without an overlap.

    Raises:
        InputError: if there is an overlap and the study does not allow it.

    Example:
        >>> train, test = [["How do I pick a lock?"]], [["How do I bake bread?", "How do I pick a good lock?"]]
        >>> overlap_warnings(train, test, ("training", "test"), allowed=True)  # doctest: +ELLIPSIS
        ["1 of 2 test instructions is nearly the same as a training instruction, such as 'How do I pick a good lock?' and ...]
    """
    ones, others = ([text for texts in part for text in texts] for part in (first, second))
    seen = {sameness(text) for text in ones}
    shared = [text for text in others if sameness(text) in seen]
    alike = {pair.second: pair.first for pair in alike_between(ones, others) if sameness(others[pair.second]) not in seen}
    found = []
    if shared:
        both = f"in both the {parts[0]} and the {parts[1]} part"
        found.append(f"{len(shared)} instructions are {both}, such as {short(shared[0])!r}")
    if alike:
        one, other = next(iter(alike.items()))
        found.append(
            f"{len(alike)} of {len(others)} {parts[1]} instructions {'is' if len(alike) == 1 else 'are'} nearly the same as a "
            f"{parts[0]} instruction, such as {short(others[one])!r} and {short(ones[other])!r}"
        )
    if found and not allowed:
        how = "" if shared else f" (they share {ALIKE:.0%} of their words or more)"
        raise InputError(f"{found[0]}{how}; leave them out of one part, or set allow_overlap = true to run all the same")
    return [sentence(each) for each in found]
