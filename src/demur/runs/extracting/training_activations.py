"""Reads an arm's training activations: what its directions are made from, and the means that edits and reports use.

Each instruction passes the model once, whatever is read from it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from demur.analysis.manifest import DirectionFacts
from demur.core.progress import Progress
from demur.directions.controls.control import control_kind
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side, estimator, fit_parts
from demur.engine.capture import Means, mean_activations
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.stream_means import Label, StreamMeans
from demur.measurements.extraction import kept_side, provenance, side_of
from demur.measurements.facts.leace_facts import stream_spreads
from demur.measurements.reference_means import means_at_site, stream_means_and_activations
from demur.runs.controls.control_making import control_layers, whole_activations
from demur.runs.extracting.cell_needs import spread_layers
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import ExtractJob
from demur.study.spec import LABELS


@dataclass(frozen=True)
class TrainingActivations:
    """What one pass over the training instructions gives.

    Attributes:
        stored: the means that the run stores.
        means: the means of every layer by label, for measurements; None if they were not read.
        sides: the input of the estimators, harmful and harmless, at `layers`; None if the job makes no directions.
        layers: the layers of the job's directions, each once.
        whole: both sides with whole activations, for null directions; None if the job makes none.
        whole_layers: the layers of `whole`.
    """

    stored: tuple[StreamMeans, ...]
    means: dict[str, Means] | None = None
    sides: tuple[Side, Side] | None = None
    layers: Sequence[int] = ()
    whole: tuple[Side, Side] | None = None
    whole_layers: Sequence[int] = ()


def read_training(
    job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint, prompt: Prompt, progress: Progress
) -> TrainingActivations:
    """Read the training instructions of a job's arm.

    Args:
        job: the job, which says what is made from the activations.
        inputs: what jobs read.
        checkpoint: the loaded checkpoint.
        prompt: the prompt format.
        progress: called with the number of instructions that were just read.

    Returns:
        The activations or their means.
    """
    kept = control_layers(job.controls, inputs)
    planned = [inputs.planned(name) for name in job.directions]
    layers = list(dict.fromkeys(each.layer for each in planned))
    estimators = dict.fromkeys(each.estimator or inputs.study.direction.estimator for each in planned)
    activations = any(estimator(name).needs == "activations" for name in estimators)
    if not (job.directions or job.measurements or kept) or (activations and not (layers or kept)):
        return TrainingActivations(
            tuple(_everywhere(label, (), job, inputs, checkpoint, prompt, progress)[0] for label in LABELS if label in job.means)
        )
    if activations:
        return _with_activations(job, layers, kept, inputs, checkpoint, prompt, progress)
    stored, means = [], dict[str, Means]()
    for label in LABELS:
        if label in job.means:
            everywhere, means[label] = _everywhere(label, kept, job, inputs, checkpoint, prompt, progress)
        else:
            means[label] = _at_the_site(label, kept, job, inputs, checkpoint, prompt, progress)
            everywhere = _stored(label, means[label], job, inputs, checkpoint, prompt)
        stored.append(everywhere)
    sides = [(side_of(means[label], layers), kept_side(means[label], kept)) for label in LABELS]
    own = (sides[0][0], sides[1][0]) if layers else None
    return TrainingActivations(tuple(stored), means, own, layers, (sides[0][1], sides[1][1]), kept)


def _with_activations(
    job: ExtractJob,
    layers: Sequence[int],
    kept: Sequence[int],
    inputs: JobInputs,
    checkpoint: Checkpoint,
    prompt: Prompt,
    progress: Progress,
) -> TrainingActivations:
    """For an estimator that needs whole activations, which are read at the layers of directions and null directions only."""
    read = [*layers, *(layer for layer in kept if layer not in layers)]
    whole = whole_activations(inputs, job.pairs_seed, checkpoint, prompt, read, progress)
    stored = []
    for label, side in zip(LABELS, whole, strict=True):
        if label in job.means:
            stored.append(_everywhere(label, (), job, inputs, checkpoint, prompt, progress)[0])
        else:
            means = Means(tuple(read), side.mean, side.mean_norm, side.count)
            stored.append(_stored(label, means, job, inputs, checkpoint, prompt))
    own = slice(len(layers))
    sides = (whole[0].at(own), whole[1].at(own)) if layers else None
    return TrainingActivations(tuple(stored), None, sides, layers, whole, read)


def _everywhere(
    label: Label,
    kept: Sequence[int],
    job: ExtractJob,
    inputs: JobInputs,
    checkpoint: Checkpoint,
    prompt: Prompt,
    progress: Progress,
) -> tuple[StreamMeans, Means]:
    """Means at every layer and site, and those at the study's site with the activations of some layers."""
    settings = inputs.study.direction
    return stream_means_and_activations(
        checkpoint,
        inputs.ready.material[label].trained(job.pairs_seed),
        prompt,
        label=label,
        site=settings.site,
        position=settings.token,
        keep=kept,
        batch_tokens=inputs.study.batch_tokens,
        progress=progress,
    )


