"""Edits of a plain transformers model: `with steer(model, edit): model.generate(...)`.

Every forward pass and every `generate` call inside the context sees the edits: sampling, beams, several sequences, any cache.
demur refuses ways of decoding in which it cannot know whether its edits act: drafted tokens, custom decoding loops, compiled
graphs. The error gives the reason.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn

from demur.core.errors import InputError, WorkError
from demur.engine.checkpoints import Checkpoint
from demur.engine.hooks import edited, refuse_compiled
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import Intervention
from demur.models.device_placement import input_device
from demur.models.families import layout_of
from demur.models.layouts import d_model_of

_DRAFTS = (
    "drafts tokens that may be discarded, some of them in the same pass as the prompt, so demur cannot tell where the prompt "
    "ends or where its edits acted"
)
_LOOP = "replaces the decoding loop of transformers by one whose forward passes demur cannot follow"
_REFUSED = {
    "assistant_model": _DRAFTS,
    "assistant_early_exit": _DRAFTS,
    "prompt_lookup_num_tokens": _DRAFTS,
    "use_mtp": _DRAFTS,
    "custom_generate": _LOOP,
    "penalty_alpha": _LOOP,
    "dola_layers": _LOOP,
    "constraints": _LOOP,
    "force_words_ids": _LOOP,
}
_BATCHING = "continuous batching packs several sequences into one row, so demur cannot tell which edits a token has"


@contextmanager
def steer(model: nn.Module | Checkpoint, *edits: Intervention) -> Iterator[nn.Module]:
    """Apply edits to any transformers causal language model, for every forward pass and `generate` call inside the context.

    The edits act on every row of every batch, beams and samples included, with a KV cache or without one. `generate` does not
    compile inside. At the end of the context, even after an exception, the model is as it was before.

    Args:
        model: a transformers causal language model, a PEFT model around one, or a checkpoint that transformers runs.
        *edits: one or more edits, which act in order.

    Yields:
        The model; that of the checkpoint, if one was given.

    Raises:
        InputError: if the model's family has no layout, for a direction of another width, for a model that was compiled, and
            for a way of decoding that cannot be steered.
        WorkError: if an edit did not act, or no forward pass was made inside.

    Example:
        >>> import demur, torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> model, ids = LlamaForCausalLM(config).eval(), torch.tensor([[3, 4, 5]])
        >>> plain = model(ids).logits
        >>> direction = demur.from_raw(torch.ones(16), name="d", layer=1)
        >>> with demur.steer(model, demur.add(direction, 4.0)):
        ...     edited = model(ids).logits
        >>> bool((edited != plain).any()), bool((model(ids).logits == plain).all())
        (True, True)
    """
    if not edits:
        raise InputError("steer needs at least one edit: demur.add(direction, coefficient) or demur.ablate(direction)")
    model = model.model if isinstance(model, Checkpoint) else model
    if not hasattr(model, "config"):
        raise InputError(f"steer was given a {type(model).__name__}; expected a transformers model, or a checkpoint of demur")
    refuse_compiled(model)
    # A PEFT wrapper calls the model that it wraps, and the blocks are in that model.
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    layout = layout_of(inner.config)
    n_layers = len(layout.find_blocks(inner))
    table = tabulate([edits], layout, n_layers, d_model_of(inner), input_device(inner))
    scoped = any(edit.positions != "all" for edit in edits)
    with edited(inner, layout, table) as boundary, _guarded(inner, scoped):
        yield model
    if boundary.forwards == 0:
        raise WorkError("no forward pass was made inside steer, so the edits did nothing; call the model that was given to steer")


@contextmanager
def _guarded(model: Any, scoped: bool) -> Iterator[None]:
    """Inside, the model's `generate` refuses settings that cannot be steered, and does not compile."""
    guards: dict[str, Callable[..., Any]] = {}
    if hasattr(model, "generate"):
        guards["generate"] = _checked(model.generate, model.generation_config, scoped)
    for name in ("generate_batch", "init_continuous_batching"):
        if hasattr(model, name):
            guards[name] = _refusing
    before = {name: vars(model)[name] for name in guards if name in vars(model)}
    try:
        for name, guard in guards.items():
            setattr(model, name, guard)
        yield
    finally:
        for name in guards:
            if name in before:
                setattr(model, name, before[name])
            else:
                delattr(model, name)


def _refusing(*_: Any, **__: Any) -> Any:
    """Takes the place of the methods for continuous batching."""
    raise InputError(f"{_BATCHING}; use generate, or demur.generate, which batches rows with edits of their own")


def _checked(generate: Callable[..., Any], own: Any, scoped: bool) -> Callable[..., Any]:
    """A `generate` that first refuses settings that cannot be steered. `own` is the model's generation config."""
    signature = inspect.signature(generate)

    @wraps(generate)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        named = {**given, **given.get("kwargs", {})}
        configs = (named.get("generation_config"), own)

        def setting(name: str) -> Any:
            values = (named.get(name), *(getattr(config, name, None) for config in configs))
            return next((value for value in values if value is not None), None)

        _refuse_settings(setting, scoped)
        # A compiled graph of an earlier call would ignore the edits. One made now would keep them after the context.
        return generate(*args, **{**kwargs, "disable_compile": True})

    return guarded


def _refuse_settings(setting: Callable[[str], Any], scoped: bool) -> None:
    """Raises `InputError` for a setting of `generate` that cannot be steered. `scoped` edits need to know the prompt's end."""
    for name, reason in _REFUSED.items():
        if setting(name):
            raise InputError(f"{name} {reason}; leave it out while edits act")
    if (setting("num_beam_groups") or 1) > 1:
        raise InputError(f"num_beam_groups {_LOOP}; leave it out while edits act")
    if setting("cache_implementation") == "paged":
        raise InputError(f"{_BATCHING}; use another cache_implementation")
    if scoped and setting("guidance_scale") not in (None, 1):
        raise InputError(
            "guidance_scale runs a second prompt between the steps of the first, so demur cannot tell prompt positions from "
            "generated ones; leave it out, or use edits at all positions"
        )
    if scoped and setting("prefill_chunk_size"):
        raise InputError(
            "prefill_chunk_size passes a prompt in pieces, and a last piece of one token looks like a generated token, so demur "
            "cannot tell where the prompt ends; leave it out, or use edits at all positions"
        )
