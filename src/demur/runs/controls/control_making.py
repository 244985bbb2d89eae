"""Makes the null directions and the resamples of an arm from its training activations, which are read once for all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from demur.core.progress import Progress
from demur.directions.controls.control import control_direction
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side
from demur.directions.training_resamples import resampled_direction
from demur.engine.checkpoints import Checkpoint
from demur.inputs.prompts import Prompt
from demur.measurements.extraction import training_sides
from demur.runs.controls.control_jobs import ArmControlsJob, AskedOfActivations, AskedResample
from demur.runs.job_inputs import JobInputs
from demur.study.spec import LABELS


def control_layers(controls: Sequence[AskedOfActivations], inputs: JobInputs) -> list[int]:
    """The layers at which these controls need whole activations."""
    return sorted({inputs.planned(one.beside).layer for one in controls})


def controls_from(
    controls: Sequence[AskedOfActivations],
    besides: Mapping[str, Direction],
    sides: tuple[Side, Side],
    layers: Sequence[int],
    inputs: JobInputs,
    pairs_seed: int | None,
) -> Iterator[Direction]:
    """Make null directions and resamples from activations that are in memory.

    Args:
        controls: the null directions and resamples to make.
        besides: directions by name that are not stored yet; the others are read from the store.
        sides: the harmful and the harmless side with whole activations.
        layers: the layers of the sides, in their order.
        inputs: what jobs read by key.
        pairs_seed: the seed by which the training instructions of the sides are drawn; None for the first ones.

    Yields:
        The directions, in their order.
    """
    texts = [inputs.ready.material[label].draws[pairs_seed] for label in LABELS]
    labelled = [replace(side, texts=known) for known, side in zip(texts, sides, strict=True)]
    by_layer = {layer: tuple(side.at(row) for side in labelled) for row, layer in enumerate(layers)}
    for one in controls:
        beside = besides[one.beside] if one.beside in besides else inputs.direction(one.beside)
        harmful, harmless = by_layer[beside.layer]
        if isinstance(one, AskedResample):
            estimator = inputs.study.direction.estimator  # the first one, as of every direction that is resampled
            yield resampled_direction(
                beside, name=one.direction, number=one.number, estimator=estimator, harmful=harmful, harmless=harmless
            )
            continue
        yield control_direction(
            one.kind, beside, name=one.direction, seed=one.seed, harmful=harmful, harmless=harmless, number=one.number
        )


def arm_controls_made(job: ArmControlsJob, inputs: JobInputs, checkpoint: Checkpoint, progress: Progress) -> Iterator[Direction]:
    """Read the activations that the controls of a job need, and make the controls.

    Args:
        job: the job.
        inputs: what jobs read by key.
        checkpoint: the checkpoint of the arm.
        progress: called with the number of instructions that were just read.

    Yields:
        The null directions, in their order.
    """
    layers, prompt = control_layers(job.controls, inputs), inputs.prompt(inputs.arm(job.arm), checkpoint)
    sides = whole_activations(inputs, job.pairs_seed, checkpoint, prompt, layers, progress)
    yield from controls_from(job.controls, {}, sides, layers, inputs, job.pairs_seed)


def whole_activations(
    inputs: JobInputs,
    pairs_seed: int | None,
    checkpoint: Checkpoint,
    prompt: Prompt,
    layers: Sequence[int],
    progress: Progress,
) -> tuple[Side, Side]:
    """Read the training instructions at the site and position of the study, and keep every activation.

    Args:
        inputs: what jobs read by key.
        pairs_seed: the seed by which the training instructions are drawn; None for the first ones.
        checkpoint: the loaded checkpoint.
        prompt: the prompt format.
        layers: the layers to read.
        progress: called with the number of instructions that were just read.

    Returns:
        The harmful and the harmless side, at `layers` in their order.
    """
    settings = inputs.study.direction
    harmful, harmless = (inputs.ready.material[label].trained(pairs_seed) for label in LABELS)
    return training_sides(
        checkpoint,
        harmful,
        harmless,
        prompt,
        layers=layers,
        needs="activations",
        site=settings.site,
        position=settings.token,
        batch_tokens=inputs.study.batch_tokens,
        progress=progress,
    )