def _at_the_site(
    label: Label,
    kept: Sequence[int],
    job: ExtractJob,
    inputs: JobInputs,
    checkpoint: Checkpoint,
    prompt: Prompt,
    progress: Progress,
) -> Means:
    """Means at the study's site of every layer."""
    settings = inputs.study.direction
    return mean_activations(
        checkpoint,
        inputs.ready.material[label].trained(job.pairs_seed),
        prompt,
        layers=range(checkpoint.n_layers),
        site=settings.site,
        position=settings.token,
        batch_tokens=inputs.study.batch_tokens,
        progress=progress,
        keep=kept,
    )


def _stored(
    label: Label, means: Means, job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint, prompt: Prompt
) -> StreamMeans:
    settings, texts = inputs.study.direction, inputs.ready.material[label].trained(job.pairs_seed)
    return means_at_site(means, checkpoint, texts, prompt, label=label, site=settings.site, position=settings.token)


def read_spreads(
    job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint, prompt: Prompt, progress: Progress
) -> Iterator[tuple[int, StreamSpread]]:
    """How an arm's training activations vary within the classes, at the layers that the job names. They are read in one pass.

    Args:
        job: the job.
        inputs: what jobs read.
        checkpoint: the loaded checkpoint.
        prompt: the prompt format.
        progress: called with the number of instructions that were just read.

    Yields:
        Each layer with its spread.
    """
    layers, settings = spread_layers(job.means), inputs.study.direction
    if layers:
        harmful, harmless = (inputs.ready.material[label].trained(job.pairs_seed) for label in LABELS)
        yield from zip(
            layers,
            stream_spreads(
                checkpoint,
                harmful,
                harmless,
                prompt,
                layers=layers,
                site=settings.site,
                position=settings.token,
                batch_tokens=inputs.study.batch_tokens,
                progress=progress,
            ),
            strict=True,
        )


def make_directions(
    job: ExtractJob, inputs: JobInputs, checkpoint: Checkpoint, prompt: Prompt, sides: tuple[Side, Side], layers: Sequence[int]
) -> tuple[Direction, ...]:
    """An arm's directions.

    Args:
        job: the job, which has the names of the planned directions.
        inputs: what jobs read.
        checkpoint: the loaded checkpoint.
        prompt: the prompt format.
        sides: the training activations at the directions' layers.
        layers: these layers, in the order of the sides.
    """
    settings, material = inputs.study.direction, inputs.ready.material
    planned = [inputs.planned(name) for name in job.directions]
    harmful, harmless = (material[label].trained(job.pairs_seed) for label in LABELS)
    read = provenance(checkpoint, prompt, settings.token, harmful, harmless)
    counts = {one.name: one.directions for one in settings.estimators}
    made: dict[str, list[list[Direction]]] = {}
    for name in dict.fromkeys(each.estimator or settings.estimator for each in planned):
        needed = {each.layer for each in planned if (each.estimator or settings.estimator) == name}
        made[name] = fit_parts(
            *(_at(side, [row for row, layer in enumerate(layers) if layer in needed]) for side in sides),
            name=job.checkpoint,
            layers=[layer for layer in layers if layer in needed],
            count=counts[name],
            estimator_name=name,
            site=settings.site,
            position=settings.token,
            provenance=read,
        )
    return tuple(
        replace(_of_layer(made[each.estimator or settings.estimator][max(each.part, 1) - 1], each.layer), name=each.name)
        for each in planned
    )


def _at(side: Side, rows: Sequence[int]) -> Side:
    """A side at some of its layers; the side itself if these are all."""
    if len(rows) == len(side.mean):
        return side
    activations = None if side.activations is None else side.activations[:, rows]
    return replace(side, mean=side.mean[rows], mean_norm=side.mean_norm[rows], activations=activations)


def _of_layer(directions: Sequence[Direction], layer: int) -> Direction:
    return next(one for one in directions if one.layer == layer)


def direction_facts(direction: Direction, inputs: JobInputs) -> DirectionFacts:
    """The facts of a direction of the plan, as the run stores them."""
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
        resample_of=planned.resample_of,
        estimator=planned.estimator,
        part=planned.part,
        site=direction.site,
        raw_norm=direction.raw_norm,
        mean_residual_norm=direction.provenance.mean_residual_norm,
        fingerprint=direction.provenance.fingerprint,
        file=f"directions/{planned.name}.safetensors",
    )
