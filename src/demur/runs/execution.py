"""What each kind of job does: it reads inputs by key, uses checkpoints that are loaded, and gives records. It writes nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from demur.analysis.manifest import DirectionFacts
from demur.core.errors import InputError, NotFinite, WorkError
from demur.core.progress import Progress, silent
from demur.directions.controls.control import control_kind
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side
from demur.engine.capture import Means, capture, mean_activations
from demur.engine.checkpoints import Checkpoint
from demur.engine.decode import Decoding, decode
from demur.engine.generate import completion
from demur.engine.prefill import Row
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, ablate, add
from demur.judges.early_stopping import enough_for
from demur.measurements.extraction import directions_between, provenance
from demur.measurements.measurement import ArmSubject, CellSubject, PairSubject, Subject, measurement
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import (
    AskedMeasurement,
    ControlJob,
    ExtractJob,
    GenerateJob,
    Job,
    MeasureJob,
    own_directions,
    residual_source,
)
from demur.runs.records import CompletionsMade, DirectionMade, JobRecord
from demur.runs.rows import StoredCompletion, StoredMeasurement, UnmeasuredSubject
from demur.study.plan import Arm, PlannedCell
from demur.study.spec import LABELS

Loaded = Mapping[str, Checkpoint]
"""Checkpoints in memory, by their names in the study."""


def run_job(job: Job, inputs: JobInputs, loaded: Loaded) -> Iterator[JobRecord]:
    """Run one job.

    Args:
        job: the job.
        inputs: what it reads by key.
        loaded: the checkpoints that it names in `weights`.

    Yields:
        Its records. The same job gives equal records every time.

    Raises:
        WorkError: where the work fails, or a stored input is missing.
        InputError: where the job cannot be done as it was asked for.
    """
    if isinstance(job, ExtractJob):
        yield from _extract(job, inputs, loaded[job.checkpoint])
    elif isinstance(job, ControlJob):
        yield _control(job, inputs, loaded)
    elif isinstance(job, GenerateJob):
        yield from _generate(job, inputs, loaded[job.checkpoint])
    else:
        yield _measure(job, inputs, loaded)


def _extract(job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[JobRecord]:
    """The means of every layer: directions are made of them, and held-out instructions are measured along them."""
    arm, settings = inputs.arm(job.arm), inputs.study.direction
    prompt = inputs.prompt(arm, checkpoint)
    train = {label: inputs.ready.material[label].train for label in LABELS}
    held_out = sum(len(inputs.ready.material[label].test) for label in LABELS) if job.measurements else 0
    with inputs.phases(f"directions of {arm.name}", sum(map(len, train.values())) + held_out) as progress:
        means: dict[str, Means] = {
            label: mean_activations(
                checkpoint,
                train[label],
                prompt,
                layers=range(checkpoint.n_layers),
                site=settings.site,
                position=settings.position,
                batch_tokens=inputs.study.batch_tokens,
                progress=progress,
            )
            for label in LABELS
        }
        planned = [inputs.planned(name) for name in job.directions]
        found = directions_between(
            means["harmful"],
            means["harmless"],
            name=arm.checkpoint,
            layers=[each.layer for each in planned],
            site=settings.site,
            position=settings.position,
            facts=provenance(checkpoint, prompt, settings.position, train["harmful"], train["harmless"]),
        )
        made = tuple(replace(direction, name=each.name) for direction, each in zip(found, planned, strict=True))
        for direction in made:
            yield DirectionMade(direction, _facts(direction, inputs))
        subject = _arm_subject(arm, inputs, checkpoint, prompt, made=made, means=means, progress=progress)
        for asked in job.measurements:
            yield _measured(asked, subject)


def _facts(direction: Direction, inputs: JobInputs, control: str = "") -> DirectionFacts:
    planned = inputs.planned(direction.name)
    norm, fingerprint = (direction.provenance.get(key) for key in ("mean residual norm", "fingerprint"))
    return DirectionFacts(
        name=planned.name,
        source=planned.source,
        prompt=planned.arm.prompt,
        control=planned.control,
        control_kind=control,
        stands_beside=planned.beside,
        layer=direction.layer,
        position=direction.position,
        site=direction.site,
        raw_norm=direction.raw_norm,
        mean_residual_norm=norm,
        fingerprint=fingerprint,
        file=f"directions/{planned.name}.safetensors",
    )


def _control(job: ControlJob, inputs: JobInputs, loaded: Loaded) -> DirectionMade:
    beside, kind = inputs.direction(job.beside), control_kind(job.kind)
    if job.checkpoint is None:
        made = kind.make(beside, name=job.direction, seed=job.seed)
    else:
        arm, checkpoint = inputs.planned(job.beside).arm, loaded[job.checkpoint]
        sides = [_side(inputs.ready.material[label].train, arm, beside, inputs, checkpoint) for label in LABELS]
        made = kind.make(beside, name=job.direction, seed=job.seed, harmful=sides[0], harmless=sides[1])
    return DirectionMade(made, _facts(made, inputs, job.kind))


def _side(instructions: Sequence[str], arm: Arm, beside: Direction, inputs: JobInputs, checkpoint: Checkpoint) -> Side:
    """The training activations of one instruction set at the layer of a direction."""
    rows = capture(
        checkpoint,
        instructions,
        inputs.prompt(arm, checkpoint),
        layers=[beside.layer],
        site=beside.site,
        position=beside.position,
        batch_tokens=inputs.study.batch_tokens,
    )
    exact = rows.double()
    return Side(exact.mean(0), exact.norm(dim=-1).mean(0), len(rows), rows)


def _arm_subject(
    arm: Arm,
    inputs: JobInputs,
    checkpoint: Checkpoint,
    prompt: Prompt,
    *,
    made: Sequence[Direction] = (),
    means: Mapping[str, Means] | None = None,
    progress: Progress = silent,
) -> ArmSubject:
    """An arm for measurements. Its directions are those just `made`, and stored ones."""
    settings, material = inputs.study.direction, inputs.ready.material
    fresh = {direction.name: direction for direction in made}
    names = own_directions(inputs.ready.plan, arm)
    return ArmSubject(
        name=arm.name,
        checkpoint=checkpoint,
        prompt=prompt,
        train={label: material[label].train for label in LABELS},
        held_out={label: material[label].test for label in LABELS},
        site=settings.site,
        position=settings.position,
        layers=tuple(settings.layers),
        directions=tuple(fresh[name] if name in fresh else inputs.direction(name) for name in names),
        batch_tokens=inputs.study.batch_tokens,
        means=means,
        progress=progress,
    )


def _measure(job: MeasureJob, inputs: JobInputs, loaded: Loaded) -> StoredMeasurement | UnmeasuredSubject:
    with inputs.phases(f"{job.asked.name} of {job.subject}", None) as progress:
        arms = []
        for arm in map(inputs.arm, job.arms):
            checkpoint = loaded[arm.checkpoint]
            arms.append(_arm_subject(arm, inputs, checkpoint, inputs.prompt(arm, checkpoint), progress=progress))
        subject: Subject = arms[0]
        if job.cell is not None:
            cell, written = inputs.cell(job.subject), inputs.completions(job.cell)
            subject = CellSubject(
                name=cell.key,
                arm=arms[0],
                edit=_edit(cell, inputs),
                instructions=tuple(row.instruction for row in written),
                completions=tuple(tuple(row.token_ids) for row in written),
            )
        elif len(arms) == 2:
            subject = PairSubject(job.subject, arms[0], arms[1])
        return _measured(job.asked, subject)


def _measured(asked: AskedMeasurement, subject: Subject) -> StoredMeasurement | UnmeasuredSubject:
    """One measurement; where it states why it cannot be made, that is the result, and the run goes on."""
    chosen = measurement(asked.name)
    key = (asked.name, subject.name, asked.settings)
    try:
        record = chosen.measure(subject, asked.parsed())
    except (InputError, WorkError) as error:
        return UnmeasuredSubject(*key, chosen.version, str(error), isinstance(error, WorkError))
    return StoredMeasurement(*key, chosen.version, record)


def _generate(job: GenerateJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[CompletionsMade]:
    study, material = inputs.study, inputs.ready.material
    pending = [(inputs.cell(key), position) for key, positions in job.rows for position in positions]
    cells = {cell.key: cell for cell, _ in pending}
    prompts = {arm: inputs.prompt(arm, checkpoint) for arm in dict.fromkeys(cell.target for cell in cells.values())}
    ids = {(arm, label): prompt.encode(material[label].test) for arm, prompt in prompts.items() for label in LABELS}
    edits = {key: _edit(cell, inputs) for key, cell in cells.items()}
    rows = [Row(tuple(ids[cell.target, cell.instructions][i]), edits[cell.key]) for cell, i in pending]
    stop = checkpoint.stop_ids if study.stop_at_eos else ()
    enough = enough_for(study.judges, checkpoint.tokenizer) if study.until_verdict else None
    decoding = Decoding(study.max_new_tokens, stop, checkpoint.pad_id, enough=enough)
    with inputs.phases(f"completions of {job.checkpoint}", len(rows)) as progress:
        try:
            for done in decode(checkpoint.model, checkpoint.layout, rows, decoding, batch_tokens=study.batch_tokens):
                yield CompletionsMade(tuple(_stored(pending, done, inputs, checkpoint)))
                progress(len(done))
        except NotFinite as error:
            cell, index = pending[error.row]
            raise error.named(job.checkpoint, material[cell.instructions].test[index]) from error


def _stored(
    pending: Sequence[tuple[PlannedCell, int]], done: Mapping[int, list[int]], inputs: JobInputs, checkpoint: Checkpoint
) -> Iterator[StoredCompletion]:
    for row, tokens in done.items():
        cell, index = pending[row]
        made = completion(checkpoint, inputs.ready.material[cell.instructions].test[index], tokens)
        yield StoredCompletion(cell.key, index, made.instruction, made.text, made.token_ids)


def _edit(cell: PlannedCell, inputs: JobInputs) -> Intervention | None:
    spec, planned = cell.intervention, cell.direction
    if spec is None or planned is None:
        return None
    direction = inputs.direction(planned.name)
    if spec.kind == "ablate":
        return ablate(direction, layers=spec.layers, sites=spec.sites, positions=spec.positions)
    assert spec.coefficient is not None
    edit = add(direction, spec.coefficient, unit=spec.unit, layers=spec.layers, sites=spec.sites, positions=spec.positions)
    if not edit.needs_residual_norm:
        return edit
    own = inputs.direction(residual_source(inputs.ready.plan, cell))
    return edit.with_residual_norm(float(own.provenance["mean residual norm"]))
