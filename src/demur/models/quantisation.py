"""Weights in 8 or 4 bits, by bitsandbytes: what is quantised, how, and how it is said of what was measured with it.

Quantised are linear maps; embeddings, the head, norms, and experts that a family keeps in one tensor stay in the dtype asked for.
So does the stream, and edits of it are computed in float32 or better as ever. Where bitsandbytes is missing, or finds nothing to
quantise, that is refused.
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
"""Of one quantised weight: nf4 keeps a float32 scale for every 64 weights."""

ROWS_MEET = "columns in higher precision chosen by a whole batch"
"""What is said of weights that come so quantised: a row's tokens then depend on the rows beside it."""


def check(name: str | None) -> None:
    """Raises `InputError` for a word that is not 8bit or 4bit, and where bitsandbytes is not installed."""
    if name is None:
        return
    if name not in get_args(Quantise):
        raise InputError(f"{name!r} is not a quantisation of weights; {nearest(name, get_args(Quantise))}")
    if find_spec("bitsandbytes") is None:
        raise InputError(f"weights in {name} need bitsandbytes, which is not installed; pip install 'demur[quantised]'")


def settings(name: str, dtype: "torch.dtype") -> "BitsAndBytesConfig":
    """How transformers is told: int8 of Dettmers et al. 2022 row by row, or nf4 of Dettmers et al. 2023, quantised once.

    LLM.int8 multiplies some columns in higher precision, and all rows of a batch decide together which: a baseline would depend
    on the edited rows beside it. So its threshold is 0, and each token's activations are rounded by themselves.
    """
    from transformers import BitsAndBytesConfig

    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_says_something_new)
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _says_something_new(record: logging.LogRecord) -> bool:
    # Said at every product in 8 bits; it is how int8 works.
    return "inputs will be cast" not in record.getMessage()


def counted(model: "nn.Module") -> tuple[int, int]:
    """(weights, quantised ones among them): each counted once, however it is stored."""
    import torch

    total = quantised = 0
    for weight in model.parameters():
        state = getattr(weight, "quant_state", None)
        count = weight.numel() if state is None else int(torch.Size(state.shape).numel())
        total += count
        quantised += count if state is not None or weight.dtype == torch.int8 else 0
    return total, quantised


def described(model: "PreTrainedModel") -> str | None:
    """How a model's weights are quantised, for provenance; None where they are not. Weights may come quantised from their folder.

    Raises `InputError` where bitsandbytes found nothing to quantise.
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
            "model; load it without quantise"
        )
    if getattr(found, "load_in_8bit", False):
        return "8bit (int8)" if found.llm_int8_threshold == 0 else f"8bit (int8, {ROWS_MEET})"
    return f"4bit ({found.bnb_4bit_quant_type}, computed in {found.bnb_4bit_compute_dtype})"


def compute_as_asked(model: "nn.Module") -> None:
    """Have bitsandbytes multiply 4-bit weights in the dtype that it was told, on every processor.

    On one with bfloat16 instructions its first pass would lay the weights out anew, round their scales, and multiply in bfloat16:
    the weights would no longer be those that were loaded, and results would differ between machines. It also fails there where a
    row does not hold whole blocks. Raises `InputError` where a pass did so before: the way back loses the scales.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            state = getattr(module.weight, "quant_state", None)
            if getattr(state, "packing_format_for_cpu", False):
                raise InputError(
                    "an earlier pass laid 4-bit weights out anew, for this processor's products in bfloat16; load them again "
                    "and hand the model to demur before it is used"
                )
            module.support_avx512bf16_for_cpu = False
