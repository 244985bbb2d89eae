"""Progress of long steps: a function that is called with the number of units just finished.

Library functions call it and print nothing themselves. The command line passes progress bars; the default is `silent`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int], None]
"""Called with the number of units just finished."""

Phases = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Begins a phase with a name and a number of units: `with phases("generating", 1200) as progress: ...`.

The number is None if it is not known yet."""


def silent(_done: int) -> None:
    """Progress that shows nothing."""


@contextmanager
def no_phases(_name: str, _total: int | None) -> Iterator[Progress]:
    """Phases that show nothing."""
    yield silent
