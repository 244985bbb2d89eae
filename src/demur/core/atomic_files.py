"""Files are replaced as a whole: a reader sees the old one or the new one, never half of either, and neither does a power cut.

What is written goes to a temporary name in the same folder, is forced to the disk, and takes the file's name in one step.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demur.core.errors import DemurError, InputError, WorkError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def replace_file(path: Path, content: bytes | str) -> Path:
    """Write a file, with its folders, and return its path. Text is written as UTF-8.

    Raises `WorkError` where the disk is full and `InputError` where the place cannot be written to or a text is no text, with the
    old file as it was.
    """
    try:
        data = content if isinstance(content, bytes) else content.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"what would be written to {str(path)!r} is no text: {error.reason}") from error
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of `path` at the end, for writers that want one. As `replace_file`."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            with partial.open("r+b") as file:  # some systems force only what is open to be written
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_file(path: Path) -> bool:
    """Is there such a file? A name that no file can have, too long or with a NUL byte, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Is there such a folder? As `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def cannot_write(path: Path, error: OSError) -> DemurError:
    """The refusal for a file or folder that could not be written."""
    reason = error.strerror or type(error).__name__
    if error.errno in _NO_ROOM:
        return WorkError(f"{str(path)!r} could not be written: {reason}; free some space and run the same command again")
    return InputError(f"{str(path)!r} cannot be written: {reason}; give another place")


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, so that a new name outlives a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
