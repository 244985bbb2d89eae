"""Paths inside a folder that someone else may have made. Nothing that is written through them leaves the folder.

A folder that one was sent may hold links, pipes and names with `..` where plain files are expected. Writing through such an entry
would change files elsewhere, or would wait for ever. Each path is checked before it is used, and is refused by name.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from demur.core.errors import InputError
from demur.core.registry import is_short_name

_MOST_BYTES = 200
"""The most bytes of a name. File systems allow 255, and endings such as `.safetensors.partial` are added."""


def is_file_stem(name: object) -> bool:
    """Whether a name can be a file's name without its ending: names of a study, joined by dots.

    Example:
        >>> [is_file_stem(name) for name in ("chat", "chat.native.layer3", "../x", "a/b", "", "C:x", 3)]
        [True, True, False, False, False, False, False]
    """
    return (
        isinstance(name, str) and len(name.encode(errors="replace")) <= _MOST_BYTES and all(map(is_short_name, name.split(".")))
    )


def inner_file(folder: Path, name: str) -> Path:
    """The path of a plain file in a folder, for writing.

    Args:
        folder: the folder. It may itself be reached through a link, because the user named it.
        name: the file's name in it, with `/` between folders.

    Returns:
        The path. No folder on the way is a link, and the file is missing or a plain file.

    Raises:
        InputError: if the name leads out of the folder, or if an entry on the way is not what its place asks for.
    """
    *folders, _ = parts = name.split("/")
    if any(part in ("", ".", "..") or not part.isprintable() or set(part) & set('\\:*?"<>|') for part in parts):
        raise InputError(f"{name!r} is not a name of a file in a run folder, so nothing is written there; do not use this folder")
    path = folder
    for part in folders:
        path = path / part
        _check(path, folder, "folder", stat.S_ISDIR)
    path = path / parts[-1]
    _check(path, folder, "file", stat.S_ISREG)
    return path


def inner_entries(folder: Path, name: str, pattern: str) -> Iterator[Path]:
    """The plain files in a folder of a folder, in alphabetical order; none if there is no such folder.

    Args:
        folder: the outer folder.
        name: the name of the inner one.
        pattern: which of its files, as `Path.glob` takes it.

    Raises:
        InputError: if the inner folder is a link or no folder.
    """
    inner = folder / name
    _check(inner, folder, "folder", stat.S_ISDIR)
    for path in sorted(inner.glob(pattern)):
        if stat.S_ISREG(path.lstat().st_mode):
            yield path


def check_own_file(path: Path) -> None:
    """Check a file that is changed in place: it is missing, or a plain file that has no second name.

    A file that is replaced needs only `inner_file`. One that is changed in place would also change under its other names.

    Raises:
        InputError: for a link, a second name (a hard link), a folder, a pipe or a device.
    """
    found = _check(path, path.parent, "file", stat.S_ISREG)
    if found is not None and found.st_nlink > 1:
        raise InputError(
            f"{path.name!r} in {str(path.parent)!r} has a second name (a hard link), so writing to it would change another file; "
            "copy the folder (cp -r) and use the copy"
        )


def _check(path: Path, folder: Path, wanted: str, is_wanted: Callable[[int], bool]) -> os.stat_result | None:
    """What the entry is; None if it is missing. Raises `InputError` if it is not what is wanted."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be used: {error.strerror}") from error
    if is_wanted(found.st_mode):
        return found
    raise InputError(
        f"{str(path.relative_to(folder))!r} in {str(folder)!r} is {_what(found.st_mode)}, where a plain {wanted} was expected; "
        "demur writes only inside the run folder, so remove this entry or copy the run's run.sqlite into a new folder"
    )


def _what(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link to another place"
    return "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a pipe, a socket or a device"
