"""Scores candidate directions by what edits with them do to the log-odds of a refusal.

Every candidate and instruction runs as a row of the same batches. All instructions are validation instructions: the candidates
were not made from them, and no result of a run is measured on them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import TypeAdapter
from torch import Tensor

from demur.core.errors import InputError, WorkError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention
from demur.measurements.divergence import divergence, refusal_log_odds
from demur.measurements.selection.candidate_scores import sweep_rows
from demur.measurements.selection.candidates import Candidates, Place
from demur.measurements.selection.finished_steps import FinishedSteps

Kind = Literal["harmful", "harmless"]

Sides = Mapping[Kind, Sequence[str]]
"""Validation instructions of both kinds."""

_Rows = list[list[list[float]]]
"""The shares and the damages of one round; each has one row for each place and one number for each instruction."""

FIRST_ROUND = 8
"""Instructions of the first round. Each further round has twice as many instructions and half as many places."""


@dataclass(frozen=True)
class Trial:
    """An edit whose effect decides.

    Attributes:
        make: the edit with a direction.
        instructions: the kind of instructions on which refusals should change: `harmful` or `harmless`.
        sign: the expected change of refusals: 1 for more, -1 for fewer.
        keeps_harmless: whether harmless instructions should stay as they are, so that the change of their next tokens is damage.
    """

    make: Callable[[Direction], Intervention]
    instructions: Kind
    sign: int
    keeps_harmless: bool


@dataclass(frozen=True, eq=False)
class Baseline:
    """A checkpoint without an edit.

    Attributes:
        odds: the log-odds that a refusal begins, in nats, for each validation instruction of each kind.
    """

    odds: Mapping[Kind, Float[Tensor, " instruction"]]

    @property
    def harmful(self) -> float:
        """The mean over harmful instructions."""
        return float(self.odds["harmful"].mean())

    @property
    def harmless(self) -> float:
        """The mean over harmless instructions."""
        return float(self.odds["harmless"].mean())

    @property
    def gap(self) -> float:
        """How much more likely a refusal is on harmful instructions."""
        return self.harmful - self.harmless


@dataclass(frozen=True)
class PlaceEffect:
    """What the trials do with the direction of one place, on average over the trials.

    Attributes:
        share: the change of the log-odds in the expected direction, as a share of the baseline's gap. At 1, edited harmful
            instructions are refused as rarely as harmless ones, or the reverse. Every trial counts as 1 at most.
        n: the number of instructions of each kind that it was measured on.
        kl: the largest change of next tokens after harmless instructions, in nats, by an edit that should keep them.
    """

    share: float
    n: int
    kl: float = 0.0


def baseline(checkpoint: Checkpoint, sides: Sides, prompt: Prompt, token_ids: Sequence[int]) -> Baseline:
    """The log-odds that a refusal begins without an edit.

    Args:
        checkpoint: the loaded checkpoint.
        sides: `harmful` and `harmless` validation instructions.
        prompt: the prompt format.
        token_ids: first tokens of refusals.
    """
    return Baseline(
        {label: sweep_rows(checkpoint, texts, prompt, [None], _odds(token_ids), (), silent)[0] for label, texts in sides.items()}
    )


def place_effects(
    checkpoint: Checkpoint,
    candidates: Candidates,
    trials: Sequence[Trial],
    sides: Sides,
    prompt: Prompt,
    token_ids: Sequence[int],
    *,
    kl_most: float = 0.5,
    finalists: int = 4,
    progress: Progress = silent,
    steps: FinishedSteps | None = None,
) -> dict[Place, PlaceEffect]:
    """Measure the effect of every place, in rounds. Each round has more instructions, and the better half of the places.

    Args:
        checkpoint: the loaded checkpoint.
        candidates: the candidate directions, made from training instructions.
        trials: the edits whose effects decide, at least one.
        sides: validation instructions.
        prompt: the prompt format.
        token_ids: first tokens of refusals.
        kl_most: places with a larger `kl` are not measured further.
        finalists: the least number of places in the last round.
        progress: called with the number of rows that were just measured; `rows_of_rounds` gives their total.
        steps: rounds that are finished already; they are not measured again.

    Returns:
        The effect of each place, as its last round measured it.

    Raises:
        InputError: if there are no candidates, or too few instructions.
        WorkError: if harmful instructions are refused no more often than harmless ones.
    """
    steps = steps or FinishedSteps()
    before = _usable_baseline(steps, checkpoint.name, lambda: baseline(checkpoint, sides, prompt, token_ids))
    measured: dict[Place, list[tuple[float, float]]] = {place: [] for place in candidates.directions}
    done = 0
    for kept, end in _rounds(len(measured), min(map(len, sides.values())), finalists):
        effects = {place: _mean(rows) for place, rows in measured.items()}
        in_order = sorted(measured, key=lambda place: -effects[place].share)
        remaining = [place for place in in_order if len(measured[place]) == done and not effects[place].kl > kl_most][:kept]
        part: Sides = {label: texts[done:end] for label, texts in sides.items()}
        known = Baseline({label: odds[done:end] for label, odds in before.odds.items()})

        def measure(places: Sequence[Place] = remaining, part: Sides = part, known: Baseline = known) -> _Rows:
            shares = _shares(checkpoint, candidates, places, trials, part, prompt, token_ids, known, before.gap, progress)
            return [shares, _damages(checkpoint, candidates, places, trials, part["harmless"], prompt, progress)]

        skipped = partial(progress, len(remaining) * (end - done) * _rows_each(trials))
        rows = steps.done(TypeAdapter(_Rows), ("round", done, end, [list(place) for place in remaining]), measure, skipped)
        for place, share, change in zip(remaining, *rows, strict=True):
            measured[place] += zip(share, change, strict=True)
        progress((kept - len(remaining)) * (end - done) * _rows_each(trials))
        done = end
    return {place: _mean(rows) for place, rows in measured.items()}


def _usable_baseline(steps: FinishedSteps, name: str, measure: Callable[[], Baseline]) -> Baseline:
    """The baseline as it was stored or is measured now. Raises `WorkError` if it leaves no room for an effect."""

    def odds() -> dict[Kind, list[float]]:
        return {label: values.tolist() for label, values in measure().odds.items()}

    known = steps.done(TypeAdapter(dict[Kind, list[float]]), ("baseline",), odds, lambda: None)
    before = Baseline({label: torch.tensor(values, dtype=torch.float64) for label, values in known.items()})
    if not before.gap > 0:
        raise WorkError(
            f"{name!r} begins a refusal no more often after harmful instructions than after harmless ones (log-odds "
            f"{before.harmful:.2f} and {before.harmless:.2f}), so no edit can show an effect"
        )
    return before


def rows_of_rounds(places: int, instructions: int, trials: Sequence[Trial], finalists: int = 4) -> int:
    """How many rows `place_effects` measures.

    Args:
        places: the number of candidates.
        instructions: validation instructions of each kind.
        trials: the edits.
        finalists: as for `place_effects`.
    """
    rows, done = 0, 0
    for kept, end in _rounds(places, instructions, finalists):
        rows, done = rows + kept * (end - done) * _rows_each(trials), end
    return rows


def _rows_each(trials: Sequence[Trial]) -> int:
    """Rows of one place and instruction."""
    return len(trials) + sum(trial.keeps_harmless for trial in trials)


def _mean(rows: Sequence[tuple[float, float]]) -> PlaceEffect:
    """The mean of (share, kl) over instructions."""
    n = len(rows)
    return PlaceEffect(sum(share for share, _ in rows) / n, n, sum(kl for _, kl in rows) / n) if n else PlaceEffect(0.0, 0)


def _rounds(places: int, instructions: int, finalists: int) -> list[tuple[int, int]]:
    """(number of places, number of instructions so far) of each round."""
    if not places or not instructions:
        raise InputError(f"nothing to score: {places} candidate places, {instructions} validation instructions of each kind")
    rounds = [(places, min(FIRST_ROUND, instructions))]
    while rounds[-1][1] < instructions:
        kept, end = rounds[-1]
        rounds.append((min(kept, max(finalists, math.ceil(kept / 2))), min(2 * end, instructions)))
    return rounds


def _odds(token_ids: Sequence[int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda _, logits, __: refusal_log_odds(logits, token_ids)


def _shares(
    checkpoint: Checkpoint,
    candidates: Candidates,
    places: Sequence[Place],
    trials: Sequence[Trial],
    part: Sides,
    prompt: Prompt,
    token_ids: Sequence[int],
    known: Baseline,
    gap: float,
    progress: Progress,
) -> list[list[float]]:
    """For each place and instruction, the change as a share of the gap, from -1 to 1, on average over the trials."""
    total = torch.zeros(len(places), len(part["harmful"]), dtype=torch.float64)
    for trial in trials if places else ():
        edits, texts = [trial.make(candidates.directions[place]) for place in places], part[trial.instructions]
        edited = sweep_rows(checkpoint, texts, prompt, edits, _odds(token_ids), (), progress)
        shares = (trial.sign * (edited - known.odds[trial.instructions]) / gap).clamp(-1, 1)
        # An edit that gives numbers that are not finite has no effect that could be chosen.
        total += shares.nan_to_num(nan=-1.0) / len(trials)
    return total.tolist()


def _damages(
    checkpoint: Checkpoint,
    candidates: Candidates,
    places: Sequence[Place],
    trials: Sequence[Trial],
    harmless: Sequence[str],
    prompt: Prompt,
    progress: Progress,
) -> list[list[float]]:
    """For each place and instruction, the largest change of next tokens by a trial that should keep harmless ones, in nats."""
    worst = torch.zeros(len(places), len(harmless), dtype=torch.float64)
    keeping = [trial for trial in trials if trial.keeps_harmless]
    if not places or not keeping:
        return worst.tolist()
    before = sweep_rows(checkpoint, harmless, prompt, [None], lambda _, logits, __: logits, (), silent)[0]

    def change(which: Tensor, logits: Tensor, _: Tensor) -> Tensor:
        return divergence(before[which], logits)

    for trial in keeping:
        edits = [trial.make(candidates.directions[place]) for place in places]
        found = sweep_rows(checkpoint, harmless, prompt, edits, change, (), progress)
        worst = torch.maximum(worst, found.nan_to_num(nan=math.inf))
    return worst.tolist()
