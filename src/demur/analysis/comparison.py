"""What two runs have in common and in what they differ, as values: `demur.runs.compare` makes them, the terminal shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demur.core.errors import InputError, nearest
from demur.core.statistics import LEVEL, Paired


@dataclass(frozen=True)
class SharedCell:
    """One cell and judge in both runs, over the `paired.n` instructions that both have. Rates are fractions.

    `paired` is the exact McNemar test from the first run to the second; `p_holm` is corrected over the shared cells of a judge.
    """

    facts: Mapping[str, Any]
    judge: str
    first: float
    second: float
    paired: Paired
    p_holm: float

    @property
    def differs(self) -> bool:
        """Whether the two rates differ after correction."""
        return self.p_holm < LEVEL


@dataclass(frozen=True)
class Agreement:
    """Of `n` completions of the same cell and instruction in both runs: how many have the same first token, and how many the same
    tokens as far as both go.
    """

    n: int
    first_token: int
    tokens: int


@dataclass(frozen=True)
class Difference:
    """A setting and its values, in words."""

    setting: str
    first: str
    second: str


@dataclass(frozen=True)
class Comparison:
    """Shared cells of every judge that both runs have, how far their completions agree, settings that differ, and how many cells
    only one of them has.

    `labels` are the facts of the first run that name cells, as a summary holds them.
    """

    cells: tuple[SharedCell, ...]
    agreement: Agreement
    settings: tuple[Difference, ...]
    only_first: int
    only_second: int
    labels: Mapping[str, Any]

    def judges(self) -> list[str]:
        """The judges that both runs have, in the first run's order."""
        return list(dict.fromkeys(cell.judge for cell in self.cells))

    def of(self, judge: str | None = None) -> tuple[SharedCell, ...]:
        """The cells of one judge, the first unless named. Raises `InputError` for one that they do not share."""
        names = self.judges()
        if judge is not None and judge not in names:
            raise InputError(f"the runs share no verdicts of a judge {judge!r}; {nearest(judge, names)}")
        return tuple(cell for cell in self.cells if cell.judge == (judge or names[0]))
