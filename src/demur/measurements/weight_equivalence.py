"""Checks, on a copy in memory, that ablation by hooks equals orthogonalising the weights that write to the stream.

The edit is that of Arditi et al. 2024, section 4.1: every matrix and bias that writes to the stream loses its component along
the direction. The copy is thrown away and nothing is exported. demur proves that it knows all weights that write to the stream:
if they are set to zero, no block may add anything.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from demur.core.errors import InputError, WorkError
from demur.directions.direction import Direction
from demur.engine.branch_recording import recorded_branches
from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import edited
from demur.inputs.handed.handed_arguments import check_checkpoint
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import Intervention, ablate
from demur.models.device_placement import bytes_by_device

WRITERS = (
    "o_proj", "out_proj", "c_proj", "dense", "down_proj", "dense_4h_to_h", "fc2", "fc_out", "wo", "w2", "ffn_out",
    "output_linear",
)  # fmt: skip
"""Names of the last linear map of a branch, in all families. `_prove` checks for each model that none is missing."""

TOLERANCE = 1e-3
"""Logits count as the same if they differ by at most this share of the largest logit. Rounding in float32 stays below it."""


@dataclass(frozen=True)
class Equivalence:
    """Largest absolute differences of next-token logits between hooks and edited weights, with the size of the logits.

    Attributes:
        untied: the difference if the copy's unembedding is not edited.
        tied: the difference if the copy's unembedding is its edited embedding; None for a model that does not tie them.
        left: the largest share of the embedded prompt, or of any block's contribution, that still lies along the direction after
            the weight edit.
        effect: the largest change that ablation by hooks makes.
        largest_logit: the largest entry of the unedited logits.
        explanation: says whether the two are the same and, if not, why.
    """

    untied: float
    tied: float | None
    left: float
    effect: float
    largest_logit: float
    explanation: str

    @property
    def holds(self) -> bool:
        """True if edited weights, as one would export them, give the same logits as hooks."""
        return max(self.untied, self.tied or 0.0) <= TOLERANCE * self.largest_logit


def equivalence(
    checkpoint: Checkpoint, direction: Direction | Intervention, prompts: Sequence[Sequence[int]] | None = None
) -> Equivalence:
    """Compare ablation by hooks with an orthogonalised copy of the weights: Arditi et al. 2024, section 4.1.

    The copy is made in memory, so there must be room for the weights twice.

    Args:
        checkpoint: the loaded checkpoint. It is not changed.
        direction: the direction that is ablated, or an edit of kind `ablate` at every layer, site and position.
        prompts: token ids of the prompts whose logits are compared; random ones unless given.

    Returns:
        How far the two differ.

    Raises:
        InputError: for any other edit, and if the direction has another width; or if the weights are quantised, spread over
            several devices, or in a lower precision than float32, whose rounding would be larger than the difference.
        WorkError: if it is not known which weights of the model write to the stream.

    Example:
        >>> import demur, torch
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> found = demur.equivalence(checkpoint, demur.from_raw(torch.ones(16), name="d", layer=1))
        >>> found.holds, found.explanation
        (True, 'Ablation by hooks and the edit of the weights are the same up to rounding.')
    """
    check_checkpoint(checkpoint)
    direction = _ablated(direction)
    _check_editable(checkpoint, direction)
    _prove(checkpoint)
    ids = [torch.tensor([list(one)], device=checkpoint.device) for one in prompts or _random_prompts(checkpoint)]
    table = tabulate([ablate(direction)], checkpoint.layout, checkpoint.n_layers, checkpoint.d_model, checkpoint.device)
    plain = _logits(checkpoint.model, ids)
    with edited(checkpoint.model, checkpoint.layout, table):
        hooked = _logits(checkpoint.model, ids)
    twin = copy.deepcopy(checkpoint.model)
    tied = _tied(twin)
    if tied:
        # First untied: the embedding loses the direction, and the unembedding keeps it, as it does with hooks.
        twin.get_output_embeddings().weight = nn.Parameter(twin.get_output_embeddings().weight.detach().clone())
    writers = _writers(twin, checkpoint)
    vector = direction.vector.to(checkpoint.device)
    for weight, axis in writers:
        _orthogonalise(weight, axis, vector)
    untied, left = float((_logits(twin, ids) - hooked).abs().max()), _left(twin, checkpoint, ids[0], vector)
    with_tied = None
    if tied:
        twin.get_output_embeddings().weight = twin.get_input_embeddings().weight
        with_tied = float((_logits(twin, ids) - hooked).abs().max())
    largest, effect = float(plain.abs().max()), float((plain - hooked).abs().max())
    return Equivalence(untied, with_tied, left, effect, largest, _explained(untied, with_tied, left, largest))


def _ablated(given: Direction | Intervention) -> Direction:
    """The direction that is ablated. Raises `InputError` for an edit that no orthogonalised weights equal."""
    if isinstance(given, Direction):
        return given
    if given.kind == "ablate" and given.direction is not None and given == ablate(given.direction):
        return given.direction
    why = {"affine": "it also puts back a component that is different at each point of the stream"}.get(
        given.kind, "only ablation at every layer, site and position does"
    )
    raise InputError(
        f"no orthogonalised weights equal this edit of kind {given.kind!r}: {why}; give a direction, or demur.ablate(direction)"
    )


def _check_editable(checkpoint: Checkpoint, direction: Direction) -> None:
    """Raises `InputError` if the weights cannot be compared with hooks, or the direction has another width."""
    if checkpoint.quantised is not None:
        raise InputError(
            f"weights in {checkpoint.quantised} cannot be orthogonalised without rounding them again; load them without quantise"
        )
    if torch.finfo(checkpoint.dtype).eps > torch.finfo(torch.float32).eps:
        raise InputError(
            f"in {checkpoint.dtype} logits are rounded by more than {TOLERANCE:g} of their size, so hooks and edited weights "
            "would differ by rounding alone; load the weights in float32"
        )
    if len(bytes_by_device(checkpoint.model)) > 1 or next(checkpoint.model.parameters()).device.type == "meta":
        raise InputError(
            "the weights are spread over several devices and cannot be edited in a copy; load them on one device, cpu or cuda"
        )
    if direction.vector.shape[0] != checkpoint.d_model:
        raise InputError(f"the direction has width {direction.vector.shape[0]}, the checkpoint's stream has {checkpoint.d_model}")


def _random_prompts(checkpoint: Checkpoint) -> list[list[int]]:
    vocabulary = int(checkpoint.model.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    drawn: list[list[int]] = torch.randint(1, vocabulary, (4, 12), generator=generator).tolist()
    return drawn


@torch.inference_mode()
def _logits(model: PreTrainedModel, prompts: Sequence[Tensor]) -> Float[Tensor, "prompt vocab"]:
    return torch.cat([model(input_ids=one, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu() for one in prompts])


def _tied(model: PreTrainedModel) -> bool:
    inside, outside = model.get_input_embeddings(), model.get_output_embeddings()
    return outside is not None and outside.weight is inside.weight


Writer = tuple[Tensor, int]
"""A weight and its axis of length d_model, along which it writes to the stream."""


def _writers(model: PreTrainedModel, checkpoint: Checkpoint) -> list[Writer]:
    d_model, embedding = checkpoint.d_model, model.get_input_embeddings().weight
    if embedding.shape[1] != d_model:
        raise WorkError(
            f"this model maps its embedding of width {embedding.shape[1]} to a stream of width {d_model}, so the embedding does "
            "not write to the stream itself; demur cannot compare the weights of such a model"
        )
    found: list[Writer] = [(embedding, 1)]
    # Embeddings of learned positions are added to the stream, like those of tokens.
    found += [
        (module.weight, 1)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module is not model.get_input_embeddings() and module.weight.shape[1] == d_model
    ]
    for block in checkpoint.layout.find_blocks(model):
        for path, module in block.named_modules():
            if path.rpartition(".")[2] in WRITERS:
                found += _of(module, d_model)
            elif isinstance(getattr(module, "down_proj", None), nn.Parameter):
                found += _experts(module, d_model)
    return found


def _of(module: nn.Module, d_model: int) -> list[Writer]:
    if isinstance(module, nn.Linear) and module.out_features == d_model:
        made = [(module.weight, 0)]
    elif isinstance(module, Conv1D) and module.nf == d_model:
        made = [(module.weight, 1)]
    else:
        return []
    return [*made, (module.bias, 0)] if module.bias is not None else made


def _experts(module: nn.Module, d_model: int) -> list[Writer]:
    """Mixtures of experts keep all down projections in one tensor: (expert, d_model, width) or (expert, width, d_model)."""
    weight: Tensor = module.down_proj  # type: ignore[assignment]
    axes = [axis for axis in (1, 2) if weight.shape[axis] == d_model]
    if len(axes) != 1:
        raise WorkError(f"the shape {tuple(weight.shape)} of the experts' tensor does not show which axis writes to the stream")
    bias = getattr(module, "down_proj_bias", None)
    return [(weight, axes[0])] + ([(bias, bias.ndim - 1)] if bias is not None else [])


@torch.no_grad()
def _prove(checkpoint: Checkpoint) -> None:
    """Check that no block changes the stream if all its weights that are known to write there are zero."""
    ids = torch.tensor([_random_prompts(checkpoint)[0]], device=checkpoint.device)
    twin = copy.deepcopy(checkpoint.model)
    for weight, _ in _writers(twin, checkpoint)[1:]:
        if not any(weight is module.weight for module in twin.modules() if isinstance(module, nn.Embedding)):
            weight.zero_()
    with recorded_branches(twin, checkpoint.layout) as seen, torch.inference_mode():
        twin(input_ids=ids, use_cache=False)
    for layer, one in seen.items():
        if (one.after - one.before).abs().max() > 0:
            raise WorkError(
                f"block {layer} of this {checkpoint.layout.family!r} model still adds to the stream when the weights known to "
                "write there are zero, so orthogonalising them would not be the complete edit"
            )


@torch.no_grad()
def _orthogonalise(weight: Tensor, axis: int, vector: Float[Tensor, " d_model"]) -> None:
    moved = weight.movedim(axis, -1).double()
    unit = vector.double() / vector.double().norm()
    weight.copy_((moved - (moved @ unit)[..., None] * unit).movedim(-1, axis).to(weight.dtype))


@torch.inference_mode()
def _left(model: PreTrainedModel, checkpoint: Checkpoint, ids: Tensor, vector: Float[Tensor, " d_model"]) -> float:
    with recorded_branches(model, checkpoint.layout) as seen:
        model(input_ids=ids, use_cache=False)
    unit = vector.cpu().double() / vector.cpu().double().norm()
    parts = [seen[0].before, *(part for one in seen.values() for part in (one.attention, one.mlp))]
    shares = [((part @ unit).abs() / part.norm(dim=-1)).max() for part in parts]
    return float(torch.stack(shares).max())


def _explained(untied: float, tied: float | None, left: float, largest: float) -> str:
    if untied > TOLERANCE * largest:
        return (
            f"A weight edit is not ablation here: up to {left:.2g} of what is written to the stream still lies along the "
            "direction, because there is a norm with a gain between the edited weights and the stream. Only hooks on the stream "
            "remove it."
        )
    if tied is not None and tied > TOLERANCE * largest:
        return (
            "Inside the blocks the two are the same. But this checkpoint's unembedding is its embedding, so the edit of the "
            "weights also removes the direction from the unembedding, and hooks do not. With an untied unembedding the two are "
            "the same."
        )
    return "Ablation by hooks and the edit of the weights are the same up to rounding."
