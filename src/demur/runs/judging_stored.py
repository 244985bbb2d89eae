"""Judges stored completions in batches, stores each batch of verdicts, and judges again if a judge has another version."""

from collections import Counter
from collections.abc import Sequence

from demur.analysis.manifest import JudgeFacts
from demur.core.errors import InputError
from demur.judges.judge import Judge, Judged, answers, get_judge
from demur.runs.store import Store

BATCH = 256
"""Completions that a judge is given at a time. A slow judge that is interrupted keeps the verdicts of finished batches."""


def judge_stored(store: Store, names: Sequence[str]) -> None:
    """Judge every stored completion that has no verdict yet.

    A completion on which a judge failed is judged again. A judge that is not installed is skipped if the run already has verdicts
    of it, so that the run can be reported anywhere.

    Args:
        store: the run folder.
        names: the judges of the run.

    Raises:
        InputError: for an unknown judge of which the run has no verdicts.
    """
    known = {facts.name: facts for facts in store.manifest().judges}
    for name in names:
        try:
            judge = get_judge(name)
        except InputError:
            if name in known:
                continue
            raise
        _judge_with(judge, name, known.get(name), store)


def _judge_with(judge: Judge, name: str, known: JudgeFacts | None, store: Store) -> None:
    facts = JudgeFacts(name=name, version=judge.version, labels=judge.labels, refusal_labels=judge.refusal_labels)
    # Runs of the earliest versions do not say the version of a judge; it was 1.
    if (1 if known is None else known.version) != judge.version:
        store.forget_judge(name)
    if facts != known:
        store.remember_judge(facts)
    pending = store.unjudged(name)
    for begin in range(0, len(pending), BATCH):
        batch = pending[begin : begin + BATCH]
        given = answers(judge, [Judged(row.text, row.instruction) for row in batch])
        store.add_answers(name, [(row.cell, row.position, answer) for row, answer in zip(batch, given, strict=True)])


def failure_warnings(store: Store) -> list[str]:
    """The failures of a run, which are missing from its numbers: one sentence for each judge and each measurement.

    Args:
        store: the run folder.
    """
    completions = sum(store.progress().values())
    reasons: dict[str, list[str]] = {}
    for failure in store.failures():
        reasons.setdefault(failure.judge, []).append(failure.reason)
    found = [
        f"The judge {judge} failed on {len(each):,} of {completions:,} completions: {_stated(Counter(each).most_common(1)[0][0])}"
        for judge, each in reasons.items()
    ]
    found += [
        f"The measurement {one.name} could not be made of {one.subject}: {_stated(one.reason)}" for one in store.unmeasured()
    ]
    return found


def _stated(reason: str) -> str:
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."
