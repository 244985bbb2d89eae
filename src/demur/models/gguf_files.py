"""A GGUF file converted once into a folder of float32 safetensors, kept in a cache; and what its header says, kept there too.

transformers opens a GGUF file in about twenty seconds and keeps its weights packed, so the result cannot be saved as it is; a
converted folder opens in two. The cache key is the file's content, its size and the versions that read it.
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
from functools import cache
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from demur.core.atomic_files import cannot_write, replace_file
from demur.core.errors import DemurError, InputError, WorkError


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of its weights: numbers of them, all, in blocks' matrices, in the unembedding; and its settings."""

    weights: int
    linear: int
    head: int
    embedding: int
    settings: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int] | None:
        """(layers, width), where the file says."""
        layers, width = self.settings.get("block_count"), self.settings.get("embedding_length")
        return None if layers is None or width is None else (layers, width)


@cache
def header(path: Path) -> Header:
    """Read once a file, which takes seconds, and kept beside its conversion. Raises `InputError` where it cannot be read."""
    kept = _in_cache(path, "header.json")
    with suppress(OSError, ValueError, TypeError):
        return Header(**json.loads(kept.read_text(encoding="utf-8")))
    found = _read_header(path)
    # A cache that cannot be written costs the next process those seconds again, and nothing else.
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
"""Stands in the name of a folder that is being written."""


def cache_folder() -> Path:
    """`DEMUR_CACHE`, or `demur` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DEMUR_CACHE") or Path(base) / "demur")


def converted_folder(path: Path) -> Path:
    """Where the conversion of this file is, or will be."""
    import transformers

    return _in_cache(path, f"transformers-{transformers.__version__}")


def _in_cache(path: Path, what: str) -> Path:
    return cache_folder() / "gguf" / f"{path.stem}-{_content_digest(path)}-{what}"


def convert(path: Path) -> Path:
    """The folder with the file's weights and tokenizer; made on first use. Raises `InputError` where it cannot be read."""
    target = converted_folder(path)
    if (target / "config.json").is_file():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    header(path)  # refuses at once a file that was cut off, which transformers would find out in half a minute or not at all
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        packed, report = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError, struct.error) as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF checkpoint: {error}") from error
    if report["missing_keys"]:
        # Left in, they would be drawn at random.
        raise InputError(
            f"{str(path)!r} lacks {len(report['missing_keys'])} weights, such as {min(report['missing_keys'])!r}; fetch it again"
        )
    config = packed.config
    if hasattr(config, "quantization_config"):
        # Left in, it would make the folder count as quantised, though every weight is a plain float32 tensor by now.
        del config.quantization_config
    model = type(packed)(config)
    model.load_state_dict(packed.state_dict())
    _sweep(target.parent)
    # Written beside its place and renamed: an interrupted conversion leaves no half folder that looks whole.
    partial = target.with_name(f"{target.name}{PARTIAL}{uuid4().hex[:12]}")
    try:
        partial.mkdir(parents=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        with suppress(OSError):  # another process finished first; its folder holds the same bytes
            partial.rename(target)
    except SafetensorError as error:
        raise WorkError(f"{str(target)!r} could not be written: {error}") from error
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _sweep(folder: Path) -> None:
    """Take away what conversions left behind that were killed more than a day ago."""
    for left in folder.glob(f"*{PARTIAL}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 86400:
                shutil.rmtree(left)


def _content_digest(path: Path) -> str:
    """16 hex digits: sha256 over the size, the first and the last MiB, and 4 KiB of each MiB between them. A file of many GB is
    told apart at once, also from one of the same name and size in which a matrix of a MiB or more was edited.
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
