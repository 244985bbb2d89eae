"""Locks on a run folder: only one process at a time writes the run, and only one writes its report.

The operating system keeps the lock (flock) and releases it when the process ends, so nothing has to be cleaned up. The lock
file names the process that holds the lock. If the file system does not support such locks, `Lock.real` is False.
"""

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from demur.core.atomic_files import cannot_write
from demur.core.errors import InputError
from demur.core.inner_files import check_own_file

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


def hold(file: Path) -> Lock:
    """Take the lock of a file.

    Args:
        file: the lock file; it is created if it does not exist.

    Returns:
        The lock.

    Raises:
        InputError: if another process holds the lock (the message names it); if the file is a link or cannot be written.
    """
    handle = _opened(file)
    real = _taken(handle, file)
    if real is False:
        text = os.pread(handle, 4096, 0)
        os.close(handle)
        raise InputError(
            f"{str(file.parent)!r} is being written by {_holder(text)}; wait until it is done, or give another --out"
        )
    return _named(handle, real=bool(real))


@contextmanager
def held(file: Path, waiting: Callable[[str], object]) -> Iterator[None]:
    """Wait for a lock, and hold it inside the block.

    Args:
        file: the lock file; it is created if it does not exist.
        waiting: is told in one sentence for whom this process waits: at once, and then every half minute.

    Raises:
        InputError: if the file is a link or cannot be written.
    """
    handle, begun, told = _opened(file), monotonic(), -_TELL_EVERY
    while (real := _taken(handle, file)) is False:
        seconds = monotonic() - begun
        if seconds - told >= _TELL_EVERY:
            told = seconds
            whom = _holder(os.pread(handle, 4096, 0))
            after = f" (for {seconds:.0f} s now)" if seconds >= 1 else ""
            waiting(f"waiting{after} for {whom}, which holds {str(file)!r}; it goes on when that process ends")
        try:
            sleep(_LOOK_EVERY)
        except BaseException:
            os.close(handle)
            raise
    lock = _named(handle, real=bool(real))
    try:
        yield
    finally:
        lock.release()


_TELL_EVERY, _LOOK_EVERY = 30.0, 0.05
"""Seconds between two sentences, and between two looks at the lock."""


def _opened(file: Path) -> int:
    # The holder's name is written into the file, so it must be no link to another one.
    check_own_file(file)
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except OSError as error:
        raise cannot_write(file, error) from error


def _taken(handle: int, file: Path) -> bool | None:
    """Whether this process has the lock now; None if the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NONE_HERE:
            return None
        os.close(handle)
        raise cannot_write(file, error) from error
    return None if fcntl is None else True


def _named(handle: int, *, real: bool) -> Lock:
    """The lock, with the name of this process in its file."""
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
        stopped = " (stopped; kill -CONT lets it go on)" if _is_stopped(facts) else ""
        return f"process {facts['pid']} on {facts['host']} since {facts['started']}{stopped}"
    except (ValueError, KeyError, TypeError):
        # The other process has just taken the lock and not written its name yet.
        return "another process"


def _is_stopped(facts: Mapping[str, object]) -> bool:
    """Whether the holder runs on this machine and was stopped, for example with Ctrl-Z. Only Linux tells."""
    if facts["host"] != socket.gethostname():
        return False
    try:
        status = Path(f"/proc/{int(str(facts['pid']))}/stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return False
    return status.rpartition(")")[2].split()[:1] in (["T"], ["t"])
