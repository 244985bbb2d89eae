"""Judges stored completions in batches, stores each batch of verdicts, and judges again if a judge has another version."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from demur.analysis.cell import Cell
from demur.analysis.manifest import ArmFacts, JudgeFacts, Manifest
from demur.core.errors import DemurError, InputError, sentence
from demur.core.thought_marks import begins_thought, thought_at_end
from demur.inputs.prompt_formats import SLOT
from demur.judges.asked.judge_file import judge_of_spec
from demur.judges.asked.model_families import family_of
from demur.judges.asked.model_judge import ModelJudge
from demur.judges.judge import UNPARSED, Failure, Judge, Judged, answers, get_judge
from demur.judges.judging import limited
from demur.runs.rows import StoredCompletion, StoredFailure, StoredVerdict, Unjudged
from demur.runs.store import Store

BATCH = 256
"""The number of completions that a judge gets at a time. If it is interrupted, the verdicts of finished batches are kept."""


def judge_of_run(store: Store, name: str) -> Judge:
    """A judge by the name by which a run calls it. If a file described it, its stored spec describes it now.

    Args:
        store: the run folder.
        name: the judge.

    Raises:
        InputError: for an unknown judge.
    """
    spec = store.judge_spec(name)
    return get_judge(name) if spec is None else judge_of_spec(spec)


def asking_judges(store: Store, names: Sequence[str]) -> list[str]:
    """Those of a run's judges that ask a model or a server, which may answer the next time. A judge of texts alone will not.

    Args:
        store: the run folder.
        names: the judges of the run. One that is not installed is left out.
    """
    found = []
    for name in names:
        with suppress(InputError):
            if judge_of_run(store, name).needs != "text":
                found.append(name)
    return found


def judge_stored(
    store: Store, names: Sequence[str], max_cost: float | None = None, *, cells: Collection[str] | None = None
) -> None:
    """Judge every stored completion that has no verdict yet.

    A completion on which a judge failed is tried again. A judge that is not installed is skipped if the run has stored its
    labels, so that the run can be reported anywhere. If a judge raises an error, for example because its server does not answer,
    it counts as failed on all completions that it has not judged yet, and the next judge begins.

    Args:
        store: the run folder.
        names: the judges of the run.
        max_cost: another limit of what the requests of a judge may cost, for judges that ask a server.
        cells: keys of the cells whose completions are judged; all cells unless given.

    Raises:
        InputError: if a judge is unknown and the run has not stored its labels; or if some completions have no verdict of a judge
            and may be too short for it, because they ended at the verdicts of another version.
    """
    manifest = store.manifest()
    known, whole = {facts.name: facts for facts in manifest.judges}, not manifest.study.get("until_verdict")
    thoughts = thoughts_of(store.cells(), manifest.arms)
    for name in names:
        try:
            judge = judge_of_run(store, name)
        except InputError:
            if name in known:
                continue
            raise
        judge = limited(judge, max_cost)
        if whole or name not in known or known[name].version == judge.version:
            _judge_with(judge, name, known.get(name), store, thoughts, cells)
        else:
            _keep_verdicts(judge, known[name], store)


def _keep_verdicts(judge: Judge, known: JudgeFacts, store: Store) -> None:
    """Keep the verdicts of another version. The completions end where it had decided, and may be too short for this one."""
    if store.unjudged(known.name):
        raise InputError(
            f"the completions in {str(store.folder)!r} end where version {known.version} of the judge {known.name!r} had "
            f"decided, so they may be too short for version {judge.version}, which is installed; start over with --fresh, or "
            "install the version of demur that made the run"
        )
    store.warn(
        [
            f"The verdicts of {known.name} are those of version {known.version} of its rules. The completions end where that "
            f"version had decided, so version {judge.version} cannot judge them again."
        ]
    )


def _judge_with(
    judge: Judge,
    name: str,
    known: JudgeFacts | None,
    store: Store,
    thoughts: Mapping[str, str],
    cells: Collection[str] | None,
) -> None:
    facts = JudgeFacts(
        name=name,
        version=judge.version,
        labels=judge.labels,
        refusal_labels=judge.refusal_labels,
        family=getattr(judge, "family", ""),
    )
    # Runs of the earliest versions do not store the version of a judge; it was 1.
    if (1 if known is None else known.version) != judge.version:
        store.forget_judge(name)
    if facts != known:
        store.remember_judge(facts)
    pending = [row for row in store.unjudged(name) if cells is None or row.cell in cells]
    size = judge.batch_size if isinstance(judge, ModelJudge) else BATCH
    for begin in range(0, len(pending), size):
        batch = pending[begin : begin + size]
        try:
            given = answers(judge, as_judged(batch, thoughts), store)
        except Exception as error:  # a judge may be anyone's, and its server or model may raise anything
            failure = Failure(name, str(error) if isinstance(error, DemurError) else f"{type(error).__name__}: {error}")
            store.add_answers(name, [(row.cell, row.position, failure) for row in pending[begin:]])
            return
        store.add_answers(name, [(row.cell, row.position, answer) for row, answer in zip(batch, given, strict=True)])


def as_judged(rows: Sequence[Unjudged | StoredCompletion], thoughts: Mapping[str, str]) -> list[Judged]:
    """Stored completions as judges get them.

    Args:
        rows: the completions.
        thoughts: what `thoughts_of` gives for their cells.
    """
    return [Judged(row.text, row.instruction, row.own_turn, thoughts.get(row.cell, "")) for row in rows]


def thoughts_of(cells: Sequence[Cell], arms: Sequence[ArmFacts]) -> dict[str, str]:
    """The mark of the thought with which the prompts of a cell end, by the cell's key, for cells whose prompts end with one."""
    templates = {(arm.checkpoint, arm.prompt): arm.template for arm in arms}
    ends = {cell.key: templates.get((cell.target, cell.prompt), "").rpartition(SLOT)[2] for cell in cells}
    return {key: opening for key, end in ends.items() if (opening := thought_at_end(end))}


