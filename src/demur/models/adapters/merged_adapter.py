"""An adapter put on a model: merged into its weights, or left beside them where they are quantised.

Merging is proved. The model runs over a few tokens with the adapter beside its weights and again with the merged weights, and the
logits must be the same up to rounding. peft merges some adapters into other numbers without an error, for example if two modules
share the weight that it adds to (huggingface/peft#1707).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from demur.core.errors import InputError
from demur.models import quantisation
from demur.models.adapters.adapter_settings import read_settings, refuse_settings
from demur.models.adapters.adapter_tokenizer import UsedTokenizer
from demur.models.adapters.added_tokens import fit_vocabulary, single_tokens
from demur.models.device_placement import input_device, weights_dtype
from demur.models.library_errors import first_line
from demur.models.tokenizers import embedding_rows

_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    SafetensorError,
    UnpicklingError,
)

TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.2}
"""The largest allowed change of a logit by merging, relative to the largest logit.

Beside float64 weights, peft computes in float32. Weights in 16 bits are rounded again when something is added to them. The
demo's adapter is merged within 6e-6 of the largest logit in float32, 0.006 in float16 and 0.04 in bfloat16."""

_PROBE = 16
"""How many tokens the model runs over."""


def put_on(model: str, loaded: PreTrainedModel, adapter: str, folder: Path, used: UsedTokenizer) -> PreTrainedModel:
    """Put an adapter on a model.

    Args:
        model: the name of the model in error messages.
        loaded: the model. It is changed.
        adapter: the name of the adapter in error messages.
        folder: the adapter's folder.
        used: the tokenizer that will be used with the adapter.

    Returns:
        The model with merged weights, or with the adapter beside them if they are quantised.

    Raises:
        InputError: if the adapter lacks weights, has weights that have no place, cannot be merged, or gives other logits once it
            is merged.
    """
    try:
        return _put_on(loaded, adapter, folder, used)
    except _BROKEN as error:
        raise InputError(f"adapter {adapter!r} does not fit {model!r}: {first_line(error)}") from error


def unwrapped(model: PreTrainedModel, name: str) -> tuple[PreTrainedModel, tuple[str, str] | None]:
    """The transformers model inside a PEFT model, whose blocks hold the active adapters.

    Args:
        model: a transformers model or a PEFT model around one.
        name: its name in error messages.

    Returns:
        The transformers model. For a PEFT model also the names of its active adapters, and a text that differs between states of
        the adapters that have equal weights, for the fingerprint.

    Raises:
        InputError: for an adapter that acts outside of the transformers model, or after certain tokens only.
    """
    if not hasattr(model, "peft_config") or not hasattr(model, "get_base_model"):
        return model, None
    from peft.tuners.tuners_utils import BaseTunerLayer

    inside: PreTrainedModel = model.get_base_model()
    model.eval()
    quantisation.compute_as_asked(inside)
    active = [model.active_adapter] if isinstance(model.active_adapter, str) else list(model.active_adapter)
    for adapter in active:
        refuse_settings(adapter, model.peft_config[adapter].to_dict(), merged=False)
    ids = _probe(inside, {})
    try:
        _prove_same(_logits(model, ids), _logits(inside, ids), weights_dtype(inside), "run without the rest of peft")
    except _BROKEN as error:
        raise InputError(f"the PEFT model {name!r} cannot be wrapped: {first_line(error)}") from error
    tuned = [module for module in inside.modules() if isinstance(module, BaseTunerLayer)]
    states = [(list(one.active_adapters), bool(one.disable_adapters), str(getattr(one, "scaling", ""))) for one in tuned]
    off = bool(states) and all(disabled for _, disabled, _ in states)
    return inside, (", ".join(active) + (" (disabled)" if off else ""), str(states))


