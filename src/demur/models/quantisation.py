"""Weights in 8 or 4 bits, by bitsandbytes: what is quantised, how, and how provenance describes it.

Only linear maps are quantised. Embeddings, the head, norms, and experts that a family keeps in one tensor stay in the requested
dtype. The stream also stays in that dtype, and its edits are computed in float32 or better, as always. It is an error if
bitsandbytes is missing or finds nothing to quantise.
"""

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, get_args

from demur.core.errors import InputError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedModel

Quantise = Literal["8bit", "4bit"]
BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""Bytes of one quantised weight. nf4 keeps a float32 scale for every 64 weights."""

ROWS_MEET = "outlier columns that depend on the batch"
"""How provenance describes int8 weights with such columns. The tokens of a row then depend on the other rows of its batch."""


def check(name: str | None) -> None:
    """Check a quantisation by name.

    Raises:
        InputError: for a name that is not `8bit` or `4bit`, and if bitsandbytes is not installed.
    """
    if name is None:
        return
    if name not in get_args(Quantise):
        raise InputError(f"{name!r} is not a quantisation of weights; {nearest(name, get_args(Quantise))}")
    if find_spec("bitsandbytes") is None:
        raise InputError(f"weights in {name} need bitsandbytes, which is not installed; pip install 'demur[quantised]'")


def settings(name: str, dtype: "torch.dtype") -> "BitsAndBytesConfig":
    """The settings for transformers: int8 (Dettmers et al. 2022) or nf4 (Dettmers et al. 2023), without double quantisation.

    LLM.int8 multiplies some columns in higher precision, and all rows of a batch decide together which ones. A baseline would
    then depend on the edited rows in its batch. A threshold of 0 prevents this: each token is then rounded separately.
    """
    from transformers import BitsAndBytesConfig

    # This filter holds for the whole process. It only hides one message. Adding the same filter again does nothing.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_says_something_new)
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _says_something_new(record: logging.LogRecord) -> bool:
    # bitsandbytes logs this at every 8-bit product, although it is normal for int8.
    return "inputs will be cast" not in record.getMessage()


def counted(model: "nn.Module") -> tuple[int, int]:
    """(weights, quantised weights among them), each counted once however it is stored."""
    import torch

    total = quantised = 0
    for weight in model.parameters():
        state = getattr(weight, "quant_state", None)
        count = weight.numel() if state is None else int(torch.Size(state.shape).numel())
        total += count
        quantised += count if state is not None or weight.dtype == torch.int8 else 0
    return total, quantised


def described(model: "PreTrainedModel") -> str | None:
    """How a model's weights are quantised, for provenance; None if they are not. They may have been stored quantised.

    Raises:
        InputError: if bitsandbytes found nothing to quantise.
    """
    found: Any = getattr(model.config, "quantization_config", None)
    if found is None or not getattr(model, "is_quantized", True):
        return None
    method = getattr(found, "quant_method", None) or (found.get("quant_method") if isinstance(found, dict) else None)
    if getattr(method, "value", method) != "bitsandbytes":
        return str(getattr(method, "value", method))
    if counted(model)[1] == 0:
        raise InputError(
            f"bitsandbytes quantises plain linear maps outside the head, and finds none in this {model.config.model_type!r} "
            "model; load it without quantise, or take quantization_config out of its config.json if its weights are plain"
        )
    if getattr(found, "load_in_8bit", False):
        return "8bit (int8)" if found.llm_int8_threshold == 0 else f"8bit (int8, {ROWS_MEET})"
    return f"4bit ({found.bnb_4bit_quant_type}, computed in {found.bnb_4bit_compute_dtype})"


def compute_as_asked(model: "nn.Module") -> None:
    """Make bitsandbytes multiply 4-bit weights in the dtype that was asked for, on every CPU.

    On a CPU with bfloat16 instructions, its first forward pass would rearrange the weights, round their scales, and multiply in
    bfloat16. The weights would then no longer be those that were loaded, and results would differ between machines. It also fails
    for rows whose length is not a multiple of a quantisation block.

    Raises:
        InputError: if a forward pass has done so already, because the original scales are lost then.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            state = getattr(module.weight, "quant_state", None)
            if getattr(state, "packing_format_for_cpu", False):
                raise InputError(
                    "an earlier forward pass rearranged the 4-bit weights for bfloat16 on this CPU; load the model again and "
                    "give it to demur before its first forward pass"
                )
            module.support_avx512bf16_for_cpu = False