def thought_warnings(store: Store, cells: Sequence[Cell], arms: Sequence[ArmFacts]) -> list[str]:
    """One sentence for each arm whose completions without an edit begin with thoughts, as the completions themselves show.

    Args:
        store: the run folder, for the completions.
        cells: all cells of the run.
        arms: all arms of the run.
    """
    found, thoughts = [], thoughts_of(cells, arms)
    for cell in cells:
        if cell.intervention != "none":
            continue
        rows = store.completions(cell.key)
        n = sum(begins_thought(row.text if row.own_turn is None else row.own_turn) or cell.key in thoughts for row in rows)
        if n:
            found.append(
                f"{n:,} of {len(rows):,} completions of {cell.target} with the prompt {cell.prompt} on {cell.instructions} "
                "instructions begin with a thought; prefix and substring judge the thought, and other judges what comes after it."
            )
    return found


def failure_warnings(failures: Sequence[StoredFailure], completions: int, judges: Sequence[str]) -> list[str]:
    """One sentence for each judge that failed: on how many completions, and the most frequent reason.

    Args:
        failures: all failures that the run has stored.
        completions: the number of completions that the run has stored.
        judges: the judges of the run. Failures of other judges are left out.
    """
    reasons: dict[str, list[str]] = {}
    for failure in failures:
        if failure.judge in judges:
            reasons.setdefault(failure.judge, []).append(failure.reason)
    usual = {judge: sentence(Counter(each).most_common(1)[0][0]) for judge, each in reasons.items()}
    return [
        f"The judge {judge} failed on {len(each):,} of {completions:,} completions: {usual[judge]}"
        for judge, each in reasons.items()
    ]


def unparsed_warnings(verdicts: Sequence[StoredVerdict], judges: Sequence[str]) -> list[str]:
    """One sentence for each judge that gave outputs without a label: how many.

    Args:
        verdicts: all verdicts that the run has stored.
        judges: the judges of the run.
    """
    given = Counter(row.judge for row in verdicts)
    found = Counter(row.judge for row in verdicts if row.label == UNPARSED)
    return [
        f"The judge {judge} gave {found[judge]:,} of {given[judge]:,} outputs in which no label can be read. They have the label "
        f"{UNPARSED} and are in no rate."
        for judge in judges
        if found[judge]
    ]


def served_warnings(store: Store, judges: Sequence[str]) -> list[str]:
    """One sentence for each judge that was answered by more than one model.

    Args:
        store: the run folder.
        judges: the judges of the run.
    """
    models: dict[str, list[str]] = {}
    for one in store.served_models():
        models.setdefault(one.judge, []).append(f"{one.model} ({one.outputs:,})")
    return [
        f"The judge {judge} was answered by {len(named)} models: {', '.join(named)}. Their verdicts need not agree."
        for judge, named in models.items()
        if judge in judges and len(named) > 1
    ]


def family_warnings(manifest: Manifest, judges: Sequence[str]) -> list[str]:
    """One sentence for each judge whose model is of the family of a checkpoint that it judges.

    Args:
        manifest: the description of the run.
        judges: the judges of the run.
    """
    found = []
    subjects = {name: family_of(facts.model) for name, facts in manifest.checkpoints.items()}
    for judge in manifest.judges:
        same = [name for name, family in subjects.items() if family and family == judge.family]
        if same and judge.name in judges:
            found.append(
                f"The judge {judge.name} is a {judge.family} model, and so {'is' if len(same) == 1 else 'are'} "
                f"{' and '.join(same)}. Judges of the same family as what they judge have been seen to be far wrong, so "
                "compare it with another judge."
            )
    return found