def _put_on(loaded: PreTrainedModel, adapter: str, folder: Path, used: UsedTokenizer) -> PreTrainedModel:
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    # Before the first forward pass, which would otherwise rearrange 4-bit weights.
    quantisation.compute_as_asked(loaded)
    settings = read_settings(adapter, folder)
    _refuse_unknown_settings(settings)
    weights: Mapping[str, Tensor] = load_peft_weights(str(folder), device="cpu")
    fit_vocabulary(loaded, weights, settings, used.tokenizer, own=used.own)
    adapted = PeftModel.from_pretrained(loaded, str(folder))
    # The adapter is loaded a second time for the report. Weights that peft does not find keep their initial values, and such an
    # adapter does nothing.
    report = set_peft_model_state_dict(adapted, _once(weights))
    missing = [name for name in report.missing_keys if f".{adapted.active_adapter}." in name]
    surplus = [name for name in report.unexpected_keys if not _is_copy(name, weights, report.unexpected_keys)]
    if missing or surplus:
        raise InputError(f"it lacks {missing[0]!r}" if missing else f"it holds {surplus[0]!r}, which has no place in the model")
    adapted.eval()
    ids = _probe(loaded, settings)
    beside = _logits(adapted, ids)
    if quantisation.described(loaded) is not None:
        # Not merged, because the sum would be rounded to the few values of quantised weights.
        made, done = adapted.get_base_model(), "run without the rest of peft"
    else:
        _untie(loaded)
        made, done = adapted.merge_and_unload(), "merged"
    _prove_same(beside, _logits(made, ids), weights_dtype(made), done)
    return made


def _once(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those that a file holds twice.

    For a module that was trained whole after tokens were added, peft saves the module and also its wrapper, which holds a copy of
    it and of the original. It ignores the wrapper when it loads the file.
    """
    found = dict(weights)
    for name, weight in weights.items():
        for copied in (".modules_to_save.", ".original_module."):
            plain = weights.get(name.replace(copied, "."))
            same = plain is not None and (copied == ".original_module." or torch.equal(plain, weight))
            if copied in name and same:
                del found[name]
    return found


def _is_copy(name: str, weights: Mapping[str, Tensor], unplaced: Sequence[str]) -> bool:
    """Whether a weight is a copy for the other end of tied embeddings, of single tokens that were trained. peft saves both."""
    part = ".token_adapter."
    same = [one for one in weights if part in name and one.partition(part)[2] == name.partition(part)[2] and one not in unplaced]
    return any(torch.equal(weights[one], weights[name]) for one in same)


def _refuse_unknown_settings(settings: Mapping[str, object]) -> None:
    """Refuse settings that the installed peft would drop with a warning. A setting that is off changes nothing."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = settings.get("peft_type")
    known: Mapping[str, Any] = {str(getattr(name, "value", name)): made for name, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known:
        raise InputError(f"it is of the kind {kind!r}, which the installed peft does not know; update peft")
    names = {field.name for field in fields(known[str(kind)])} | {"runtime_config"}
    unknown = sorted(name for name, value in settings.items() if name not in names and value)
    if unknown:
        raise InputError(
            f"its setting {unknown[0]}={settings[unknown[0]]!r} is not known to the installed peft, which would ignore it; "
            "update peft, or remove the setting if it changes nothing"
        )


def _probe(model: PreTrainedModel, settings: Mapping[str, object]) -> Tensor:
    """A row of token ids from the whole vocabulary, with its last token and those that were trained one by one."""
    rows = embedding_rows(model)
    ids = torch.linspace(min(1, rows - 1), rows - 1, _PROBE).long().tolist()
    single = [index for index in single_tokens(settings) if index < rows]
    return torch.tensor([ids + single[:_PROBE]], device=input_device(model))


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids, use_cache=False).logits.detach().double().cpu()
    return found


def _prove_same(beside: Tensor, found: Tensor, dtype: torch.dtype, done: str) -> None:
    if not bool(torch.isfinite(beside).all()):
        # Weights that are not finite are refused, in better words, by the proof of the sites.
        return
    off, largest = float((found - beside).abs().max()), float(beside.abs().max())
    # Written so that NaN is refused.
    if not off <= TOLERANCE[dtype] * max(largest, 1e-6):
        raise InputError(
            f"once it is {done}, logits differ by {off:.2g} from those with the adapter beside the weights (the largest logit is "
            f"{largest:.2g}, weights are {dtype}), so it would not be the adapter that was trained; merge it with the program "
            "that trained it and load the merged model" + ("" if dtype == torch.float32 else ", or use dtype float32")
        )


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
