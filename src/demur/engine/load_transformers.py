"""Loads a checkpoint into the transformers engine."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from demur.core.errors import InputError, nearest
from demur.engine.checkpoints import Checkpoint, wrap
from demur.engine.engine_protocol import LoadRequest
from demur.models import quantisation
from demur.models.device_placement import find_device
from demur.models.file_digests import ADAPTER_WEIGHTS, check_downloads, digest_of_files, weight_files
from demur.models.fingerprint import settings_digest
from demur.models.load_weights import Wanted, load
from demur.models.sources import Source, at_hand, find_adapter, find_model
from demur.models.third_party_logs import quiet_transformers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class TransformersEngines:
    """Checkpoints that transformers loads and runs in this process."""

    name: ClassVar[str] = "transformers"

    def load(self, request: LoadRequest) -> Checkpoint:
        """Load, merge, prove and fingerprint a checkpoint; see `demur.load_checkpoint`."""
        source = find_model(request.model, request.revision)
        adapter_folder = None if request.adapter is None else find_adapter(request.adapter)
        wanted = Wanted(_dtype(request.dtype), request.quantise, find_device(request.device), request.max_memory)
        quantisation.check(request.quantise)
        source = at_hand(source)
        content = _content(request, source, adapter_folder)
        with quiet_transformers():
            loaded = load(request.model, source, request.adapter, adapter_folder, wanted)
        made = wrap(
            loaded.model,
            loaded.tokenizer,
            name=request.name,
            source=source.describe(),
            adapter=request.adapter,
            content=content,
        )
        commit = {} if source.revision is None else {"revision": source.revision}
        configs = ((source.path, "config.json"), (adapter_folder, "adapter_config.json"))
        files = [folder / name for folder, name in configs if folder]
        whose = {} if loaded.tokenizer_said is None else {"tokenizer": loaded.tokenizer_said}
        facts = {**made.facts, **commit, **whose, "settings": settings_digest(files)}
        return replace(made, facts=facts, warnings=loaded.warnings)


def _content(request: LoadRequest, source: Source, adapter_folder: Path | None) -> str:
    """The digest of every byte of the weight files. Downloads that are not what the hub describes are refused."""
    assert source.path is not None
    check_downloads(request.model, source.path)
    files = [source.path] if source.kind == "gguf" else weight_files(source.path)
    if adapter_folder is not None:
        check_downloads(str(request.adapter), adapter_folder, ADAPTER_WEIGHTS)
        files += weight_files(adapter_folder, ADAPTER_WEIGHTS)
    return digest_of_files(files)


def _dtype(name: str) -> torch.dtype:
    if name in quantisation.BYTES:
        raise InputError(f"{name!r} is a quantisation, not a dtype; use quantise={name!r}")
    if name not in DTYPES:
        raise InputError(f"{name!r} is not a dtype of weights; {nearest(name, DTYPES)}")
    return DTYPES[name]
