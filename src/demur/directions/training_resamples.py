"""Directions from resamples of the training pairs, which show how much a direction depends on the pairs it was made from."""

from dataclasses import replace

import torch
from torch import Tensor

from demur.core.errors import WorkError
from demur.directions.controls.seeded_draws import generator_of
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side, fit_directions
from demur.directions.provenance import InstructionFacts
from demur.inputs.instructions import digest
from demur.inputs.training_texts import TrainingTexts


def resampled_rows(count: int, number: int) -> Tensor:
    """The rows of one resample: as many as there are, drawn with replacement.

    Args:
        count: the number of training pairs.
        number: which resample it is, from 1.

    Returns:
        Row numbers, (count,). They are the same for every arm, layer and machine, so that the directions of all arms come from
        the same pairs.
    """
    return torch.randint(count, (count,), generator=generator_of(0, f"training pairs, resample {number}"))


def resampled_direction(of: Direction, *, name: str, number: int, estimator: str, harmful: Side, harmless: Side) -> Direction:
    """Make a direction again from a bootstrap resample of its training pairs.

    Row k of both sides is one pair, so pairs that match stay together.

    Args:
        of: the direction that was made from all pairs. The new one has its layer, site and position, and a norm of its own.
        name: the name of the new direction.
        number: which resample it is, from 1.
        estimator: the estimator of the direction.
        harmful: the whole harmful training activations at the layer of the direction, with their texts.
        harmless: the harmless ones, as many.

    Returns:
        The direction. Its provenance has its cosine with `of`.

    Raises:
        WorkError: if the two sides differ in size, or a side has no whole activations.
        InputError: if the estimator finds no direction in the resample.

    Source: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.
    """
    if harmful.activations is None or harmless.activations is None or harmful.count != harmless.count:
        raise WorkError(f"resampling the pairs of {of.name!r} needs whole activations of equally many instructions of each side")
    rows = resampled_rows(harmful.count, number)
    sides = [_rows_of(side, rows) for side in (harmful, harmless)]
    (made,) = fit_directions(
        *sides,
        name=name,
        layers=[of.layer],
        estimator_name=estimator,
        site=of.site,
        position=of.position,
        provenance=of.provenance.replaced(harmful=_facts(sides[0]), harmless=_facts(sides[1])),
    )
    # Rounded, because the last digits of a sum depend on the machine, and a stored direction should not.
    cosine = round(float(made.vector.double() @ of.vector.double()), 6) + 0.0
    method = f"{made.provenance.method}, resample {number} of the training pairs"
    return replace(made, provenance=made.provenance.replaced(method=method, cosine=cosine))


def _rows_of(side: Side, rows: Tensor) -> Side:
    """Some instructions of a side, each as often as it is named."""
    assert side.activations is not None
    kept = side.activations[rows]
    texts = None if side.texts is None else TrainingTexts(tuple(side.texts.instructions[row] for row in rows.tolist()))
    return Side(kept.double().mean(0), kept.double().norm(dim=-1).mean(0), len(rows), kept, texts)


def _facts(side: Side) -> InstructionFacts | None:
    if side.texts is None:
        return None
    return InstructionFacts(n=side.count, sha256=digest(side.texts.instructions))
