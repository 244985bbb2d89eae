"""Digests over every byte of files, and the check that a download is what the hub says.

Hashing takes about two seconds a GB, so digests are kept in the cache folder. A kept digest is used while device, inode, size and
times of the file are the same. The times include that of the last change of the inode, which no program can set back.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from demur.core.atomic_files import replace_file
from demur.core.errors import DemurError, InputError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files with the weights of a checkpoint, in the order in which transformers 5.23 looks for them
(`modeling_utils._get_resolved_checkpoint_files`)."""

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Files with the weights of an adapter, in the order in which peft looks for them."""

_BESIDE_WEIGHTS = (".json", ".model", ".txt", ".jinja")
"""Endings of the other files that are read."""

_THREADS = 4
"""Files that are hashed at the same time. Hashing does not hold Python's global lock."""

_TICK = 2_000_000_000
"""Nanoseconds after a change in which a file is not kept: some file systems have times this coarse, and it may change again."""

_SHA256, _SHA1 = 64, 40
"""Hex digits of the digests by which the hub names files: sha256 of large files, git's sha1 of small ones."""


def cache_folder() -> Path:
    """The folder that `DEMUR_CACHE` names, or `demur` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DEMUR_CACHE") or Path(base) / "demur")


def sha256_of(file: Path) -> str:
    """The sha256 of a file's content, 64 hex digits. It is computed once for as long as the file is not changed.

    Raises:
        InputError: if the file cannot be read.
    """
    return _digest(file, "sha256")


def digest_of_files(files: Iterable[Path]) -> str:
    """A digest over the content of several files, whatever their names and order.

    Args:
        files: the files.

    Returns:
        16 hex digits.

    Raises:
        InputError: if a file cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        found = sorted(pool.map(sha256_of, files))
    return hashlib.sha256("".join(found).encode()).hexdigest()[:16]


def weight_files(folder: Path, order: Sequence[str] = WEIGHTS) -> list[Path]:
    """The weight files of a checkpoint or an adapter that are there and that are read.

    Args:
        folder: its folder.
        order: names of a file with all weights, or of an index, in the order in which they are looked for. A file that
            `config.json` names comes before them.

    Returns:
        The first of these that is there, or the files of the index. Other files, such as `consolidated.safetensors`, are not
        read, so they are not among them.
    """
    for name in (*named_weights(folder), *order):
        if (folder / name).is_file():
            if not name.endswith(".index.json"):
                return [folder / name]
            files = files_of_index(folder / name)
            if files is not None:
                return [folder / file for file in sorted(files) if (folder / file).is_file()]
    return []


def files_of_index(index: Path) -> frozenset[str] | None:
    """The names of the files that an index of weights names; None if it cannot be read."""
    try:
        return frozenset(map(str, json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, OSError, RecursionError):
        return None


def named_weights(folder: Path) -> list[str]:
    """The file of weights that a config names, if it names one."""
    with suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = config.get("transformers_weights") if isinstance(config, dict) else None
        return [named] if isinstance(named, str) and named else []
    return []


def check_downloads(name: str, place: Path, order: Sequence[str] = WEIGHTS) -> None:
    """Check that the files of a model are those that the hub described when they were downloaded.

    huggingface_hub names a download after the digest that the hub gives for it: sha256 for large files, git's sha1 for others.
    Files that are not in its cache have no stated digest and are not checked, and neither are weights that are not read.

    Args:
        name: the model or adapter, for the message.
        place: its folder, or its GGUF file.
        order: the names of its weights, as for `weight_files`.

    Raises:
        InputError: for a file that differs, with its name.
    """
    files = {place}
    if place.is_dir():
        files = {file for file in place.glob("*") if file.suffix in _BESIDE_WEIGHTS}
        files.update(weight_files(place, order))
    stated = [(file, blob) for file in sorted(files) if _states_digest(blob := file.resolve()) and blob.is_file()]

    def found(pair: tuple[Path, Path]) -> str:
        return _digest(pair[1], "sha256" if len(pair[1].name) == _SHA256 else "git")

    with ThreadPoolExecutor(_THREADS) as pool:
        for (file, blob), digest in zip(stated, pool.map(found, stated), strict=True):
            if digest != blob.name:
                raise InputError(
                    f"the file {file.name!r} of {name!r} is not the one that the hub describes: its digest is {digest[:12]}..., "
                    f"the hub's is {blob.name[:12]}...; delete {str(blob)!r} and fetch it again"
                )


def _states_digest(blob: Path) -> bool:
    name = blob.name
    return blob.parent.name == "blobs" and len(name) in (_SHA256, _SHA1) and not set(name) - set("0123456789abcdef")


def _digest(file: Path, how: str) -> str:
    try:
        before = file.stat()
        facts = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
        kept = cache_folder() / "digests" / hashlib.sha256(f"{how} {facts}".encode()).hexdigest()[:32]
        with suppress(OSError, ValueError):
            known = kept.read_text(encoding="ascii")
            if len(known) == (_SHA1 if how == "git" else _SHA256):
                return known
        with file.open("rb") as content:
            if how == "git":
                made = hashlib.file_digest(
                    content, lambda: hashlib.sha1(f"blob {before.st_size}\0".encode(), usedforsecurity=False)
                )
            else:
                made = hashlib.file_digest(content, "sha256")
        after = file.stat()
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror or error}; fetch it again") from error
    unchanged = (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == facts[2:]
    if unchanged and time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _TICK:
        # Without a cache folder that can be written, the digest is computed again next time. Nothing else changes.
        with suppress(DemurError):
            replace_file(kept, made.hexdigest())
    return made.hexdigest()
