"""Loads a checkpoint into the engine `vllm`, and proves that its stream can be read and edited there."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

from torch import nn

from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import LoadRequest
from demur.engine.vllm.stream_access import StreamAccess
from demur.engine.vllm.vllm_engine import VllmEngine
from demur.engine.vllm.vllm_proof import expected_numbers, prove_access
from demur.engine.vllm.vllm_runs import VllmRuns
from demur.models.freed_memory import free_memory
from demur.models.sources import at_hand, find_model

MOST_TOKENS = 8192
"""The most tokens of a prompt with its completion. vLLM sets memory aside for one forward pass over so many."""
AnyResult = TypeVar("AnyResult")
_DTYPES = ("float32", "bfloat16", "float16")


class VllmEngines:
    """Checkpoints that vLLM runs."""

    name: ClassVar[str] = "vllm"

    def load(self, request: LoadRequest) -> Checkpoint:
        """Read and check a checkpoint as the engine `transformers` does, then start vLLM on its files.

        Raises:
            InputError: if vLLM is not installed or runs on other devices, and for quantised weights and float64.
        """
        if request.quantise is not None:
            raise InputError("the engine 'vllm' does not quantise weights; leave quantise out, or use engine='transformers'")
        if request.dtype == "float64":
            raise InputError(f"the engine 'vllm' runs {', '.join(_DTYPES)}, not float64; use engine='transformers'")
        # Several processes are for several GPUs. One process is enough here, it ends with this one, and demur reaches the model
        # only in its own.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            import vllm  # noqa: F401
        except ImportError as error:
            reason = f"the engine 'vllm' needs vLLM, which cannot be imported ({error})"
            raise InputError(f"{reason}; pip install 'demur[vllm]' in an environment of its own") from error
        _check_device(request.device)
        # Read on the CPU, so that a GPU is left to vLLM.
        loaded: Checkpoint = registry("engine").get("transformers").load(replace(request, device="cpu"))
        found = _with_vllm(loaded, request)
        del loaded
        free_memory()
        return found


def _check_device(device: str) -> None:
    """Raises `InputError` for another device than the one that this build of vLLM takes."""
    from vllm.platforms import current_platform

    here = current_platform.device_type
    if device not in ("auto", here):
        raise InputError(
            f"vLLM runs on the device {here!r} here, not on {device!r}; name {here!r} or 'auto' (CUDA_VISIBLE_DEVICES says which "
            "GPU that is), or use engine='transformers'"
        )


def _with_vllm(loaded: Checkpoint, request: LoadRequest) -> Checkpoint:
    model, layout = loaded.model, loaded.layout
    most = min(int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048)), MOST_TOKENS)
    rows = loaded.embedding_rows
    assert rows is not None, "the engine transformers says how many rows its embedding has"
    expected = expected_numbers(loaded._transformers("transformers model"))
    source = at_hand(find_model(request.model, request.revision))
    with TemporaryDirectory() as folder:
        files = source.path
        if source.kind != "folder" or request.adapter is not None:
            # A GGUF file or a merged adapter: vLLM reads the weights as they are in memory now.
            model.save_pretrained(folder)
            files = Path(folder)
        runner = _running(request.name, lambda: _started(files, request.dtype, most))
    access, no_access = None, ""
    try:
        access = StreamAccess(_inner_model(runner), layout, row_starts)
    except InputError as error:
        no_access = str(error)
    cache = runner.llm_engine.vllm_config.cache_config
    block = int(cache.block_size)
    tokens = int(cache.num_gpu_blocks) * block
    runs = VllmRuns(runner, access, layout, loaded.n_layers, loaded.d_model, most, tokens, block)
    if access is not None:
        try:
            _running(request.name, lambda: prove_access(runs, expected, loaded.dtype))
        except (WorkError, InputError) as error:
            no_access = f"the proof of its residual stream failed: {error}"
    made = VllmEngine(
        runs=runs,
        tokenizer=loaded.tokenizer,
        dtype=loaded.dtype,
        stop_ids=loaded.stop_ids,
        pad_id=loaded.pad_id,
        embedding_rows=rows,
        no_access=no_access,
    )
    return replace(loaded, engine=made, facts={**loaded.facts, "engine": "vllm"})


def _running(name: str, call: Callable[[], AnyResult]) -> AnyResult:
    """What a call gives that runs vLLM. Raises `InputError` if vLLM fails, for example because it does not know a family."""
    try:
        return call()
    except (InputError, WorkError):
        raise
    except Exception as error:
        raise InputError(f"vLLM cannot run {name!r} ({type(error).__name__}: {error}); use engine='transformers'") from error


def _started(folder: Path | None, dtype: str, most: int) -> Any:
    from vllm import LLM

    # Without prefix caching, a row never depends on what was generated before. Eager, because a compiled graph has no hooks.
    # Every prompt runs in one piece, and every forward pass is done before the next begins, so that rows can be told apart.
    return LLM(
        model=str(folder),
        dtype=dtype,
        max_model_len=most,
        max_num_batched_tokens=max(most, MOST_TOKENS),
        enable_chunked_prefill=False,
        async_scheduling=False,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        enforce_eager=True,
        disable_log_stats=True,
        trust_remote_code=False,
    )


def _inner_model(runner: Any) -> nn.Module:
    """The module of vLLM. Raises `InputError` if it is in another process."""
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
        raise InputError(
            "vLLM runs the model in a process of its own, where demur does not reach it; set VLLM_ENABLE_V1_MULTIPROCESSING=0"
        )
    found = runner.apply_model(lambda model: model)
    if len(found) != 1 or not isinstance(found[0], nn.Module):
        raise InputError("vLLM runs the model in several parts, and demur reads and edits only a model in one part")
    return found[0]


def row_starts() -> list[int]:
    """Where each row starts among the tokens of the current forward pass, and where the last one ends.

    Raises:
        WorkError: if vLLM's attention does not say.
    """
    from vllm.forward_context import get_forward_context

    layers = get_forward_context().attn_metadata
    each = layers.values() if isinstance(layers, dict) else ()
    found = [one.query_start_loc for one in each if getattr(one, "query_start_loc", None) is not None]
    if not found:
        raise WorkError("vLLM's attention does not say where its rows start, so they cannot be told apart")
    starts: list[int] = found[0].tolist()
    return starts
