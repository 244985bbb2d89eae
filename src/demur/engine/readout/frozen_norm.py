"""A norm as the linear map that it is for given rows: its scale is frozen at what it is for these rows.

With a frozen scale, what a norm gives for a sum is the sum of what it gives for the parts (TransformerLens' convention). Nothing
is read from the norm's code or parameters: probes show its gains, its bias and whether it subtracts the mean, and its own output
proves the result.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from demur.core.errors import WorkError

EXACT = 1e-3
"""The frozen norm gives the norm's own output up to this part of its largest entry, which is rounding."""


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """A norm with the scale of given rows, in float64 on the CPU.

    Attributes:
        gains: what each coordinate is multiplied by, (d_model,).
        bias: what is added, (d_model,).
        centred: whether the mean over coordinates is subtracted first.
        scale: the frozen scale of each row, (row, 1).
    """

    gains: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool
    scale: Float[Tensor, "row 1"]

    def linear(self, part: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """What the norm gives for a part of its rows, without the bias.

        Args:
            part: a part of the stream of each row.
        """
        moved = part - part.mean(-1, keepdim=True) if self.centred else part
        return moved * self.gains * self.scale

    def transposed(self, along: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The vector whose product with a part is that of `along` with `linear` of the part.

        Args:
            along: a vector of the norm's output for each row.
        """
        found = along * self.gains * self.scale
        return found - found.mean(-1, keepdim=True) if self.centred else found


@torch.inference_mode()
def frozen_norm(
    module: nn.Module, given: Float[Tensor, "row d_model"], output: Float[Tensor, "row d_model"]
) -> FrozenNorm | None:
    """A norm as a linear map for given rows.

    Args:
        module: the norm.
        given: its input.
        output: its output for this input.

    Returns:
        The map; None if the module is no RMS or layer norm, or does not give this output.
    """
    width, like = given.shape[-1], next((one for one in module.parameters()), given)
    given, output = given.double().cpu(), output.double().cpu()

    def probe(vector: Tensor) -> Tensor:
        found: Tensor = module(vector.to(like.device, like.dtype)[None])[0]
        return found.double().cpu()

    signs = torch.ones(width, dtype=torch.float64)
    signs[1::2] = -1
    try:
        bias = probe(torch.zeros(width, dtype=torch.float64))
        # A constant vector is nothing but mean, so a norm that subtracts the mean gives its bias alone.
        centred = bool((probe(torch.ones(width, dtype=torch.float64)) - bias).abs().max() < 1e-4)
        flat = signs - signs.mean() if centred else signs
        gains = (probe(signs) - bias) / flat
    except (RuntimeError, IndexError, TypeError):  # a module with other inputs
        return None
    unscaled = FrozenNorm(gains, bias, centred, torch.ones(len(given), 1, dtype=torch.float64)).linear(given)
    scale = ((output - bias) * unscaled).sum(-1, keepdim=True) / unscaled.pow(2).sum(-1, keepdim=True).clamp(min=1e-300)
    found = FrozenNorm(gains, bias, centred, scale)
    gap = (found.linear(given) + bias - output).abs().max()
    return found if bool(gap <= EXACT * output.abs().max()) else None


def final_norm(model: nn.Module, blocks: list[nn.Module], given: Tensor, output: Tensor, name: str) -> FrozenNorm:
    """The norm between the last block and the unembedding.

    Args:
        model: the model.
        blocks: its blocks.
        given: the stream after the last block, (row, d_model).
        output: the input of the unembedding for the same rows.
        name: the checkpoint's name, for the error.

    Raises:
        WorkError: if no norm of the model gives this output.
    """
    inside = {one for block in blocks for one in block.modules()}
    for module in model.modules():
        # Another width means that a further map comes after the norm.
        if module not in inside and "Norm" in type(module).__name__ and given.shape == output.shape:
            found = frozen_norm(module, given, output)
            if found is not None:
                return found
    raise WorkError(
        f"no norm of {name!r} leads from the last block to the unembedding, so logits cannot be attributed to components; leave "
        "the measurement attribution out for this model"
    )
