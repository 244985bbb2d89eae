"""Judges stored completions in batches, stores each batch of verdicts, and judges again if a judge has another version."""

from collections import Counter
from collections.abc import Sequence

from demur.analysis.manifest import JudgeFacts
from demur.core.errors import DemurError, InputError, sentence
from demur.judges.judge import Failure, Judge, Judged, answers, get_judge
from demur.runs.store import Store

BATCH = 256
"""Completions that a judge is given at a time. A slow judge that is interrupted keeps the verdicts of finished batches."""


def judge_stored(store: Store, names: Sequence[str]) -> None:
    """Judge every stored completion that has no verdict yet.

    A completion on which a judge failed is tried again. A judge that is not installed is passed over where the run holds verdicts
    of it, so that the run can be reported anywhere. A judge that raises an error, as where its server does not answer, has failed
    on everything that it was still to judge, and the next judge is asked.

    Args:
        store: the run folder.
        names: the judges of the run.

    Raises:
        InputError: for a judge that is unknown and of which the run holds nothing; for completions that ended at the verdicts of
            another version of their judge.
    """
    manifest = store.manifest()
    known, whole = {facts.name: facts for facts in manifest.judges}, not manifest.study.get("until_verdict")
    for name in names:
        try:
            judge = get_judge(name)
        except InputError:
            if name in known:
                continue
            raise
        if whole or name not in known or known[name].version == judge.version:
            _judge_with(judge, name, known.get(name), store)
        else:
            _keep_verdicts(judge, known[name], store)


def _keep_verdicts(judge: Judge, known: JudgeFacts, store: Store) -> None:
    """Completions that ended at the verdicts of one version of a judge may be too short for another: the verdicts stay."""
    if store.unjudged(known.name):
        raise InputError(
            f"the completions in {str(store.folder)!r} end where version {known.version} of the judge {known.name!r} had "
            f"decided, and version {judge.version}, which is installed, may need more of them; start over with "
            "--fresh, or install the demur that made the run"
        )
    store.warn(
        [
            f"The verdicts of {known.name} are those of version {known.version} of its rules: the completions end at them, so "
            f"version {judge.version} cannot judge them again."
        ]
    )


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
        try:
            given = answers(judge, [Judged(row.text, row.instruction) for row in batch])
        except Exception as error:  # a judge may be anyone's, and its server or model may raise anything
            failure = Failure(name, str(error) if isinstance(error, DemurError) else f"{type(error).__name__}: {error}")
            store.add_answers(name, [(row.cell, row.position, failure) for row in pending[begin:]])
            return
        store.add_answers(name, [(row.cell, row.position, answer) for row, answer in zip(batch, given, strict=True)])


def failure_warnings(store: Store, judges: Sequence[str]) -> list[str]:
    """On how many completions each judge failed, which are therefore missing from its numbers: one sentence a judge.

    Args:
        store: the run folder.
        judges: the judges of the run; failures of others are no part of it any more.
    """
    completions = sum(store.progress().values())
    reasons: dict[str, list[str]] = {}
    for failure in store.failures():
        if failure.judge in judges:
            reasons.setdefault(failure.judge, []).append(failure.reason)
    usual = {judge: sentence(Counter(each).most_common(1)[0][0]) for judge, each in reasons.items()}
    return [
        f"The judge {judge} failed on {len(each):,} of {completions:,} completions: {usual[judge]}"
        for judge, each in reasons.items()
    ]
