"""What a run has found while it still works: first rates without an edit, and the results of each finished checkpoint."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from demur.analysis.summary import Summary
from demur.core.registry import registry
from demur.judges.judge import Verdict, answers
from demur.runs.judging_stored import as_judged, judge_of_run, judge_stored, thoughts_of
from demur.runs.records import CompletionsMade, JobRecord
from demur.runs.rows import StoredCompletion
from demur.runs.run_summary import summarise
from demur.runs.store import Store
from demur.study.plan import PlannedCell
from demur.study.preflight import Ready

FIRST_SECONDS = 15.0
"""How long a checkpoint writes completions before its first rates are shown."""
LEAST = 10
"""The fewest completions of which a first rate is shown."""


@dataclass(frozen=True)
class RateSoFar:
    """The refusals among the completions of one unedited cell that are there so far.

    Attributes:
        target: the arm, `checkpoint/prompt`.
        instructions: the instruction set.
        refusals: how many completions are refusals.
        n: how many completions were judged.
        planned: how many completions the cell will have.
    """

    target: str
    instructions: str
    refusals: int
    n: int
    planned: int


@dataclass(frozen=True)
class FirstRates:
    """First rates of one checkpoint without an edit, from a part of its completions.

    Attributes:
        judge: the judge, the study's first.
        rates: one for each unedited cell.
    """

    judge: str
    rates: tuple[RateSoFar, ...]


Partial = FirstRates | Summary
"""First rates; or a summary that holds the cells of the finished checkpoints and no tests, because tests need the whole run."""


class PartialResults:
    """Watches the records of a run and shows what they say so far, if the first judge is one that ships and needs only texts.

    Call it with each record, after the record was stored.
    """

    def __init__(
        self,
        ready: Ready,
        store: Store,
        judges: Sequence[str],
        show: Callable[[Partial], object],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin to watch.

        Args:
            ready: the checked plan.
            store: the run folder.
            judges: the judges of the run, of which the first one counts.
            show: is called with each result.
            clock: gives the time in seconds.
        """
        self._store, self._show, self._clock = store, show, clock
        self._judge = judge_of_run(store, judges[0])
        # Judges of others may take long or fail, so they are asked once, at the end.
        self._asking = self._judge.needs == "text" and judges[0] in registry("judge").kind.shipped
        self._checkpoints = {cell.key: cell.target.checkpoint for cell in ready.plan.cells}
        self._cells = {name: ready.plan.of(name) for name in ready.plan.study.checkpoints}
        self._planned = {cell.key: len(ready.material[cell.instructions].test) for cell in ready.plan.cells}
        self._done = Counter(store.progress())
        self._verdicts: dict[str, list[bool]] = {}
        self._thoughts: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._first_shown: set[str] = set()

    def __call__(self, record: JobRecord) -> None:
        """Take one stored record into account."""
        if not self._asking or not isinstance(record, CompletionsMade):
            return
        self._done.update(row.cell for row in record.rows)
        checkpoint = self._checkpoints[record.rows[0].cell]
        unedited = [cell for cell in self._cells[checkpoint] if cell.intervention is None and not cell.target.spelling]
        self._count(checkpoint, unedited, record.rows)
        if all(self._done[cell.key] >= self._planned[cell.key] for cell in self._cells[checkpoint]):
            self._show_finished()
        elif checkpoint not in self._first_shown and self._clock() - self._begun[checkpoint] >= FIRST_SECONDS:
            self._show_first(checkpoint, unedited)

    def _count(self, checkpoint: str, unedited: Sequence[PlannedCell], rows: Sequence[StoredCompletion]) -> None:
        """Judge the new completions of the unedited cells; at the checkpoint's first record, all that are stored."""
        if checkpoint not in self._begun:
            self._begun[checkpoint] = self._clock()
            rows = [row for cell in unedited for row in self._store.completions(cell.key)]
            self._verdicts |= {cell.key: [] for cell in unedited}
            # The arms of a checkpoint are known once it was loaded. Reading them again for each batch would take long.
            self._thoughts = thoughts_of(self._store.cells(), self._store.manifest().arms)
        mine = [row for row in rows if row.cell in self._verdicts]
        for row, answer in zip(mine, answers(self._judge, as_judged(mine, self._thoughts)), strict=True):
            if isinstance(answer, Verdict):
                self._verdicts[row.cell].append(answer.refusal)

    def _show_first(self, checkpoint: str, unedited: Sequence[PlannedCell]) -> None:
        counted = [(cell, self._verdicts[cell.key]) for cell in unedited]
        if all(len(found) >= min(LEAST, self._planned[cell.key]) for cell, found in counted):
            self._first_shown.add(checkpoint)
            rates = (
                RateSoFar(cell.target.name, cell.instructions, sum(found), len(found), self._planned[cell.key])
                for cell, found in counted
            )
            self._show(FirstRates(self._judge.name, tuple(rates)))

    def _show_finished(self) -> None:
        finished = {key for key, planned in self._planned.items() if self._done[key] >= planned}
        if len(finished) == len(self._planned):
            return  # the results of the whole run follow
        judge_stored(self._store, [self._judge.name])
        with self._store.snapshot():
            found = summarise(self._store, [self._judge.name], self._store.results())
        cells = tuple(cell for cell in found.cells if cell.key in finished)
        self._show(found.model_copy(update={"cells": cells, "comparisons": (), "claims": (), "answers": ()}))
