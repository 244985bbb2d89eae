"""Carries out each kind of job: reads inputs by key, uses loaded checkpoints, and gives records. It stores nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from demur.core.progress import Progress, silent
from demur.core.thought_marks import thought_at_end
from demur.directions.controls.control import control_direction
from demur.directions.direction import Direction
from demur.directions.subspace import Subspace
from demur.engine.capture import Means
from demur.engine.checkpoints import Checkpoint, load_checkpoint
from demur.engine.generate import CompletionRequest, generate_batches
from demur.engine.lockstep.batch_room import part_of_weights
from demur.inputs.prompt_formats import SLOT
from demur.inputs.prompts import Prompt
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.gates.gate import Gate
from demur.interventions.gates.gated_edit import when
from demur.interventions.intervention import Intervention, edit
from demur.interventions.stream_means import StreamMeans
from demur.interventions.target_facts import TargetFacts
from demur.judges.judge import Judged
from demur.measurements.measurement import ArmSubject, CellCompletion, CellSubject, PairSubject, PlannedSubject
from demur.models.freed_memory import free_memory
from demur.models.memory_budget import limited
from demur.models.prepacked_weights import as_stored
from demur.runs.conditions.gate_jobs import GateJob
from demur.runs.conditions.gate_making import gate_made, stored_gate
from demur.runs.controls.control_jobs import ArmControlsJob, ControlJob
from demur.runs.controls.control_making import arm_controls_made, controls_from
from demur.runs.extracting.cell_needs import GateName, MeansName, gates_of, means_of, spread_layers
from demur.runs.extracting.means_rows import row_of, spread_row
from demur.runs.extracting.training_activations import direction_facts, make_directions, read_spreads, read_training
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import ExtractJob, GenerateJob, Job, MeasureJob
from demur.runs.measuring.measured_records import expected_prompts, measured, measured_cells
from demur.runs.records import CompletionsMade, DirectionMade, JobRecord
from demur.runs.rows import StoredCompletion, StoredMeasurement, UnmeasuredSubject
from demur.study.plan import Arm, Plan, PlannedCell, PlannedSubspace, main_directions, residual_source
from demur.study.planned.planned_directions import Used
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
        yield DirectionMade(made, direction_facts(made, inputs))
    elif isinstance(job, ArmControlsJob):
        yield from _arm_controls(job, inputs, loaded[job.checkpoint])
    elif isinstance(job, GateJob):
        texts = [inputs.ready.material[name] for name in inputs.study.sets]
        count = sum(len(one.test) for one in texts) + sum(len(inputs.ready.material[one].train) for one in LABELS)
        with inputs.phases(f"gate of {job.arm}", count) as progress:
            yield gate_made(job, inputs, loaded[job.checkpoint], progress)
    elif isinstance(job, GenerateJob):
        yield from _generate(job, inputs, loaded[job.checkpoint])
    else:
        yield from _measure(job, inputs, loaded)


def _extract(job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[JobRecord]:
    """Read the training activations once, make directions and null directions from them, and measure the arm with their means."""
    arm = inputs.arm(job.arm)
    prompt = inputs.prompt(arm, checkpoint)
    material = inputs.ready.material
    trained = sum(len(material[label].trained(job.pairs_seed)) for label in LABELS)
    planned = PlannedSubject({name: len(one.test) for name, one in material.items()}, trained, checkpoint.n_layers)
    readings = 2 if spread_layers(job.means) else 1
    count = readings * trained + expected_prompts(job.measurements, planned)
    with inputs.phases(f"directions of {arm.name}", count) as progress:
        read = read_training(job, inputs, checkpoint, prompt, progress)
        # The means are those of the first seed, as measurements are.
        for means in read.stored if job.pairs_seed == inputs.study.direction.seeds[0] else ():
            yield row_of(arm.name, means, complete=means.label in job.means)
        for layer, spread in read_spreads(job, inputs, checkpoint, prompt, progress):
            yield spread_row(arm.name, layer, spread)
        made = () if read.sides is None else make_directions(job, inputs, checkpoint, prompt, read.sides, read.layers)
        fresh = {one.name: one for one in made}
        nulls: Iterable[Direction] = ()
        if read.whole is not None:
            nulls = controls_from(job.controls, fresh, read.whole, read.whole_layers, inputs, job.pairs_seed)
        for direction in (*made, *nulls):
            yield DirectionMade(direction, direction_facts(direction, inputs))
        subject = _arm_subject(arm, inputs, checkpoint, prompt, made=made, means=read.means, progress=progress)
        for asked in job.measurements:
            yield measured(asked, subject)


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
            yield DirectionMade(made, direction_facts(made, inputs))


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
            yield from measured_cells(job.asked, _cell_subjects(job, inputs, arms))
        elif len(arms) == 2:
            # Two checkpoints are in memory, and prepacked weights would take half as much again.
            with as_stored(), limited(part_of_weights(*(one.checkpoint for one in arms))):
                free_memory()
                record = measured(job.asked, PairSubject(job.subject, arms[0], arms[1]))
            yield record
        else:
            yield measured(job.asked, arms[0])


def _cell_subjects(job: MeasureJob, inputs: JobInputs, arms: Sequence[ArmSubject]) -> list[CellSubject]:
    """The cells of the first arm as subjects of a measurement. The second arm is the reference, if there is one."""
    stored = _read(job, inputs)
    written = {key: inputs.completions(key) for key in job.read}
    thought = thought_at_end(arms[0].prompt.template.rpartition(SLOT)[2])
    return [
        CellSubject(
            name=key,
            arm=arms[0],
            edit=_edit(inputs.cell(key), stored, inputs.ready.plan),
            instructions=tuple(row.instruction for row in written[baseline]),
            completions=tuple(tuple(row.token_ids) for row in written[baseline]),
            max_new_tokens=inputs.study.max_new_tokens,
            stop_at_eos=inputs.study.stop_at_eos,
            written=tuple(
                CellCompletion(Judged(row.text, row.instruction, row.own_turn, thought), tuple(row.token_ids))
                for row in written.get(key, ())
            ),
            reference=arms[-1],
        )
        for key, baseline in job.cells
    ]


def _generate(job: GenerateJob, inputs: JobInputs, checkpoint: Checkpoint) -> Iterator[CompletionsMade]:
    study, material = inputs.study, inputs.ready.material
    cells = {key: inputs.cell(key) for key, _ in job.rows}
    pending = [(cells[key], position) for key, positions in job.rows for position in positions]
    prompts = {arm: inputs.prompt(arm, checkpoint) for arm in dict.fromkeys(cell.target for cell in cells.values())}
    ids = {(arm, name): prompt.encode(material[name].test) for arm, prompt in prompts.items() for name in study.sets}
    stored = _read(job, inputs)
    edits = {key: _edit(cell, stored, inputs.ready.plan) for key, cell in cells.items()}
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


@dataclass(frozen=True, eq=False)
class _Stored:
    """What the edits of a job are made from, by name."""

    directions: Mapping[str, Direction]
    means: Mapping[MeansName, StreamMeans | StreamSpread]
    gates: Mapping[GateName, Gate]


def _read(job: GenerateJob | MeasureJob, inputs: JobInputs) -> _Stored:
    return _Stored(
        {name: inputs.direction(name) for name in job.directions},
        {name: inputs.means(name) for name in job.means},
        {name: stored_gate(inputs, name) for name in job.gates},
    )


def edit_of(spec: InterventionSpec, direction: Direction | Subspace | None, dose: float | None) -> Intervention:
    """The edit that an intervention of a study makes with a direction.

    Args:
        spec: the intervention.
        direction: the direction, or several together for a kind that takes a subspace; None for a kind that needs none.
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


def _edit(cell: PlannedCell, stored: _Stored, plan: Plan) -> Intervention | None:
    """The edit of a cell, with everything that it has to know of its target, and with its gate."""
    spec, planned = cell.intervention, cell.direction
    if spec is None:
        return None
    made = edit_of(spec, None if planned is None else _taken(planned, stored.directions), spec.dose)
    facts = TargetFacts.of_means(*(stored.means[name] for name in means_of(cell)))
    if "residual norm" in made.missing_facts:
        norm = stored.directions[residual_source(plan, cell)].provenance.mean_residual_norm
        assert norm is not None, "every direction that was read from an arm has its mean residual norm"
        facts = facts.joined(TargetFacts(residual_norm=norm))
    made = made.with_facts(facts)
    return made if cell.gate is None else when(made, *(stored.gates[name] for name in gates_of(cell)))


def _taken(planned: Used, directions: Mapping[str, Direction]) -> Direction | Subspace:
    """What an edit takes: the stored direction, or several together."""
    if isinstance(planned, PlannedSubspace):
        return Subspace(planned.name, tuple(directions[one.name] for one in planned.members))
    return directions[planned.name]
