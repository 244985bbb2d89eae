"""Edits on a plain transformers model: `with steer(model, edit): model.generate(...)`.

Every forward pass and every `generate` call inside the context sees the edits: sampling, beams, several sequences, any cache.
What demur cannot vouch for is refused with its reason: drafted tokens, foreign decoding loops, compiled graphs.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn

from demur.core.errors import InputError, WorkError
from demur.engine.hooks import edited, refuse_compiled
from demur.interventions.intervention import Intervention, tabulate
from demur.models.device_placement import input_device
from demur.models.families import layout_of
from demur.models.layouts import d_model_of

_DRAFTS = (
    "drafts tokens that may be thrown away again, some of them in one pass with the prompt, so demur cannot tell where the "
    "prompt ends nor count what its edits did"
)
_LOOP = "replaces the decoding loop of transformers by another, whose forward passes demur does not know"
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
_BATCHING = "continuous batching packs several sequences into one row, so demur cannot tell which edit and which column is whose"


@contextmanager
def steer(model: nn.Module, *edits: Intervention) -> Iterator[nn.Module]:
    """Apply edits to any transformers causal language model, for every forward pass and `generate` call inside the context.

    The edits hold for every row of every batch, beams and samples included, with a cache or without one; `generate` does not
    compile inside. On leaving, also after an exception, the model is as it was. Raises `InputError` where the model's family has
    no layout, for a direction of another width, for a model that was compiled, whose graph would not see the edits, and for a way
    of decoding that cannot be steered; `WorkError` where an edit did not act, or no forward pass was made for it to act in.
    """
    if not edits:
        raise InputError("steer needs at least one edit: demur.add(direction, coefficient) or demur.ablate(direction)")
    refuse_compiled(model)
    # A PEFT wrapper calls the model inside it, which is where the blocks are.
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    layout = layout_of(inner.config)
    n_layers = len(layout.find_blocks(inner))
    table = tabulate([edits], layout, n_layers, d_model_of(inner), input_device(inner))
    scoped = any(edit.positions != "all" for edit in edits)
    with edited(inner, layout, table) as columns, _guarded(inner, scoped):
        yield model
    if columns.forwards == 0:
        raise WorkError("no forward pass was made inside steer, so the edits did nothing; call the model that was given to it")


@contextmanager
def _guarded(model: Any, scoped: bool) -> Iterator[None]:
    """While the context lasts, the model's own `generate` refuses what cannot be steered, and leaves compiling out."""
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
    raise InputError(f"{_BATCHING}; use generate, or demur.generate, which batches rows with edits of their own")


def _checked(generate: Callable[..., Any], own: Any, scoped: bool) -> Callable[..., Any]:
    signature = inspect.signature(generate)

    @wraps(generate)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        named = {**given, **given.get("kwargs", {})}
        configs = (named.get("generation_config"), own)

        def setting(name: str) -> Any:
            values = (named.get(name), *(getattr(config, name, None) for config in configs))
            return next((value for value in values if value is not None), None)

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
                "generated ones; use it with edits at all positions"
            )
        if scoped and setting("prefill_chunk_size"):
            raise InputError(
                "prefill_chunk_size passes a prompt in pieces, and a last one of one token looks like a generated one, so demur "
                "cannot tell where the prompt ends; leave it out, or use edits at all positions"
            )
        # A graph of an earlier call would not see the edits, and one made now would keep them.
        return generate(*args, **{**kwargs, "disable_compile": True})

    return guarded
