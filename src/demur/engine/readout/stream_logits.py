"""What vectors of the residual stream say through a checkpoint's final norm and unembedding: the logit lens."""

import torch
from jaxtyping import Float
from torch import Tensor

from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import hooked
from demur.engine.model_state import state_of
from demur.models.layouts import point

TOGETHER = 32
"""How many vectors are put into one forward pass."""


@torch.inference_mode()
def stream_logits(checkpoint: Checkpoint, vectors: Float[Tensor, "vector d_model"]) -> Float[Tensor, "vector vocab"]:
    """The logits of vectors, as if each were the stream after the last block (nostalgebraist 2020, the logit lens).

    The model itself computes them: each vector replaces the stream at one token of a meaningless prompt. So every step after the
    last block is there, whatever the family does (norm, bias, scale, soft cap).

    Args:
        checkpoint: the checkpoint, run by the engine `transformers`.
        vectors: the vectors. Norms without a bias make their length meaningless.

    Returns:
        The logits, float32 on the CPU.
    """
    found = []
    for part in (vectors[start : start + TOGETHER] for start in range(0, len(vectors), TOGETHER)):
        given = part.to(checkpoint.device, checkpoint.dtype)[None]

        def replace(stream: Tensor, onto: Tensor, given: Tensor = given) -> Tensor:
            return given.to(stream.device, onto.dtype)

        where = point(checkpoint.n_layers - 1, "resid_post")
        ids = torch.full((1, len(part)), checkpoint.pad_id, device=checkpoint.device)
        with state_of(checkpoint.model).lock, hooked(checkpoint.model, checkpoint.layout, {where: replace}):
            output = checkpoint.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        found.append(output.logits[0].float().cpu())
    return torch.cat(found)
