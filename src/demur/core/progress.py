"""Progress of long steps: a callable that is told how much was just done.

Library functions take one and know nothing of terminals; the command line passes bars, everything else passes `silent`. What is
shown goes to standard error: live bars in a terminal, few plain lines elsewhere.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int], None]
"""Called with the number of units just finished."""

Phases = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Opens a phase: `with phases("generating", 1200) as progress: ...`; None where its size shows on the way."""


def silent(_done: int) -> None:
    """Shows nothing."""


@contextmanager
def no_phases(_name: str, _total: int | None) -> Iterator[Progress]:
    """Phases that show nothing."""
    yield silent
