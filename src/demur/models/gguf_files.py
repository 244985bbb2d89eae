"""GGUF files: each is converted once into a folder of float32 safetensors, which is cached with the facts of its header.

transformers takes about twenty seconds to open a GGUF file, and about two to open a converted folder. The cache key is the
content of the file, its size, and the version of transformers that converted it.
"""

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from demur.core.atomic_files import cannot_write, replace_file
from demur.core.errors import DemurError, InputError, WorkError


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
def _header(path: Path, _content: str) -> Header:
    kept = _in_cache(path, "header.json")
    with suppress(OSError, ValueError, TypeError):
        return Header(**json.loads(kept.read_text(encoding="utf-8")))
    found = _read_header(path)
    # If the cache cannot be written, the next process reads the header again. Nothing else changes.
    with suppress(DemurError):
        replace_file(kept, json.dumps(asdict(found)))
    return found


def _read_header(path: Path) -> Header:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError, struct.error) as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF file ({error}); fetch it again") from error
    family = reader.fields["general.architecture"].contents() if "general.architecture" in reader.fields else ""
    own = {name: field.contents() for name, field in reader.fields.items() if name.startswith(f"{family}.")}
    counts = {str(one.name): int(one.n_elements) for one in reader.tensors}
    matrices = {str(one.name) for one in reader.tensors if len(one.shape) > 1}
    embedding = counts.get("token_embd.weight", 0)
    return Header(
        sum(counts.values()),
        sum(count for name, count in counts.items() if name.startswith("blk.") and name in matrices),
        counts.get("output.weight", embedding),
        embedding,
        {name.removeprefix(f"{family}."): value for name, value in own.items() if isinstance(value, int)},
    )


PARTIAL = ".partial-"
"""Part of the name of a folder that is still being written."""


def cache_folder() -> Path:
    """The folder that `DEMUR_CACHE` names, or `demur` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DEMUR_CACHE") or Path(base) / "demur")


def converted_folder(path: Path) -> Path:
    """The folder of this file's conversion, whether it exists yet or not."""
    import transformers

    return _in_cache(path, f"transformers-{transformers.__version__}")


def _in_cache(path: Path, what: str) -> Path:
    return cache_folder() / "gguf" / f"{path.stem}-{_content_digest(path)}-{what}"


def convert(path: Path) -> Path:
    """The folder with the file's weights and tokenizer, made on first use.

    Raises:
        InputError: for a file that cannot be read or lacks weights.
        WorkError: if the disk is full.
    """
    target = converted_folder(path)
    if (target / "config.json").is_file():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    header(path)  # refuses a truncated file at once; transformers needs half a minute to notice, or does not notice
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        packed, report = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError, struct.error) as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF checkpoint: {error}") from error
    if report["missing_keys"]:
        # transformers has filled them with random numbers.
        raise InputError(
            f"{str(path)!r} lacks {len(report['missing_keys'])} weights, such as {min(report['missing_keys'])!r}; fetch it again"
        )
    config = packed.config
    if hasattr(config, "quantization_config"):
        # The weights are plain float32 tensors now. With this entry, the folder would count as quantised.
        del config.quantization_config
    model = type(packed)(config)
    model.load_state_dict(packed.state_dict())
    _sweep(target.parent)
    # Written under another name and renamed at the end, so that an interrupted conversion is never taken for a complete one.
    partial = target.with_name(f"{target.name}{PARTIAL}{uuid4().hex[:12]}")
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
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


def _sweep(folder: Path) -> None:
    """Delete the partial folders of conversions that were killed more than a day ago."""
    for partial in folder.glob(f"*{PARTIAL}*"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > 86400:
                shutil.rmtree(partial)


def _content_digest(path: Path) -> str:
    """16 hex digits of sha256 over the size, the first and the last MiB, and 4 KiB of each MiB between them.

    This identifies a file of many GB at once. Files of the same size have different digests if they differ throughout a matrix of
    at least a MiB. A difference in a few bytes can be missed.
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
