"""The protocol of a direction estimator, which computes directions for each layer from harmful and harmless activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.directions.direction import Direction, from_raw
from demur.directions.provenance import Provenance
from demur.inputs.training_texts import TrainingTexts
from demur.models.layouts import Site


@dataclass(frozen=True, eq=False)
class Side:
    """The training activations of one label, harmful or harmless, at some layers.

    Attributes:
        mean: mean activation, (layer, d_model), float64.
        mean_norm: mean length of the activations, (layer,), float64.
        count: number of instructions.
        activations: every activation, (instruction, layer, d_model), float32; None if only means were taken.
        texts: the instructions in the order of `activations`, with their topics if known; None if they were not given.
    """

    mean: Float[Tensor, "layer d_model"]
    mean_norm: Float[Tensor, " layer"]
    count: int
    activations: Float[Tensor, "instruction layer d_model"] | None = None
    texts: TrainingTexts | None = None

    def at(self, row: int | slice) -> "Side":
        """The same instructions at some of the layers.

        Args:
            row: the place of one layer among those of this side, or a slice of them.
        """
        here = row if isinstance(row, slice) else slice(row, row + 1)
        activations = None if self.activations is None else self.activations[:, here]
        return Side(self.mean[here], self.mean_norm[here], self.count, activations, self.texts)


@runtime_checkable
class Estimator(Protocol):
    """A way to find the direction that separates harmful from harmless instructions, or several.

    Besides the attributes, an estimator has `fit` (`GivesOne`), or `fit_several` (`GivesSeveral`) if it can find several
    directions of one layer.

    Attributes:
        name: its name in studies. Each direction stores it as its method, with spaces instead of hyphens.
        needs: `means`, which take little memory, or whole `activations`.
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["means", "activations"]]


