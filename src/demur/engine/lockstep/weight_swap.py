"""Puts weights of one checkpoint into another, in memory, and takes them out again.

Source of the interpolation: Ilharco et al. 2023 (arXiv 2212.04089, task vectors). Whole tensors are exchanged without a copy.
Tensors that are computed are written over the target's own, whose values wait in a temporary folder meanwhile. So both
checkpoints and one tensor are all that is in memory.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy
import torch
from torch import Tensor, nn

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.engine.lockstep.matched_pair import MatchedPair

ROWS = 4096
"""So many rows of a weight are kept, mixed or restored at a time, because a vocabulary is large."""

Part = Literal["attention", "mlp", "norm", "embedding", "unembedding", "final"]

Difference = Callable[[str, Tensor], Tensor]
"""Gets the name of a weight and the source's weight minus the target's, in float64, and gives what is added in its place."""


@dataclass(frozen=True)
class WeightPlace:
    """Where a weight belongs.

    Attributes:
        part: `attention`, `mlp` or `norm` of a layer; `embedding`, `unembedding`; or `final` for what comes after the last layer.
        layer: the layer; None outside the layers.
    """

    part: Part
    layer: int | None = None


def weight_places(checkpoint: Checkpoint) -> dict[str, WeightPlace]:
    """The place of every weight of a checkpoint, by its name. A weight that is used twice, as a tied embedding, is there once."""
    model = checkpoint.model
    named = dict(model.named_parameters())
    names = {id(weight): name for name, weight in named.items()}
    found: dict[str, WeightPlace] = {}
    for layer, block in enumerate(checkpoint.layout.find_blocks(model)):
        for module, part in _parts(block, "mlp").items():
            for weight in module.parameters(recurse=False):
                found[names[id(weight)]] = WeightPlace(part, layer)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    for weight in () if head is None else head.parameters():
        found[names[id(weight)]] = WeightPlace("unembedding")
    for weight in embedding.parameters():
        found[names[id(weight)]] = WeightPlace("embedding")
    for module, part in _parts(model, "embedding").items():
        for weight in module.parameters(recurse=False):
            found.setdefault(names[id(weight)], WeightPlace("final" if part == "norm" else "embedding"))
    return found


def _parts(root: nn.Module, other: Part, inherited: Part | None = None) -> dict[nn.Module, Part]:
    """The part of every module in another one. transformers calls all its classes of attention and of norms so."""
    kind = type(root).__name__
    own: Part | None = "norm" if "Norm" in kind else "attention" if "Attention" in kind else inherited
    found: dict[nn.Module, Part] = {root: own or other}
    for child in root.children():
        found |= _parts(child, other, own)
    return found


def check_swap(pair: MatchedPair) -> None:
    """Check that the weights of a pair can be exchanged.

    Raises:
        InputError: for quantised weights, for weights that only one checkpoint has (such as an unembedding that is tied to the
            embedding in the other one), and for weights of another shape. Only rows of a vocabulary may be more in one of them.
    """
    for one in (pair.source, pair.target):
        if one.quantised is not None:
            raise InputError(
                f"the weights of {one.name!r} are quantised ({one.quantised}) and cannot be mixed; load them without"
            )
    theirs, mine = (dict(one.model.named_parameters()) for one in (pair.source, pair.target))
    alone = sorted(theirs.keys() ^ mine.keys())
    if alone:
        raise InputError(
            f"only one of {pair.source.name!r} and {pair.target.name!r} has the weight {alone[0]!r}, so their weights cannot be "
            "exchanged; this happens if only one of them ties its unembedding to its embedding"
        )
    places = weight_places(pair.target)
    for name, weight in mine.items():
        shapes = tuple(theirs[name].shape), tuple(weight.shape)
        vocabulary = places[name].part in ("embedding", "unembedding") and shapes[0][1:] == shapes[1][1:]
        if shapes[0] != shapes[1] and not vocabulary:
            raise InputError(
                f"the weight {name!r} has shape {shapes[0]} in {pair.source.name!r} and {shapes[1]} in {pair.target.name!r}, so "
                "it cannot be exchanged"
            )


@contextmanager
def exchanged(
    pair: MatchedPair,
    names: Collection[str],
    share: float = 1.0,
    scrambled: int | None = None,
    changed: Difference | None = None,
) -> Iterator[None]:
    """Inside, some weights of the target are target + share (source - target). Afterwards they are what they were, to the bit.

    Args:
        pair: the checkpoints; see `check_swap`.
        names: the names of the weights.
        share: 0 for the target's weights, 1 for the source's. Of a vocabulary that one checkpoint has more rows of, the rows that
            both have are exchanged.
        scrambled: for a null: the seed of a permutation of the entries of each difference, which keeps its norm.
        changed: what is added in the place of each difference; the difference itself unless given.
    """
    theirs, mine = (dict(one.model.named_parameters()) for one in (pair.source, pair.target))
    with ExitStack() as stack, torch.no_grad():
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="demur-weights-")))
        for number, name in enumerate(sorted(names)):
            weight, other = mine[name], theirs[name]
            alike = (weight.shape, weight.dtype, weight.device) == (other.shape, other.dtype, other.device)
            if share == 1 and scrambled is None and changed is None and alike:
                stack.callback(_point, weight, weight.data)
                weight.data = other.data
            elif share != 0:
                kept = folder / str(number)
                _keep(weight, kept)
                stack.callback(_restore, weight, kept)
                if changed is not None:
                    _mix(weight, other, share, partial(changed, name), torch.float64)
                else:
                    change = None if scrambled is None else partial(_permuted, scrambled + number)
                    _mix(weight, other, share, change, torch.promote_types(weight.dtype, torch.float32))
        yield


def _point(weight: nn.Parameter, values: Tensor) -> None:
    weight.data = values


def _keep(weight: nn.Parameter, kept: Path) -> None:
    """Write the values of a weight to a file, some rows at a time."""
    with kept.open("wb") as file:
        for part in torch.split(weight.detach(), ROWS):
            part.cpu().contiguous().view(torch.uint8).numpy().tofile(file)


@torch.no_grad()
def _restore(weight: nn.Parameter, kept: Path) -> None:
    # Written in place, and not through `.data`, so that prepacked weights see the change.
    with kept.open("rb") as file:
        for part in torch.split(weight, ROWS):
            values = torch.from_numpy(numpy.fromfile(file, dtype=numpy.uint8, count=part.nbytes))
            part.copy_(values.view(part.dtype).view(part.shape))
    kept.unlink()


def _mix(
    weight: nn.Parameter, other: Tensor, share: float, change: Callable[[Tensor], Tensor] | None, working: torch.dtype
) -> None:
    """Add a share of the difference, or of what `change` makes of it, in a working precision."""
    rows = min(weight.shape[0], other.shape[0])
    if share == 1 and change is None:
        weight[:rows].copy_(other[:rows])
        return
    # The change, if there is one, needs all rows.
    for start in range(0, rows, ROWS if change is None else rows):
        part = slice(start, min(start + ROWS, rows) if change is None else rows)
        own = weight[part].to(working)
        difference = other[part].to(weight.device, working) - own
        weight[part].copy_((own + share * (difference if change is None else change(difference))).to(weight.dtype))


def _permuted(seed: int, difference: Tensor) -> Tensor:
    order = torch.randperm(difference.numel(), generator=torch.Generator().manual_seed(seed)).to(difference.device)
    return difference.flatten()[order].reshape(difference.shape)


def names_in(places: Mapping[str, WeightPlace], parts: Collection[str] = (), layers: Collection[int] | None = None) -> list[str]:
    """The names of the weights of some parts and layers.

    Args:
        places: the places of the weights.
        parts: the parts; all if empty.
        layers: the layers; None for every place, also outside the layers.
    """
    return [
        name for name, place in places.items() if (not parts or place.part in parts) and (layers is None or place.layer in layers)
    ]
