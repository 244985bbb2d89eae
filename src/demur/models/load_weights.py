"""Loads weights and tokenizer. All weights are checked, because transformers and peft silently skip or randomise some.

Only tensors are read from `.bin` files, and no code of a checkpoint runs. `models/adapters` puts an adapter on the weights.
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
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from demur.core.errors import InputError, WorkError
from demur.models import gguf_files, quantisation, sole_answers
from demur.models.adapters.adapter_settings import check_settings, other_base, read_settings
from demur.models.adapters.adapter_tokenizer import UsedTokenizer, tokenizer_of
from demur.models.adapters.merged_adapter import put_on
from demur.models.device_placement import MaxMemory, spread_loaded, spread_options
from demur.models.families import layout_of
from demur.models.layouts import Layout
from demur.models.library_errors import first_line
from demur.models.sources import Source, fetch
from demur.models.tokenizers import embedding_rows, load_tokenizer, notes_of, require_rows

_NO_SUBFOLDER = "demur-looks-for-no-adapter-here"


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


@dataclass(frozen=True)
class Loaded:
    """What was loaded.

    Attributes:
        model: the model, with its adapter if it has one.
        tokenizer: its transformers tokenizer.
        tokenizer_said: whose tokenizer this is, for provenance; None if it is the base's own.
        warnings: sentences for readers about files that say something else than was named.
    """

    model: PreTrainedModel
    tokenizer: Any
    tokenizer_said: str | None
    warnings: tuple[str, ...]


def load(model: str, source: Source, adapter: str | None, adapter_folder: Path | None, wanted: Wanted) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        model: the name of the model in error messages.
        source: its files.
        adapter: the name of the adapter in error messages.
        adapter_folder: the adapter's folder; None for no adapter.
        wanted: how to load the weights.

    Returns:
        The model with its adapter, and the tokenizer.

    Raises:
        InputError: if a file cannot be read, if weights are missing, left over or of another shape than the config says, if a
            folder holds several different answers, or if an adapter does not fit.
        WorkError: if the weights do not fit into memory.
    """
    folder = _folder(source)
    sole_answers.refuse_unnamed_adapter(model, source, adapter)
    if adapter is not None and adapter_folder is not None:
        check_settings(adapter, adapter_folder)
        sole_answers.refuse_other_adapter_weights(adapter, adapter_folder)
    tokenizer = _tokenizer(model, folder)
    config = _config(model, folder)
    layout = layout_of(config)
    sole_answers.refuse_other_weights(model, folder, config)
    used = UsedTokenizer(tokenizer, False, None)
    if adapter is not None and adapter_folder is not None:
        used = tokenizer_of(adapter, adapter_folder, tokenizer, config)
    loaded, offload = _weights(model, folder, config, layout, adapter_folder, wanted)
    told = _about_files(folder, loaded, tokenizer)
    if adapter is not None and adapter_folder is not None:
        loaded = put_on(model, loaded, adapter, adapter_folder, used)
        told += _about_adapter(source, adapter, adapter_folder, used)
    require_rows(model, used.tokenizer, embedding_rows(loaded))
    told += [f"The tokenizer: {note}." for note in notes_of(used.tokenizer)]
    return Loaded(_placed(model, loaded, offload, wanted), used.tokenizer, used.said, tuple(told))


def checkpoint_tokenizer(model: str, source: Source, adapter: str | None, adapter_folder: Path | None) -> Any:
    """The tokenizer that a checkpoint will have, read without its weights.

    Args:
        model: the name of the model in error messages.
        source: its files.
        adapter: the name of the adapter in error messages.
        adapter_folder: the adapter's folder; None for no adapter.

    Raises:
        InputError: if a file cannot be read.
    """
    folder = _folder(source)
    tokenizer = _tokenizer(model, folder)
    if adapter is None or adapter_folder is None:
        return tokenizer
    return tokenizer_of(adapter, adapter_folder, tokenizer, _config(model, folder)).tokenizer


def _folder(source: Source) -> Path:
    return gguf_files.convert(fetch(source)) if source.kind == "gguf" else fetch(source)


def _config(model: str, folder: Path) -> Any:
    with _named_errors(model):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _tokenizer(model: str, folder: Path) -> Any:
    sole_answers.stored_template(repr(model), folder)
    try:
        found = load_tokenizer(model, folder)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises plain Exceptions for a file that is not its own
        raise InputError(f"the tokenizer of {model!r} cannot be loaded by transformers: {first_line(error)}") from error
    if not getattr(found, "chat_template", None):
        # Models that also read images may have the template here, where only their processor looks for it.
        found.chat_template = sole_answers.template_inside(folder / "chat_template.json")
    return found


def _weights(
    model: str, folder: Path, config: Any, layout: Layout, adapter_folder: Path | None, wanted: Wanted
) -> tuple[PreTrainedModel, TemporaryDirectory[str] | None]:
    """The model without an adapter, and the folder for weights that go to the disk."""
    stored_quantised = getattr(config, "quantization_config", None) is not None
    if wanted.quantise is not None and stored_quantised:
        raise InputError(f"the weights of {model!r} are quantised already; leave quantise={wanted.quantise!r} out")
    # Weights are spread after an adapter is merged into them. An adapter on quantised weights stays separate.
    quantised = wanted.quantise is not None or stored_quantised
    spread_now = wanted.device is None and (adapter_folder is None or quantised)
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
            # transformers would put an adapter that lies in this folder on the model by itself. It finds none in this subfolder.
            adapter_kwargs={"subfolder": _NO_SUBFOLDER},
            **options,
        )
    check_whole(model, report, layout)
    return loaded, offload


def _about_files(folder: Path, loaded: PreTrainedModel, tokenizer: Any) -> list[str]:
    """Sentences about what a reader would not expect from the name of a model. The model is still without an adapter."""
    found, config = [], loaded.config
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        found.append("The config names code of its own, which demur does not run; transformers' class for its family is used.")
    ends = [getattr(end, "weight", None) for end in (loaded.get_input_embeddings(), loaded.get_output_embeddings())]
    # Weights that are on the disk have placeholders, which are never the same object.
    here = all(end is not None and end.device.type != "meta" for end in ends)
    if config.tie_word_embeddings and here and ends[0] is not ends[1]:
        found.append("The config says that embedding and unembedding are one weight, but the files hold two; both are used.")
    other = sole_answers.template_inside(folder / "chat_template.json")
    if other is not None and other == tokenizer.chat_template and sole_answers.stored_template("", folder) is None:
        found.append("The chat template is that of chat_template.json, because the tokenizer has none.")
    return found


def _about_adapter(source: Source, adapter: str, folder: Path, used: UsedTokenizer) -> list[str]:
    """Sentences about what a reader would not expect from the name of an adapter."""
    found = [] if used.said is None else [f"The tokenizer is {used.said}."]
    other = other_base(read_settings(adapter, folder), source)
    if other is not None:
        found.append(f"The adapter {adapter} was trained on {other}, and is put on {source.describe()}.")
    return found


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
    unused = sorted(name for name in report["unexpected_keys"] if inside.search(name) and not sole_answers.BUFFER.search(name))
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
        raise InputError(f"the weights of {model!r} cannot be loaded by transformers: {first_line(error)}") from error


def auto_class(config: Any) -> Any:
    """The transformers class that loads a config's weights: models that also read images have a class of their own."""
    reads_images = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if reads_images else AutoModelForCausalLM
