"""GGUF files: each is converted once into a folder of float32 safetensors, which is cached with the facts of its header.

Opening a GGUF file takes about twenty seconds, and opening a converted folder about two. The cache key covers every byte
of the file, the version of transformers, and that of the conversion. What a file states is read, applied or refused in the
package `demur.models.gguf`.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from safetensors import SafetensorError

from demur.core.atomic_files import cannot_write, replace_file
from demur.core.errors import DemurError, InputError, WorkError
from demur.models.file_digests import cache_folder, sha256_of
from demur.models.gguf.content_kinds import require_one_model
from demur.models.gguf.metadata import read_facts
from demur.models.gguf.tokenizer_keys import stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Header:
    """The facts in a GGUF file about its weights.

    Attributes:
        weights: the number of all weights.
        linear: those in the matrices of the blocks.
        head: those of the unembedding.
        embedding: those of the embedding.
        settings: the integer settings of its architecture, such as `block_count`.
    """

    weights: int
    linear: int
    head: int
    embedding: int
    settings: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int] | None:
        """(layers, width); None if the file does not say."""
        layers, width = self.settings.get("block_count"), self.settings.get("embedding_length")
        return None if layers is None or width is None else (layers, width)


def header(path: Path) -> Header:
    """Read the facts in a GGUF file about its weights. This takes seconds, so they are kept in the cache of conversions.

    Raises:
        InputError: for a file that cannot be read.
    """
    return _header(path, _content_digest(path))


# The header is also kept in this process, because planning asks for it several times and the cache folder may not be writable.
# The key is the content of the file, so a file that was replaced is read again.
@lru_cache(maxsize=32)
def _header(path: Path, content: str) -> Header:
    kept = _in_cache(path, content, "header.json")
    with suppress(OSError, ValueError, TypeError):
        return Header(**json.loads(kept.read_text(encoding="utf-8")))
    found = _read_header(path)
    # If the cache cannot be written, the next process reads the header again. Nothing else changes.
    with suppress(DemurError):
        replace_file(kept, json.dumps(asdict(found)))
    return found


def _read_header(path: Path) -> Header:
    facts = read_facts(path)
    counts = {name: int(one.n_elements) for name, one in facts.tensors.items()}
    matrices = {name for name, one in facts.tensors.items() if len(one.shape) > 1}
    embedding = counts.get("token_embd.weight", 0)
    return Header(
        sum(counts.values()),
        sum(count for name, count in counts.items() if name.startswith("blk.") and name in matrices),
        counts.get("output.weight", embedding),
        embedding,
        {name: value for name, value in facts.own.items() if isinstance(value, int)},
    )


PARTIAL = ".partial-"
"""Part of the name of a folder that is still being written."""

_DIGESTS = "digests.demur"
"""The file of a converted folder that holds the digests of the others."""

CONVERSION = 2
"""Increased when a conversion makes another folder of the same file, so that folders of an older demur are not used."""


def converted_folder(path: Path) -> Path:
    """The folder of this file's conversion, whether it exists yet or not."""
    import transformers

    _content_digest(path)  # refuses a file that is not a GGUF file at once
    return _in_cache(path, sha256_of(path)[:32], f"transformers-{transformers.__version__}-{CONVERSION}")


def _in_cache(path: Path, content: str, what: str) -> Path:
    return cache_folder() / "gguf" / f"{path.stem}-{content}-{what}"


def convert(path: Path) -> Path:
    """The folder with the file's weights and tokenizer, made on first use.

    Raises:
        InputError: for a file that cannot be read, lacks weights, or states something that cannot be applied.
        WorkError: if the disk is full.
    """
    target = converted_folder(path)
    if (target / "config.json").is_file():
        if _is_whole(target):
            return target
        shutil.rmtree(target, ignore_errors=True)
    model, tokenizer = _converted(path)
    _sweep(target.parent)
    # Written under another name and renamed at the end, so that an interrupted conversion is never taken for a complete one.
    partial = target.with_name(f"{target.name}{PARTIAL}{uuid4().hex[:12]}")
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        made = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
        replace_file(partial / _DIGESTS, json.dumps(made))
        try:
            partial.rename(target)
        except OSError:
            # If the folder is there, another process finished first, with the same bytes.
            if not (target / "config.json").is_file():
                raise
    except SafetensorError as error:
        raise WorkError(f"{str(target)!r} could not be written: {error}") from error
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _is_whole(folder: Path) -> bool:
    """Whether a converted folder has every byte that was written. A disk may lose some."""
    with suppress(OSError, ValueError, AttributeError, DemurError):
        made = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return all(sha256_of(folder / name) == digest for name, digest in made.items())
    return False


def _converted(path: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Model and tokenizer of a file, on the CPU and in float32."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM

    from demur.models.gguf import file_tokenizer, model_config, stated_keys, weights

    facts = read_facts(path)
    require_one_model(facts)
    architecture = stated_keys.architecture_of(facts)
    stated_keys.require_known_keys(facts, architecture)
    try:
        config = model_config.model_config(facts, architecture)
        tokenizer = file_tokenizer.build_tokenizer(facts, config.vocab_size)
        stops = stop_ids(facts, len(tokenizer))
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        # transformers' own conversion keeps the next two as well. Both belong to the stored digest of a run's settings.
        if "general.name" in facts.values:
            config._model_name_or_path = str(facts.values["general.name"])
        if tokenizer.unk_token_id is not None:
            config.unk_token_id = tokenizer.unk_token_id
        config.eos_token_id = stops[0] if len(stops) == 1 else stops or None
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return weights.fill(model, facts, zero_biases=architecture.zero_biases), tokenizer
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, ImportError, NotImplementedError, StrictDataclassError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF checkpoint: {' '.join(str(error).split())}") from error


def _sweep(folder: Path) -> None:
    """Delete the partial folders of conversions that were killed more than a day ago."""
    for partial in folder.glob(f"*{PARTIAL}*"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > 86400:
                shutil.rmtree(partial)


def _content_digest(path: Path) -> str:
    """16 hex digits of sha256 over the size, the first and the last MiB, and 4 KiB of each MiB between them.

    This identifies the header of a file of many GB at once, for a plan. A difference in a few bytes of the weights can be missed,
    so a conversion is identified by every byte (`sha256_of`).
    """
    part, piece = 1 << 20, 1 << 12
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head, tail = file.read(part), b""
            for start in range(part, size - part, part):
                file.seek(start)
                tail += file.read(piece)
            file.seek(max(0, size - part))
            tail += file.read(part)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF file ({error}); fetch it again") from error
    if not head.startswith(b"GGUF"):
        raise InputError(f"{str(path)!r} does not begin with the letters GGUF, so it is not a GGUF file")
    return hashlib.sha256(str(size).encode() + head + tail).hexdigest()[:16]