@runtime_checkable
class GivesOne(Protocol):
    """An estimator that finds one direction for each layer."""

    def fit(self, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
        """Find one vector for each layer.

        Args:
            harmful: activations of the harmful instructions. Its `activations` are set if `needs` asks for them.
            harmless: activations of the harmless instructions, at the same layers.

        Returns:
            One vector for each layer, (layer, d_model), float64, pointing from harmless to harmful. Its length becomes the raw
            norm. A vector of zeros means that the layer has no direction.
        """
        ...


@runtime_checkable
class GivesSeveral(Protocol):
    """An estimator that finds as many directions for each layer as it is asked for."""

    def fit_several(self, harmful: Side, harmless: Side, count: int) -> Float[Tensor, "part layer d_model"]:
        """Find several vectors for each layer.

        Args:
            harmful: activations of the harmful instructions. Its `activations` are set if `needs` asks for them.
            harmless: activations of the harmless instructions, at the same layers.
            count: how many vectors each layer gets, 1 or more.

        Returns:
            The vectors, (part, layer, d_model), float64. Those of one layer have to be linearly independent.
        """
        ...


def estimator(name: str) -> Estimator:
    """Find an estimator.

    Args:
        name: a registered name, or `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one; for an object that is not an estimator, with what it lacks.
    """
    found: Estimator = registry("estimator").get(name)
    return found


def fitted(chosen: Estimator, harmful: Side, harmless: Side) -> Float[Tensor, "layer d_model"]:
    """Run an estimator that gives one direction, and check what it gives. See `fitted_parts`.

    Returns:
        One vector for each layer, (layer, d_model); zeros where a layer has no direction.
    """
    return fitted_parts(chosen, harmful, harmless, 1)[0]


def fitted_parts(chosen: Estimator, harmful: Side, harmless: Side, count: int) -> Float[Tensor, "part layer d_model"]:
    """Run an estimator and check what it gives.

    Args:
        chosen: the estimator.
        harmful: activations of the harmful instructions.
        harmless: activations of the harmless instructions, at the same layers.
        count: how many directions each layer gets.

    Returns:
        The vectors, (part, layer, d_model); zeros where a layer has no direction.

    Raises:
        InputError: if the estimator needs whole activations and only means are given, and if it gives one direction and several
            are asked for.
        WorkError: if it gives vectors of another shape.
    """
    if chosen.needs == "activations" and (harmful.activations is None or harmless.activations is None):
        raise InputError(
            f"the estimator {chosen.name!r} needs whole activations, but only means were taken; give those of both sides"
        )
    check_count(chosen, count)
    several = isinstance(chosen, GivesSeveral)
    vectors: object = chosen.fit_several(harmful, harmless, count) if isinstance(chosen, GivesSeveral) else None
    if isinstance(chosen, GivesOne) and not several:
        vectors = chosen.fit(harmful, harmless)
    wanted = (count, *harmful.mean.shape) if several else tuple(harmful.mean.shape)
    if not isinstance(vectors, Tensor) or tuple(vectors.shape) != wanted:
        given = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        asked = f"{count} vectors for each layer" if several else "one vector for each layer"
        raise WorkError(f"the estimator {chosen.name!r} gave {given}; expected {asked}, {wanted}")
    return vectors if several else vectors[None]


def check_count(chosen: Estimator, count: int) -> None:
    """Check that an estimator can give as many directions of one layer as it is asked for.

    Raises:
        InputError: if it gives one, and several are asked for.
    """
    if count > 1 and not isinstance(chosen, GivesSeveral):
        raise InputError(
            f"the estimator {chosen.name!r} gives one direction, and {count} are asked for; name one that gives several, such as "
            "'k-means'"
        )


def fit_directions(
    harmful: Side,
    harmless: Side,
    *,
    name: str,
    layers: Sequence[int],
    estimator_name: str = "difference-of-means",
    site: Site = "resid_pre",
    position: int = -1,
    provenance: Provenance | None = None,
) -> list[Direction]:
    """Estimate one direction for each layer.

    Args:
        harmful: activations of the harmful instructions.
        harmless: activations of the harmless instructions.
        name: the name of every direction.
        layers: the layers of the activations, in their order.
        estimator_name: a registered estimator, or `module:Class`.
        site: where the activations were read.
        position: the prompt position at which they were read.
        provenance: the provenance of the activations. The method and the mean residual norm are added.

    Returns:
        The directions, one for each layer.

    Raises:
        InputError: for an unknown estimator, if it needs whole activations and only means are given, and if a layer has no
            direction.
        WorkError: if the estimator gives vectors of another shape.
    """
    (parts,) = fit_parts(
        harmful,
        harmless,
        name=name,
        layers=layers,
        count=1,
        estimator_name=estimator_name,
        site=site,
        position=position,
        provenance=provenance,
    )
    return parts


def fit_parts(
    harmful: Side,
    harmless: Side,
    *,
    name: str,
    layers: Sequence[int],
    count: int,
    estimator_name: str,
    site: Site = "resid_pre",
    position: int = -1,
    provenance: Provenance | None = None,
) -> list[list[Direction]]:
    """Estimate several directions for each layer; see `fit_directions`.

    Args:
        harmful: activations of the harmful instructions.
        harmless: activations of the harmless instructions.
        name: the name of every direction.
        layers: the layers of the activations, in their order.
        count: how many directions each layer gets.
        estimator_name: a registered estimator, or `module:Class`.
        site: where the activations were read.
        position: the prompt position at which they were read.
        provenance: the provenance of the activations. The method and the mean residual norm are added.

    Returns:
        For each of the several, its directions, one for each layer.

    Raises:
        InputError: in the same cases as `fit_directions`, and if an estimator that gives one direction is asked for several.
        WorkError: if the estimator gives vectors of another shape.
    """
    chosen, found = estimator(estimator_name), list[list[Direction]]()
    norms = mean_norms(harmful, harmless).tolist()
    for number, vectors in enumerate(fitted_parts(chosen, harmful, harmless, count), 1):
        for row, layer in enumerate(layers):
            if not vectors[row].any():
                same = torch.equal(harmful.mean[row], harmless.mean[row])
                raise _no_direction(f"at layer {layer} ({site}, position {position})", chosen.name, same)
        part = f", part {number} of {count}" if count > 1 else ""
        read = (provenance or Provenance()).replaced(method=chosen.name.replace("-", " ") + part)
        place = [read.replaced(mean_residual_norm=norm) for norm in norms]
        found.append(
            [
                from_raw(vector, name=name, layer=layer, position=position, site=site, provenance=facts)
                for layer, vector, facts in zip(layers, vectors, place, strict=True)
            ]
        )
    return found


def mean_norms(harmful: Side, harmless: Side) -> Float[Tensor, " layer"]:
    """The mean norm of the stream at each layer, over the instructions of both sides."""
    count = harmful.count + harmless.count
    return (harmful.mean_norm * harmful.count + harmless.mean_norm * harmless.count) / count


def _no_direction(place: str, name: str, same_means: bool) -> InputError:
    if same_means:
        return InputError(
            f"{place} harmful and harmless instructions have the same mean activation; this is always so for a template token at "
            "the first layer's input; choose a later layer"
        )
    return InputError(f"{place} the estimator {name!r} finds no direction; choose another layer")
