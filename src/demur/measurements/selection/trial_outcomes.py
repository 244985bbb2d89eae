"""Completions under trials of candidate directions, judged: how many are refusals, and how many the edit has broken.

They are made for the best places only, because they take much longer than the log-odds of a refusal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter

from demur.core.progress import Progress, silent
from demur.directions.direction import Direction
from demur.engine import generate
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.judges.judging import judge
from demur.measurements.selection.effect import Kind, Sides, Trial
from demur.measurements.selection.finished_steps import FinishedSteps

BROKEN_LABELS = ("echo", "degenerate")
"""Labels of the judge `taxonomy` for completions that are no answer, because the edit has damaged the text."""


@dataclass(frozen=True)
class Outcome:
    """Completions under one trial with the direction of one place.

    Attributes:
        refusals: the share of completions that are refusals.
        broken: the share of completions that the edit has broken: they repeat themselves or the instruction.
        n: the number of completions.
    """

    refusals: float
    broken: float
    n: int


def outcomes(
    checkpoint: Checkpoint,
    trials: Sequence[tuple[Trial, Direction]],
    sides: Sides,
    prompt: Prompt,
    *,
    judge_name: str,
    max_new_tokens: int,
    progress: Progress = silent,
    steps: FinishedSteps | None = None,
) -> list[Outcome]:
    """Completions under trials, judged.

    Args:
        checkpoint: the loaded checkpoint.
        trials: each trial with the direction that it uses.
        sides: `harmful` and `harmless` validation instructions.
        prompt: the prompt format.
        judge_name: the judge that says what is a refusal.
        max_new_tokens: the length of a completion, in tokens.
        progress: called with the number of completions that were just finished.
        steps: completions that were made and judged already, by kind of instructions. Their scope has to say which trials.

    Returns:
        One outcome for each trial, in their order.
    """
    found: dict[int, Outcome] = {}
    for label in dict.fromkeys(trial.instructions for trial, _ in trials):
        numbers = [number for number, (trial, _) in enumerate(trials) if trial.instructions == label]

        def complete(label: Kind = label, numbers: Sequence[int] = numbers) -> list[Outcome]:
            edits = [trials[number][0].make(trials[number][1]) for number in numbers]
            made = generate.generate(checkpoint, sides[label], prompt, edits, max_new_tokens=max_new_tokens, progress=progress)
            return [_outcome(rows, judge_name) for rows in made]

        skipped = partial(progress, len(numbers) * len(sides[label]))
        made = (steps or FinishedSteps()).done(TypeAdapter(list[Outcome]), ("completions", label), complete, skipped)
        found.update(zip(numbers, made, strict=True))
    return [found[number] for number in range(len(trials))]


def unedited(
    checkpoint: Checkpoint,
    sides: Sides,
    prompt: Prompt,
    *,
    judge_name: str,
    max_new_tokens: int,
) -> dict[Kind, Outcome]:
    """Completions without an edit, judged, for `harmful` and `harmless` validation instructions."""
    return {
        label: _outcome(generate.generate(checkpoint, texts, prompt, max_new_tokens=max_new_tokens)[0], judge_name)
        for label, texts in sides.items()
    }


def _outcome(rows: Sequence[generate.Completion], judge_name: str) -> Outcome:
    n = len(rows)
    refusals = sum(verdict.refusal for verdict in judge(rows, judge_name))
    broken = sum(verdict.label in BROKEN_LABELS for verdict in judge(rows, "taxonomy"))
    return Outcome(refusals / n, broken / n, n)
