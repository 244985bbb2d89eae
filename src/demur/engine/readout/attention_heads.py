"""The last linear map of a block's attention, which mixes the heads, and what each head adds through it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.models.layouts import branch


@dataclass(frozen=True, eq=False)
class HeadProjection:
    """The last linear map of one block's attention. Its input is the output of all heads, one after the other.

    Attributes:
        module: the linear map.
        n_heads: the number of heads.
    """

    module: nn.Module
    n_heads: int

    @property
    def weight(self) -> Float[Tensor, "d_model heads_width"]:
        """The matrix by which the heads' outputs are multiplied."""
        found = self.module.get_parameter("weight").detach()
        # GPT-2 keeps its linear maps transposed (transformers' Conv1D).
        return found if isinstance(self.module, nn.Linear) else found.T

    def of_head(self, head: int) -> slice:
        """The places of one head in the input."""
        width = self.weight.shape[1] // self.n_heads
        return slice(head * width, (head + 1) * width)

    def written(self, given: Float[Tensor, "... heads_width"], head: int) -> Float[Tensor, "... d_model"]:
        """What one head adds to the map's output.

        Args:
            given: the input of the map.
            head: the head.
        """
        own = self.of_head(head)
        weight = self.weight[:, own]
        return given[..., own].to(weight.device, weight.dtype) @ weight.T


def head_projections(checkpoint: Checkpoint) -> list[HeadProjection]:
    """The last linear map of each block's attention.

    Args:
        checkpoint: the checkpoint, run by the engine `transformers`.

    Raises:
        InputError: if an attention has no such map. `direct_attribution` proves in its forward passes that it is the right one.
    """
    heads = int(checkpoint.model.config.get_text_config().num_attention_heads)
    found = []
    for layer, block in enumerate(checkpoint.layout.find_blocks(checkpoint.model)):
        at = branch(block, checkpoint.layout.attention)
        # In families with a norm after attention, the layout names this norm. The attention is then another module of the block.
        places = [at] if _maps(at) else [one for one in block.modules() if "Attention" in type(one).__name__]
        maps = [one for place in places for one in _maps(place)]
        fitting = [one for one in maps if _shape(one)[0] == checkpoint.d_model and _shape(one)[1] % heads == 0]
        if not fitting:
            raise InputError(
                f"the attention of layer {layer} of {checkpoint.name!r} ({checkpoint.layout.family}) has no linear "
                "map from its heads to the stream, so single heads cannot be told apart"
            )
        found.append(HeadProjection(fitting[-1], heads))
    return found


def _maps(module: nn.Module) -> list[nn.Module]:
    """The linear maps in a module. The one that mixes the heads is defined after those of queries, keys and values."""
    return [one for one in module.modules() if isinstance(one, nn.Linear) or type(one).__name__ == "Conv1D"]


def _shape(module: nn.Module) -> torch.Size:
    """Outputs and inputs of a linear map."""
    weight = module.get_parameter("weight")
    return weight.shape if isinstance(module, nn.Linear) else weight.T.shape
