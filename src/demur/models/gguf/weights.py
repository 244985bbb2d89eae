"""The weights of a GGUF file as those of a transformers model, none missing, none left over.

Names come from gguf-py's table, and the reordering of rows (llama.cpp stores queries and keys of the Llama family in another
order, Gemma's norms plus one, GPT-2's matrices transposed) from transformers' own converters for this format. What these do
not know, they skip without a word; so each tensor of the file is counted here.
"""

from typing import TYPE_CHECKING

from demur.core.errors import InputError
from demur.models.gguf.metadata import Facts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers.modeling_gguf_pytorch_utils import TensorProcessor

_IN_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that belong to the config: `rotary_positions.py` reads them."""

_ALWAYS_TIED = ("bloom", "falcon")
"""Files of these repeat the embedding as unembedding, although their models have one weight for both."""


def fill(model: "PreTrainedModel", facts: Facts, *, zero_biases: bool) -> "PreTrainedModel":
    """Give a model on the meta device the weights of a file, in float32.

    Args:
        model: the model as its config describes it.
        facts: the file.
        zero_biases: whether a kind of bias that no layer of the file has is zero: some families have all biases or none, and a
            file only those that it uses.

    Returns:
        The model with its weights on the CPU.

    Raises:
        InputError: if the file lacks a weight, holds one that the model has no place for, or one of another shape.
    """
    import torch

    expected = model.state_dict()
    found = _converted(model, facts)
    for name, weight in found.items():
        if name in expected and expected[name].shape != weight.shape:
            raise InputError(
                f"the weight {name!r} of {facts.name} is {tuple(weight.shape)}, but its keys speak of "
                f"{tuple(expected[name].shape)}"
            )
    if zero_biases:
        stated = {_kind(name) for name in found}
        found |= {
            name: torch.zeros(one.shape) for name, one in expected.items() if name.endswith(".bias") and _kind(name) not in stated
        }
    model.load_state_dict(found, strict=False, assign=True)
    if facts.architecture in _ALWAYS_TIED and _repeats_embedding(facts):
        model.config.tie_word_embeddings = True
    model.tie_weights()
    missing = sorted(name for name, weight in model.named_parameters() if weight.is_meta)
    if missing:
        raise InputError(f"{facts.name} lacks {len(missing)} weights, such as {missing[0]!r}; fetch it again")
    return model.eval()


def _converted(model: "PreTrainedModel", facts: Facts) -> "dict[str, torch.Tensor]":
    """The file's tensors by the names of the model."""
    import torch
    from gguf import dequantize
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

    processor = TENSOR_PROCESSORS.get(facts.architecture, TensorProcessor)(config=_for_processor(model))
    places = _places(model, facts, processor)
    _require_places(facts, places)
    # Experts and GPT-2's unembedding are put here by the processor itself, which then gives no name back.
    gathered: dict[str, dict[str, torch.Tensor]] = {"tensors": {}}
    found = gathered["tensors"]
    for name, tensor in facts.tensors.items():
        if name in _IN_CONFIG:
            continue
        values = dequantize(tensor.data, tensor.tensor_type)
        done = processor.process(weights=values, name=name, tensor_key_mapping=places, parsed_parameters=gathered)
        if done.name is not None:
            # The array may be a view of the file, which the model must not keep open.
            found[places[done.name]] = torch.from_numpy(done.weights.copy())
    return found


def _places(model: "PreTrainedModel", facts: Facts, processor: "TensorProcessor") -> dict[str, str]:
    """The name in the model of each tensor that a file of this architecture can have.

    transformers has a function for this too, which makes gguf-py's table anew for each module: 20 s for SmolLM2-135M.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(key for key, name in MODEL_ARCH_NAMES.items() if name == facts.architecture)
    table = get_tensor_name_map(kind, model.config.num_hidden_layers)
    found: dict[str, str] = {}
    for full in model.state_dict():
        name = processor.preprocess_name(full)
        stem, _, ending = name.rpartition(".")
        if ending not in ("weight", "bias"):
            stem, ending = name, ""
        parts, suffix = stem.split("."), f".{ending}" if ending else ""
        # The table has some names as they are in a part of the model, such as BLOOM's without `transformer.` in front.
        place = next((one for cut in range(len(parts)) if (one := table.get_name(".".join(parts[cut:]))) is not None), None)
        if place is None:
            processor.perform_fallback_tensor_mapping(found, suffix, "", name)
        else:
            found.setdefault(place + suffix, name)
    return found


def _require_places(facts: Facts, places: "dict[str, str]") -> None:
    """Check that the model has a place for each tensor of the file."""
    stacked = {f"{name}.weight" for name in places if name.endswith("_exps")}
    unknown = sorted(name for name in facts.tensors if name not in places and name not in _IN_CONFIG and name not in stacked)
    if unknown:
        raise InputError(
            f"{facts.name} holds {len(unknown)} tensors that transformers' {facts.architecture} has no place for, such as "
            f"{unknown[0]!r}, so its numbers would not be those of this model; give the checkpoint as a hub id or a folder"
        )


def _for_processor(model: "PreTrainedModel") -> dict[str, int]:
    """The sizes that transformers' converters of tensors ask for, under their names."""
    config = model.config
    heads = int(config.num_attention_heads)
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": int(getattr(config, "num_key_value_heads", None) or heads),
        "n_head": heads,
        "hidden_size": int(config.hidden_size),
    }


def _kind(name: str) -> str:
    """The name of a weight without the number of its layer."""
    return ".".join(part for part in name.split(".") if not part.isdigit())


def _repeats_embedding(facts: Facts) -> bool:
    embedding, head = facts.tensors["token_embd.weight"], facts.tensors.get("output.weight")
    return head is not None and head.tensor_type == embedding.tensor_type and bool((head.data == embedding.data).all())
