"""Loads weights and tokenizer. All weights are checked, because transformers and peft silently skip or randomise some.

Only tensors are read from `.bin` files, and no code of a checkpoint runs. An adapter is merged into the weights, unless they are
quantised. It then stays separate.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
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
"""Causal masks and rotary frequencies. Older files store them as if they were weights."""


@dataclass(frozen=True)
class Wanted:
    """How to load weights.

    Attributes:
        dtype: their precision.
        quantise: `8bit`, `4bit` or None.
        device: where to put them; None spreads them over several devices.
        max_memory: how much of each device to use when spreading.
    """

    dtype: torch.dtype
    quantise: str | None
    device: torch.device | None
    max_memory: MaxMemory | None


def load(
    model: str, source: Source, adapter: str | None, adapter_folder: Path | None, wanted: Wanted
) -> tuple[PreTrainedModel, Any]:
    """Load a model and its tokenizer.

    Args:
        model: the name of the model in error messages.
        source: its files.
        adapter: the name of the adapter in error messages.
        adapter_folder: the adapter's folder; None for no adapter.
        wanted: how to load the weights.

    Returns:
        The model and its transformers tokenizer.

    Raises:
        InputError: if a file cannot be read, if weights are missing, left over or of another shape than the config says, or if
            an adapter does not fit.
        WorkError: if the weights do not fit into memory.
    """
    folder = gguf_files.convert(fetch(source)) if source.kind == "gguf" else fetch(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exceptions for a file that is not its own
        raise InputError(f"the tokenizer of {model!r} cannot be loaded by transformers: {_first_line(error)}") from error
    with _named_errors(model):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    layout = layout_of(config)
    stored_quantised = getattr(config, "quantization_config", None) is not None
    if wanted.quantise is not None and stored_quantised:
        raise InputError(f"the weights of {model!r} are quantised already; leave quantise={wanted.quantise!r} out")
    # Weights are spread after an adapter is merged into them. An adapter on quantised weights stays separate.
    spread_now = wanted.device is None and (adapter_folder is None or wanted.quantise is not None)
    options, offload = _placement(wanted, stored_quantised, spread_now)
    with _named_errors(model):
        # Never run code from a checkpoint, and read only tensors from a .bin file.
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
    return _placed(model, loaded, offload, wanted), tokenizer


def _placement(
    wanted: Wanted, stored_quantised: bool, spread_now: bool
) -> tuple[dict[str, object], TemporaryDirectory[str] | None]:
    """Keyword arguments of `from_pretrained` for devices and quantisation, and the folder for weights that go to the disk."""
    options: dict[str, object] = {}
    if wanted.quantise is not None:
        options = {"quantization_config": quantisation.settings(wanted.quantise, wanted.dtype), "device_map": {"": wanted.device}}
    elif stored_quantised and wanted.device is not None:
        # Quantised weights cannot be moved after they are loaded.
        options = {"device_map": {"": wanted.device}}
    if not spread_now:
        return options, None
    placed, offload = spread_options(wanted.max_memory)
    return options | placed, offload


def _placed(model: str, loaded: PreTrainedModel, offload: TemporaryDirectory[str] | None, wanted: Wanted) -> PreTrainedModel:
    """The model on its device, or spread over several."""
    if wanted.device is None and offload is None:
        offload = spread_loaded(loaded, wanted.max_memory)
    if offload is not None:
        # The folder is deleted with this object, so the model must keep it as long as its weights may be on disk.
        loaded.offload_folder = offload
    elif quantisation.described(loaded) is None:
        with _named_errors(model):
            return loaded.to(wanted.device)
    return loaded


# Any: the report of transformers has sets, lists and dicts by key.
def check_whole(model: str, report: Mapping[str, Any], layout: Layout) -> None:
    """Check, by transformers' report on loading, that the weights are those that the config describes.

    Args:
        model: the name of the model in error messages.
        report: what `from_pretrained` returns with `output_loading_info`.
        layout: where the blocks are. Left-over weights matter only inside blocks, because there they would have been part of the
            computation, such as a norm that only a newer family has.

    Raises:
        InputError: for the first weight that is missing, left over or of another shape.
    """
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(f"the weight {name!r} of {model!r} is {tuple(found)}, but its config says {tuple(expected)}")
    # transformers has filled missing weights with random numbers.
    for name in sorted(report["missing_keys"]):
        raise InputError(
            f"{len(report['missing_keys'])} weights of {model!r} are missing, such as {name!r}; fetch the files again"
        )
    inside = re.compile(rf"(^|\.){layout.blocks.rpartition('.')[2]}\.\d+\.")
    unused = sorted(name for name in report["unexpected_keys"] if inside.search(name) and not _BUFFER.search(name))
    if unused:
        raise InputError(
            f"{model!r} holds {len(unused)} weights in its blocks that its config does not describe, such as {unused[0]!r}; its "
            "config.json does not belong to these weights"
        )


@contextmanager
def _named_errors(model: str) -> Iterator[None]:
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
    # The adapter is loaded a second time for the report. Weights that peft does not find keep their initial values, and such an
    # adapter does nothing.
    report = set_peft_model_state_dict(adapted, load_peft_weights(str(folder), device="cpu"))
    missing = [name for name in report.missing_keys if f".{adapted.active_adapter}." in name]
    if missing or report.unexpected_keys:
        problem = (
            f"it lacks {missing[0]!r}" if missing else f"it holds {report.unexpected_keys[0]!r}, which has no place in the model"
        )
        raise InputError(problem)
    if quantisation.described(loaded) is not None:
        # Not merged, because the sum would be rounded to the few values of quantised weights.
        return adapted.get_base_model()
    _untie(loaded)
    return adapted.merge_and_unload()


def _untie(model: PreTrainedModel) -> None:
    """Give embedding and unembedding separate weights where they share one and an adapter changes only one of them.

    Merging the adapter into a shared weight would change both.
    """
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    bases = [getattr(end, "base_layer", end) for end in ends]
    adapted = any(end is not base for end, base in zip(ends, bases, strict=True))
    if adapted and bases[0].weight is getattr(bases[1], "weight", None):
        bases[1].weight = torch.nn.Parameter(bases[1].weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def auto_class(config: Any) -> Any:
    """The transformers class that loads a config's weights: models that also read images have a class of their own."""
    reads_images = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if reads_images else AutoModelForCausalLM


def _first_line(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it needs code that comes with the checkpoint, and demur never runs such code; no option allows it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A first line that ends with a colon needs the next one, and the text of a KeyError is only a name.
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__} {line}".strip() if not lines or isinstance(error, KeyError) else line
