"""The KV cache of branches. Keys and values of a prompt are kept once for all branches of it, and of a branch its own tokens.

A forward pass gets whole keys and values, which are put together in one layer after the other and freed again. So a step takes
much less memory than with a copy of the prompt's keys and values for each branch, and less time, because less is copied.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class BranchLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer for some branches.

    Attributes:
        of: for each branch, the place of its prompt in `prompts`.
        prompts: keys and values of the prompts, (prompt, head, seq, width).
        own: keys and values of the tokens after the prompts, (branch, head, seq, width).
    """

    def __init__(self, of: Int[Tensor, " branch"], prompts: Sequence[Tensor], own: Sequence[Tensor]) -> None:
        """Take keys and values; no tensor is copied or changed."""
        super().__init__()
        self.lazy_initialization(*prompts)
        self.of, self.prompts, self.own = of, prompts, own

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append new tokens, and give all keys and values of each branch; transformers calls this in each forward pass."""
        new = (key_states, value_states)
        self.own = tuple(torch.cat((own, one), dim=2) for own, one in zip(self.own, new, strict=True))
        keys, values = (self._whole(prompts, own) for prompts, own in zip(self.prompts, self.own, strict=True))
        return keys, values

    def get_seq_length(self) -> int:
        """The number of tokens, padding included."""
        return int(self.prompts[0].shape[2] + self.own[0].shape[2])

    def chosen(self, places: Int[Tensor, " branch"]) -> "BranchLayer":
        """Some of the branches, some of them several times."""
        at = places.to(self.of.device)
        return BranchLayer(self.of[at], self.prompts, tuple(own[at] for own in self.own))

    def _whole(self, prompts: Tensor, own: Tensor) -> Tensor:
        width = prompts.shape[2]
        whole = own.new_empty(*own.shape[:2], width + own.shape[2], own.shape[3])
        if whole.device.type == "cpu":
            # A fifth of the time of the general way. On other devices, a result in a part of a tensor is not tested.
            torch.index_select(prompts, 0, self.of, out=whole[:, :, :width])
        else:
            whole[:, :, :width] = prompts[self.of]
        whole[:, :, width:] = own
        return whole


def chosen_branches(cache: DynamicCache, places: Int[Tensor, " branch"]) -> DynamicCache:
    """A cache of some rows of another cache, some of them several times. The other cache stays as it is.

    Args:
        cache: the cache of some prompts, or of some branches.
        places: the places of the rows, on the CPU.
    """
    chosen = DynamicCache()
    chosen.layers = [_chosen(layer, places) for layer in cache.layers]
    return chosen


def _chosen(layer: DynamicLayer, places: Int[Tensor, " branch"]) -> DynamicLayer:
    if isinstance(layer, BranchLayer):
        return layer.chosen(places)
    if not layer.is_initialized:
        # Layers that text does not run through have no keys and values.
        return DynamicLayer()
    prompts = (layer.keys, layer.values)
    at = places.to(layer.keys.device)
    return BranchLayer(at, prompts, tuple(one.new_empty(len(at), one.shape[1], 0, one.shape[3]) for one in prompts))
