"""The shared cells of two runs, and how the runs differ. `demur.runs.compare` makes these values, and the terminal shows them."""

from dataclasses import dataclass

from demur.analysis.cell import Cell
from demur.analysis.summary import Summary
from demur.core.errors import InputError, nearest
from demur.core.statistics import LEVEL, Paired


@dataclass(frozen=True)
class SharedCell:
    """One cell under one judge in both runs, on the instructions that both runs have.

    Attributes:
        cell: the cell, as the first run has it.
        judge: the judge.
        first: the rate of refusals in the first run, as a fraction.
        second: the rate in the second run.
        paired: the exact McNemar test of the second run against the first, on `paired.n` instructions.
        p_holm: its p value after Holm's correction over the shared cells of the judge, in all runs that were compared together.
    """

    cell: Cell
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
    """How far the completions of two runs agree.

    Attributes:
        n: completions of the same cell and instruction in both runs.
        first_token: how many of them have the same first token in both runs.
        tokens: how many have the same tokens up to the end of the shorter completion.
    """

    n: int
    first_token: int
    tokens: int


@dataclass(frozen=True)
class Difference:
    """A setting in which two runs differ, with both values in words."""

    setting: str
    first: str
    second: str


@dataclass(frozen=True)
class RunComparison:
    """Two runs side by side.

    Attributes:
        cells: the shared cells of every judge that both runs have.
        agreement: how far the completions agree.
        settings: the settings that differ.
        only_first: how many judged cells only the first run has.
        only_second: how many only the second run has.
        context: the first run's study, checkpoints, arms, directions and words for edits, without cells: what a table needs to
            name the shared cells.
        matched: names of the first run and of the second that were said to stand for the same thing.
    """

    cells: tuple[SharedCell, ...]
    agreement: Agreement
    settings: tuple[Difference, ...]
    only_first: int
    only_second: int
    context: Summary
    matched: tuple[tuple[str, str], ...] = ()

    def judges(self) -> list[str]:
        """The judges that both runs have, in the first run's order."""
        return list(dict.fromkeys(cell.judge for cell in self.cells))

    def of(self, judge: str | None = None) -> tuple[SharedCell, ...]:
        """The cells of one judge.

        Args:
            judge: the judge; None for the first one.

        Returns:
            Its shared cells, in the first run's order.

        Raises:
            InputError: for a judge whose verdicts the runs do not share.
        """
        names = self.judges()
        if judge is not None and judge not in names:
            raise InputError(f"the runs have no shared verdicts of a judge {judge!r}; {nearest(judge, names)}")
        return tuple(cell for cell in self.cells if cell.judge == (judge or names[0]))
