"""Carries out each kind of job: reads inputs by key, uses loaded checkpoints, and gives records. It stores nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from demur.analysis.manifest import DirectionFacts
from demur.core.progress import Progress, silent
from demur.directions.controls.control import control_direction, control_kind
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side, estimator, fit_directions
from demur.engine.capture import Means, mean_activations
from demur.engine.checkpoints import Checkpoint, load_checkpoint
from demur.engine.generate import CompletionRequest, generate_batches
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, edit
from demur.measurements.extraction import kept_side, provenance, side_of, training_sides
from demur.measurements.measurement import ArmSubject, CellSubject, PairSubject
from demur.runs.controls.control_jobs import ArmControlsJob, ControlJob
from demur.runs.controls.control_making import arm_controls_made, control_layers, controls_from
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import (
    ExtractJob,
    GenerateJob,
    Job,
    MeasureJob,
)
from demur.runs.measuring.measured_records import measured, measured_cells
from demur.runs.records import CompletionsMade, DirectionMade, JobRecord
from demur.runs.rows import StoredCompletion, StoredMeasurement, UnmeasuredSubject
from demur.study.plan import Arm, Plan, PlannedCell, main_directions, residual_source
from demur.study.spec import LABELS, InterventionSpec, Study

Loaded = Mapping[str, Checkpoint]
"""Checkpoints in memory, by their names in the study."""


def run_job(job: Job, inputs: JobInputs, loaded: Loaded) -> Iterator[JobRecord]:
    """Run one job.

    Args:
        job: the job.
        inputs: what it reads by key.
        loaded: the checkpoints that the job names in `weights`.

    Yields:
        Its records. The same job gives equal records every time.

    Raises:
        WorkError: if the work fails, or a stored input is missing.
        InputError: if the job cannot be done as it was asked for.
    """
    if isinstance(job, ExtractJob):
        yield from _extract(job, inputs, loaded[job.checkpoint])
    elif isinstance(job, ControlJob):
        made = control_direction(job.kind, inputs.direction(job.beside), name=job.direction, seed=job.seed, number=job.number)
        yield DirectionMade(made, _facts(made, inputs))
    elif isinstance(job, ArmControlsJob):
        yield from _arm_controls(job, inputs, loaded[job.checkpoint])
    elif isinstance(job, GenerateJob):
        yield from _generate(job, inputs, loaded[job.checkpoint])
    else:
        yield from _measure(job, inputs, loaded)


def _extract(job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[JobRecord]:
    """Read the training activations once, make directions and null directions from them, and measure the arm with their means."""
    arm = inputs.arm(job.arm)
    prompt = inputs.prompt(arm, checkpoint)
    counts = [len(inputs.ready.material[label].trained(job.pairs_seed)) for label in LABELS]
    if job.measurements:
        counts += [len(inputs.ready.material[label].test) for label in LABELS]
    with inputs.phases(f"directions of {arm.name}", sum(counts)) as progress:
        read = _training(job, inputs, checkpoint, prompt, progress)
        made = _directions(job, inputs, checkpoint, prompt, read.sides)
        nulls = controls_from(
            job.controls, {one.name: one for one in made}, read.whole, read.whole_layers, inputs, job.pairs_seed
        )
        for direction in (*made, *nulls):
            yield DirectionMade(direction, _facts(direction, inputs))
        subject = _arm_subject(arm, inputs, checkpoint, prompt, made=made, means=read.means, progress=progress)
        for asked in job.measurements:
            yield measured(asked, subject)


@dataclass(frozen=True)
class _TrainingRead:
    """What one pass over the training instructions gives.

    Attributes:
        means: the means of every layer by label, for measurements; None if the study's estimator needs whole activations.
        sides: the input of the estimator, at the layers of the job's directions.
        whole: both sides with whole activations, for null directions.
        whole_layers: the layers of `whole`.
    """

    means: dict[str, Means] | None
    sides: tuple[Side, Side]
    whole: tuple[Side, Side]
    whole_layers: Sequence[int]


def _training(job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint, prompt: Prompt, progress: Progress) -> _TrainingRead:
    settings, material = inputs.study.direction, inputs.ready.material
    layers, kept = [inputs.planned(name).layer for name in job.directions], control_layers(job.controls, inputs)
    site, position, batch_tokens = settings.site, settings.token, inputs.study.batch_tokens
    if estimator(settings.estimator).needs == "activations":
        harmful, harmless = (material[label].trained(job.pairs_seed) for label in LABELS)
        read = [*layers, *(layer for layer in kept if layer not in layers)]
        whole = training_sides(
            checkpoint,
            harmful,
            harmless,
            prompt,
            layers=read,
            needs="activations",
            site=site,
            position=position,
            batch_tokens=batch_tokens,
            progress=progress,
        )
        own = slice(len(layers))
        return _TrainingRead(None, (whole[0].at(own), whole[1].at(own)), whole, read)
    means: dict[str, Means] = {
        label: mean_activations(
            checkpoint,
            material[label].trained(job.pairs_seed),
            prompt,
            layers=range(checkpoint.n_layers),
            site=site,
            position=position,
            batch_tokens=batch_tokens,
            progress=progress,
            keep=kept,
        )
        for label in LABELS
    }
    sides = [(side_of(means[label], layers), kept_side(means[label], kept)) for label in LABELS]
    return _TrainingRead(means, (sides[0][0], sides[1][0]), (sides[0][1], sides[1][1]), kept)


def _directions(
    job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint, prompt: Prompt, sides: tuple[Side, Side]
) -> tuple[Direction, ...]:
    settings, material = inputs.study.direction, inputs.ready.material
    planned = [inputs.planned(name) for name in job.directions]
    harmful, harmless = (material[label].trained(job.pairs_seed) for label in LABELS)
    found = fit_directions(
        *sides,
        name=job.checkpoint,
        layers=[each.layer for each in planned],
        estimator_name=settings.estimator,
        site=settings.site,
        position=settings.token,
        provenance=provenance(checkpoint, prompt, settings.token, harmful, harmless),
    )
    return tuple(replace(direction, name=each.name) for direction, each in zip(found, planned, strict=True))


def _facts(direction: Direction, inputs: JobInputs) -> DirectionFacts:
    planned = inputs.planned(direction.name)
    return DirectionFacts(
        name=planned.name,
        method=direction.provenance.method or "",
        source=planned.source,
        prompt=planned.arm.prompt,
        control=planned.control,
        control_kind=planned.control_name,
        stands_beside=planned.beside,
        null_of=control_kind(planned.control_kind).null_of if planned.control else "",
        cosine=direction.provenance.cosine,
        layer=direction.layer,
        position=direction.position,
        pairs_seed=planned.pairs_seed,
        site=direction.site,
        raw_norm=direction.raw_norm,
        mean_residual_norm=direction.provenance.mean_residual_norm,
        fingerprint=direction.provenance.fingerprint,
        file=f"directions/{planned.name}.safetensors",
    )


def load_named(study: Study, name: str, device: str) -> Checkpoint:
    """Load a checkpoint of a study as the study asks for it.

    Args:
        study: the study.
        name: the checkpoint's name in the study.
        device: where it is loaded.
    """
    spec = study.checkpoints[name]
    return load_checkpoint(
        spec.model,
        adapter=spec.adapter,
        revision=spec.revision,
        dtype=study.dtype,
        quantise=spec.quantise,
        device=device,
        name=name,
        engine=study.engine,
    )


def _arm_controls(job: ArmControlsJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[DirectionMade]:
    count = sum(len(inputs.ready.material[label].trained(job.pairs_seed)) for label in LABELS)
    with inputs.phases(job.key, count) as progress:
        for made in arm_controls_made(job, inputs, checkpoint, progress):
            yield DirectionMade(made, _facts(made, inputs))


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
    """An arm as the subject of measurements. Directions that are not among those just `made` are read from the store."""
    settings, material = inputs.study.direction, inputs.ready.material
    fresh = {direction.name: direction for direction in made}
    names = main_directions(inputs.ready.plan, arm)
    return ArmSubject(
        name=arm.name,
        checkpoint=checkpoint,
        prompt=prompt,
        train={label: material[label].train for label in LABELS},
        held_out={label: material[label].test for label in LABELS},
        site=settings.site,
        position=settings.token,
        layers=tuple(settings.places),
        directions=tuple(fresh[name] if name in fresh else inputs.direction(name) for name in names),
        batch_tokens=inputs.study.batch_tokens,
        means=means,
        progress=progress,
    )


def _measure(job: MeasureJob, inputs: JobInputs, loaded: Loaded) -> Iterator[StoredMeasurement | UnmeasuredSubject]:
    with inputs.phases(f"{job.asked.name} of {job.subject}", None) as progress:
        arms = []
        for arm in map(inputs.arm, job.arms):
            checkpoint = loaded[arm.checkpoint]
            arms.append(_arm_subject(arm, inputs, checkpoint, inputs.prompt(arm, checkpoint), progress=progress))
        if job.cells:
            yield from measured_cells(job.asked, _cell_subjects(job, inputs, arms[0]))
        elif len(arms) == 2:
            yield measured(job.asked, PairSubject(job.subject, arms[0], arms[1]))
        else:
            yield measured(job.asked, arms[0])


def _cell_subjects(job: MeasureJob, inputs: JobInputs, arm: ArmSubject) -> list[CellSubject]:
    """The cells of an arm as subjects of a measurement."""
    directions = {name: inputs.direction(name) for name in job.directions}
    written = {baseline: inputs.completions(baseline) for baseline in dict.fromkeys(baseline for _, baseline in job.cells)}
    return [
        CellSubject(
            name=key,
            arm=arm,
            edit=_edit(inputs.cell(key), directions, inputs.ready.plan),
            instructions=tuple(row.instruction for row in written[baseline]),
            completions=tuple(tuple(row.token_ids) for row in written[baseline]),
            max_new_tokens=inputs.study.max_new_tokens,
            stop_at_eos=inputs.study.stop_at_eos,
        )
        for key, baseline in job.cells
    ]


def _generate(job: GenerateJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[CompletionsMade]:
    study, material = inputs.study, inputs.ready.material
    cells = {key: inputs.cell(key) for key, _ in job.rows}
    pending = [(cells[key], position) for key, positions in job.rows for position in positions]
    prompts = {arm: inputs.prompt(arm, checkpoint) for arm in dict.fromkeys(cell.target for cell in cells.values())}
    ids = {(arm, name): prompt.encode(material[name].test) for arm, prompt in prompts.items() for name in study.sets}
    directions = {name: inputs.direction(name) for name in job.directions}
    edits = {key: _edit(cell, directions, inputs.ready.plan) for key, cell in cells.items()}
    requests = [
        CompletionRequest(material[cell.instructions].test[i], tuple(ids[cell.target, cell.instructions][i]), edits[cell.key])
        for cell, i in pending
    ]
    batches = generate_batches(
        checkpoint,
        requests,
        max_new_tokens=study.max_new_tokens,
        stop_at_eos=study.stop_at_eos,
        until_verdicts=study.judges if study.until_verdict else (),
        batch_tokens=study.batch_tokens,
    )
    with inputs.phases(f"completions of {job.checkpoint}", len(requests)) as progress:
        for finished in batches:
            rows = ((*pending[row], made) for row, made in finished.items())
            yield CompletionsMade(
                tuple(
                    StoredCompletion(cell.key, i, made.instruction, made.text, made.token_ids, made.own_turn)
                    for cell, i, made in rows
                )
            )
            progress(len(finished))


def edit_of(spec: InterventionSpec, direction: Direction | None, dose: float | None) -> Intervention:
    """The edit that an intervention of a study makes with a direction.

    Args:
        spec: the intervention.
        direction: the direction; None for a kind that needs none.
        dose: the coefficient, which may be one of several that are tried; None for a kind that takes none.
    """
    return edit(
        spec.kind,
        direction,
        coefficient=dose,
        unit=spec.unit,
        layers=spec.layers,
        sites=spec.sites,
        positions=spec.positions,
        **spec.settings,
    )


def _edit(cell: PlannedCell, directions: Mapping[str, Direction], plan: Plan) -> Intervention | None:
    spec, planned = cell.intervention, cell.direction
    if spec is None:
        return None
    made = edit_of(spec, None if planned is None else directions[planned.name], spec.dose)
    if not made.needs_residual_norm:
        return made
    norm = directions[residual_source(plan, cell)].provenance.mean_residual_norm
    assert norm is not None, "every direction that was read from an arm has its mean residual norm"
    return made.with_residual_norm(norm)
