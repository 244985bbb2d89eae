"""Locks on a run folder: only one process at a time writes the run, and only one writes its report.

The operating system keeps the lock (flock) and releases it when the process ends, so nothing has to be cleaned up. The lock
file names the process that holds the lock. If the file system does not support such locks, `Lock.real` is False.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from demur.core.atomic_files import cannot_write
from demur.core.errors import InputError

try:
    import fcntl
except ImportError:  # a system without flock
    fcntl = None  # type: ignore[assignment]

_NONE_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class Lock:
    """A lock that this process holds.

    Attributes:
        real: False if this file system has no locks. Another process can then write at the same time.
    """

    def __init__(self, handle: int, *, real: bool) -> None:
        self._handle: int | None = handle
        self.real = real

    def release(self) -> None:
        """Give the lock back. Calling this twice does no harm."""
        if self._handle is not None:
            with suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def hold(file: Path, *, wait: bool = False) -> Lock:
    """Take the lock of a file.

    Args:
        file: the lock file; it is created if it does not exist.
        wait: whether to wait while another process holds the lock.

    Returns:
        The lock.

    Raises:
        InputError: if another process holds the lock and `wait` is false (the message names it); if the file cannot be written.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_write(file, error) from error
    real = fcntl is not None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        text = os.pread(handle, 4096, 0)
        os.close(handle)
        raise InputError(
            f"{str(file.parent)!r} is being written by {_holder(text)}; wait until it is done, or give another --out"
        ) from None
    except OSError as error:
        if error.errno not in _NONE_HERE:
            os.close(handle)
            raise cannot_write(file, error) from error
        real = False
    except BaseException:
        os.close(handle)
        raise
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "started": datetime.now(UTC).isoformat(timespec="seconds")}
    # On a full disk these facts cannot be written into the file. The lock still works.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(facts).encode())
    return Lock(handle, real=real)


def _holder(text: bytes) -> str:
    try:
        facts = json.loads(text)
        return f"process {facts['pid']} on {facts['host']} since {facts['started']}"
    except (ValueError, KeyError, TypeError):
        # The other process has just taken the lock and not written its name yet.
        return "another process"


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Wait for a lock, and hold it inside the block."""
    lock = hold(file, wait=True)
    try:
        yield
    finally:
        lock.release()
