"""Weights and tokenizer from files, whole or refused: transformers and peft fill in at random, or leave out, what does not fit.

Only tensors are read of older files, and no code of a checkpoint runs. An adapter is merged, or stays beside weights that are
quantised.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from demur.core.errors import InputError, WorkError
from demur.models import gguf_files, quantisation
from demur.models.device_placement import MaxMemory, spread_loaded, spread_options
from demur.models.families import layout_of
from demur.models.layouts import Layout
from demur.models.sources import Source, fetch

_BROKEN_ADAPTER = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, UnpicklingError)


_BUFFER = re.compile(r"(attn|attention)\.(bias|masked_bias)$|\binv_freq$")
"""Causal masks and rotary frequencies, which older files hold as if they were weights."""


@dataclass(frozen=True)
class Wanted:
    """How weights are to be held; a device of None spreads them."""

    dtype: torch.dtype
    quantise: str | None
    device: torch.device | None
    max_memory: MaxMemory | None


def load(
    model: str, source: Source, adapter: str | None, adapter_folder: Path | None, wanted: Wanted
) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer of a source.

    Raises `InputError` where a file cannot be read, where weights are missing, left over or of another shape than the config
    says, and where an adapter does not fit; `WorkError` where the weights do not fit into memory.
    """
    folder = gguf_files.convert(fetch(source)) if source.kind == "gguf" else fetch(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exceptions for a file that is not its own
        raise InputError(f"the tokenizer of {model!r} cannot be loaded by transformers: {_first_line(error)}") from error
    with _told(model):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    layout = layout_of(config)
    if wanted.quantise is not None and getattr(config, "quantization_config", None) is not None:
        raise InputError(f"the weights of {model!r} are quantised already; leave quantise={wanted.quantise!r} out")
    options: dict[str, Any] = {}
    offload = None
    if wanted.quantise is not None:
        options = {"quantization_config": quantisation.settings(wanted.quantise, wanted.dtype), "device_map": {"": wanted.device}}
    elif getattr(config, "quantization_config", None) is not None and wanted.device is not None:
        # Such weights stay where they are loaded.
        options = {"device_map": {"": wanted.device}}
    if wanted.device is None and (adapter_folder is None or wanted.quantise is not None):
        placed, offload = spread_options(wanted.max_memory)
        options |= placed
    with _told(model):
        # Never code from a checkpoint, and of a .bin file never more than tensors.
        loaded, report = auto_class(config).from_pretrained(
            folder,
            dtype=wanted.dtype,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    check_whole(model, report, layout)
    if adapter_folder is not None:
        try:
            loaded = _adapted(loaded, adapter_folder)
        except _BROKEN_ADAPTER as error:
            raise InputError(f"adapter {adapter!r} does not fit {model!r}: {_first_line(error)}") from error
        if wanted.device is None and offload is None:
            offload = spread_loaded(loaded, wanted.max_memory)
    if offload is not None:
        # What is on the disk is there as long as the model is.
        loaded.offload_folder = offload
    elif quantisation.described(loaded) is None:
        with _told(model):
            loaded = loaded.to(wanted.device)
    return loaded, tokenizer


def check_whole(model: str, report: Mapping[str, Any], layout: Layout) -> None:
    """Whether weights are those that the config speaks of, by transformers' report on loading. Raises `InputError` where not.

    Weights that are left over count inside blocks only: there they would have taken part, as a norm of a newer family does.
    """
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(f"the weight {name!r} of {model!r} is {tuple(found)}, but its config speaks of {tuple(expected)}")
    # Left in, they would be drawn at random.
    for name in sorted(report["missing_keys"]):
        raise InputError(
            f"{len(report['missing_keys'])} weights of {model!r} are missing, such as {name!r}; fetch the files again"
        )
    inside = re.compile(rf"(^|\.){layout.blocks.rpartition('.')[2]}\.\d+\.")
    left = sorted(name for name in report["unexpected_keys"] if inside.search(name) and not _BUFFER.search(name))
    if left:
        raise InputError(
            f"{model!r} holds {len(left)} weights in its blocks that its config does not speak of, such as {left[0]!r}; its "
            "config.json is not that of these weights"
        )


@contextmanager
def _told(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, UnpicklingError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise WorkError(
                f"the weights of {model!r} do not fit into memory; use dtype bfloat16, quantise 8bit or 4bit, or device spread"
            ) from error
        raise InputError(f"the weights of {model!r} cannot be loaded by transformers: {_first_line(error)}") from error


def _adapted(loaded: PreTrainedModel, folder: Path) -> PreTrainedModel:
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    adapted = PeftModel.from_pretrained(loaded, str(folder))
    # Read again, because what peft does not find it leaves at its beginning, where an adapter does nothing.
    report = set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
    missing = [name for name in report.missing_keys if f".{adapted.active_adapter}." in name]
    if missing or report.unexpected_keys:
        problem = f"it lacks {missing[0]!r}" if missing else f"it holds {report.unexpected_keys[0]!r}, which has no place"
        raise InputError(problem)
    if quantisation.described(loaded) is not None:
        # Merged into quantised weights, the sum would be rounded to their few values.
        return adapted.get_base_model()
    _untie(loaded)
    return adapted.merge_and_unload()


def _untie(model: PreTrainedModel) -> None:
    """Where embedding and unembedding are one weight and an adapter sits on one of them, make them two.

    Merged into the weight of both, what was trained at one end would act at the other end too.
    """
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    bases = [getattr(end, "base_layer", end) for end in ends]
    adapted = any(end is not base for end, base in zip(ends, bases, strict=True))
    if adapted and bases[0].weight is getattr(bases[1], "weight", None):
        bases[1].weight = torch.nn.Parameter(bases[1].weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def auto_class(config: Any) -> Any:
    """The class that loads a config's weights: a model that also sees is not among the causal language models."""
    sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def _first_line(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it needs code that comes with it, and demur runs no code of a checkpoint; there is no flag for it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A first line that ends in a colon says nothing yet; what a KeyError says is a name and no more.
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__} {line}".strip() if not lines or isinstance(error, KeyError) else line
