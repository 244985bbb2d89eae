"""What modules inside a block read and write at every token of some prompts: the place of transcoders."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from demur.core.progress import Progress, silent
from demur.directions.sae.sparse_autoencoder import ModulePoint
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.branch_recording import OutputChange, changed_outputs
from demur.engine.checkpoints import Checkpoint
from demur.models.layouts import branch

BATCH_TOKENS = 2048
"""The most tokens in a batch, all of whose activations are kept."""


def module_streams(
    checkpoint: Checkpoint,
    prompts: Sequence[tuple[int, ...]],
    points: Sequence[ModulePoint],
    *,
    progress: Progress = silent,
) -> list[tuple[Tensor, ...]]:
    """The activations at some points of modules.

    Args:
        checkpoint: the checkpoint.
        prompts: token ids of the prompts.
        points: the points.
        progress: called after each batch with the number of its prompts.

    Returns:
        For each prompt one tensor for each point, (token, width), float32 on the CPU.

    Raises:
        InputError: if a block has no such module.
    """
    blocks = checkpoint.layout.find_blocks(checkpoint.model)
    modules = [branch(blocks[one.layer], one.path) for one in points]
    found: dict[int, tuple[Tensor, ...]] = {}

    def work(indices: list[int]) -> list[tuple[Tensor, ...]]:
        ids, mask = pad_left([prompts[index] for index in indices], checkpoint.pad_id, checkpoint.device)
        kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def keeping(module: nn.Module) -> OutputChange:
            def keep(given: Tensor, output: Tensor) -> None:
                kept[module] = (given.float().cpu(), output.float().cpu())

            return keep

        with torch.inference_mode(), changed_outputs({one: keeping(one) for one in modules}):
            checkpoint.model(
                input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False, logits_to_keep=1
            )
        read = [kept[module][one.end == "output"] for module, one in zip(modules, points, strict=True)]
        # Some modules have rows and tokens in one dimension.
        whole = [one.reshape(len(indices), -1, one.shape[-1]) for one in read]
        return [tuple(one[row, -len(prompts[index]) :] for one in whole) for row, index in enumerate(indices)]

    for indices, streams in in_batches(list(map(len, prompts)), work, model=checkpoint.model, batch_tokens=BATCH_TOKENS):
        found |= zip(indices, streams, strict=True)
        progress(len(indices))
    return [found[index] for index in range(len(prompts))]
