"""The three ways demur says no. Each carries one sentence: what was found, what was expected, what to do.

The command line turns `InputError` into exit status 2 and `WorkError` into exit status 1; nothing else is caught there,
so a traceback always means a defect of demur itself.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class DemurError(Exception):
    """Anything demur refuses to do."""


class InputError(DemurError, ValueError):
    """The request cannot be carried out as written: a missing file, an unknown name, a value out of range."""


class WorkError(DemurError, RuntimeError):
    """The request was fine but the work failed: an edit that did not act, weights that hold NaN, no memory."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the closest known word, or lists all of them: for the end of an error's sentence."""
    choices = sorted(known)
    close = get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(choices)}"
