"""Writes files atomically. A reader sees the old file or the new one, never a part of one, even after a power cut.

The content is written to a temporary file in the same folder and flushed to the disk. Then this file is renamed in one step.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demur.core.errors import DemurError, InputError, WorkError

_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, because your quota is used up",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or free some space",
    errno.EIO: "check the disk and its connection, which failed",
    errno.ESTALE: "check the connection of the network disk, which was lost",
    errno.ENODEV: "check that the disk is still connected",
}
"""What helps where the request was right and the work failed, by error number."""


def replace_file(path: Path, content: bytes | str) -> Path:
    """Write a file, and create its folders if needed. If this fails, the old file is unchanged.

    Args:
        path: the file.
        content: bytes, or a text to be written as UTF-8.

    Returns:
        The path.

    Raises:
        InputError: if the path cannot be written to, or the text cannot be encoded as UTF-8.
        WorkError: if the disk is full.
    """
    try:
        data = content if isinstance(content, bytes) else content.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text for {str(path)!r} cannot be written as UTF-8: {error.reason}") from error
    with replacing(path) as partial:
        partial.write_bytes(data)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path, for code that writes a file itself. At the end of the block that file replaces `path`."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An entry of this name may be a link that someone else made, and writing through it would change another file.
        partial.unlink(missing_ok=True)
        partial.touch(exist_ok=False)
        try:
            yield partial
            with partial.open("r+b") as file:  # some systems flush only files that are open for writing
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def is_file(path: Path) -> bool:
    """Whether the file exists. False for a name that no file can have: one that is too long or contains a NUL byte."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether the folder exists. False for an impossible name, as in `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def cannot_write(path: Path, error: OSError) -> DemurError:
    """The error for a file or folder that could not be written."""
    reason = error.strerror or type(error).__name__
    advice = _ADVICE.get(error.errno or 0)
    if advice is not None:
        return WorkError(f"{str(path)!r} could not be written: {reason}; {advice}, and run the same command again")
    return InputError(f"{str(path)!r} cannot be written: {reason}; give another place")


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that a new name survives a power cut."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
