"""Fetches files of a repository into huggingface_hub's cache. A transfer that was cut goes on where it was cut.

huggingface_hub 2.4 deletes what has arrived if a download fails, and waits without a limit for some answers. So demur makes these
requests itself. The cache has the same form, with the same locks, so other programs find the files, and demur finds theirs.

A file gets its name only when its size and its digest are those that the hub states.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Lock
from typing import Any
from urllib.parse import quote

from demur.core.atomic_files import cannot_write, replace_file
from demur.core.errors import InputError, WorkError
from demur.core.file_locks import held
from demur.core.hub.hub_refusals import KEPT, Transient
from demur.core.hub.hub_requests import answer, check_is_file, endpoint, host, tried
from demur.core.hub.repository import HubFile, Repository
from demur.core.number_format import in_bytes

logger = logging.getLogger("demur.hub")

_THREADS = 4
"""Files that are fetched at the same time."""

MOST_BYTES = 50_000_000_000
"""The largest file that the hub sends by plain HTTP (huggingface_hub 2.4, `constants.MAX_HTTP_DOWNLOAD_SIZE`)."""

_CHUNK = 1 << 20
_SAY_EVERY = 30.0
"""Seconds between two lines about a long transfer."""


def fetch_files(repository: Repository, names: Iterable[str], stop: Event | None = None) -> Path:
    """Fetch files that are not on this machine yet.

    Args:
        repository: the repository.
        names: paths in it.
        stop: ends the transfers when it is set, with a `WorkError`.

    Returns:
        The folder of its commit, in which all these files are.

    Raises:
        InputError: if the hub refuses, or the cache cannot be written.
        WorkError: if the hub or the network fails, or if the disk is full; what has arrived is kept.
    """
    missing = missing_files(repository, names)
    if missing:
        _check_space(repository, missing)
        shown = _Shown(repository, missing)
        _in_threads([partial(_fetch, repository, name, shown) for name in missing], _Stop(stop))
    if repository.revision != repository.commit:
        reference = repository.storage / "refs" / (repository.revision or "main")
        with suppress(OSError):
            if reference.read_text(encoding="ascii") == repository.commit:
                return repository.snapshot
        replace_file(reference, repository.commit)
    return repository.snapshot


def missing_files(repository: Repository, names: Iterable[str]) -> list[str]:
    """Those of the files that are not on this machine yet, each once."""
    return [name for name in dict.fromkeys(names) if not (repository.snapshot / name).is_file()]


def bytes_missing(repository: Repository, names: Iterable[str]) -> int:
    """How many bytes of these files are still to be fetched. Of a transfer that was cut, only the rest."""
    missing = {repository.files[name].digest: repository.files[name] for name in missing_files(repository, names)}
    blobs = {digest: repository.storage / "blobs" / digest for digest in missing}
    return sum(0 if blobs[digest].is_file() else file.size - _size(_part(blobs[digest])) for digest, file in missing.items())


class _Shown:
    """Says now and then how much has arrived."""

    def __init__(self, repository: Repository, names: list[str]) -> None:
        self._name, self._left = repository.name, bytes_missing(repository, names)
        self._whole, self._lock, self._last = self._left, Lock(), time.monotonic()
        count = "1 file" if len(names) == 1 else f"{len(names)} files"
        logger.info(f"fetching {count} of {self._name} from {host()}, {in_bytes(self._left)}")

    def arrived(self, count: int) -> None:
        with self._lock:
            self._left -= count
            if time.monotonic() - self._last < _SAY_EVERY:
                return
            self._last = time.monotonic()
        logger.info(f"{self._name}: {in_bytes(self._whole - self._left)} of {in_bytes(self._whole)}")


class _Stop:
    """Whether a transfer has to end: another file failed, or the caller asked for it."""

    def __init__(self, asked: Event | None) -> None:
        self._asked, self._failed = asked, Event()

    def is_set(self) -> bool:
        return self._failed.is_set() or (self._asked is not None and self._asked.is_set())

    def set(self) -> None:
        self._failed.set()


def _in_threads(tasks: list[Callable[[_Stop], None]], stop: _Stop) -> None:
    """Do all tasks, several at a time. The first error stops the others."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="demur-hub")
    try:
        done, _ = wait([pool.submit(task, stop) for task in tasks], return_when=FIRST_EXCEPTION)
        errors = [error for one in done if (error := one.exception()) is not None]
        for error in errors:
            raise error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


class _Stopped(WorkError):
    """This transfer was ended, because another file failed or because nobody waits for it any more."""


def _fetch(repository: Repository, name: str, shown: _Shown, stop: _Stop) -> None:
    file, asked = repository.files[name], repository.asked(name)
    if ".." in name.split("/") or name.startswith("/"):
        raise InputError(f"{asked} has a path that leads out of its folder, so it is not fetched")
    if file.size > MOST_BYTES:
        raise InputError(
            f"{asked} has {in_bytes(file.size)}, more than the hub sends by plain HTTP; fetch it first with 'hf download "
            f"{repository.name}', which uses xet, and run the same command again"
        )
    blob, link = repository.storage / "blobs" / file.digest, repository.snapshot / name
    lock = repository.storage.parent / ".locks" / repository.storage.name / f"{file.digest}.lock"
    with _named(blob):
        for folder in (blob.parent, link.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
    with held(lock, logger.info):
        for again in (True, False):
            if blob.is_file():
                break
            _pull(repository, name, _part(blob), shown, stop)
            found = _digest_of(_part(blob), file)
            if found == file.digest:
                _part(blob).replace(blob)
                break
            _part(blob).unlink()
            if not again:
                raise WorkError(
                    f"{asked} arrived twice with another content than {asked.host} states: its digest is {found[:12]}..., not "
                    f"{file.digest[:12]}...; it was deleted, so run the same command again, or use another network"
                )
            logger.warning(f"{asked} arrived with another content than {asked.host} states, and is fetched again")
        if not link.is_file():
            _link(blob, link)


def _pull(repository: Repository, name: str, part: Path, shown: _Shown, stop: _Stop) -> None:
    """Fetch what is missing of a file."""
    file, asked = repository.files[name], repository.asked(name)
    prefix = "" if repository.kind == "models" else "datasets/"
    url = f"{endpoint()}/{prefix}{repository.name}/resolve/{repository.commit}/{quote(name)}"
    if _size(part) > file.size:
        part.unlink()
    part.touch()

    def once() -> None:
        if stop.is_set():
            raise _Stopped(f"{asked} is not fetched any further; {KEPT}")
        begin = _size(part)
        if begin == file.size:
            return
        with answer(url, asked, **({"Range": f"bytes={begin}-"} if begin else {})) as given:
            check_is_file(given, asked, begin, file.size)
            _write(given, part, begin if given.status_code == 206 else 0, file.size, shown, stop)
        if _size(part) != file.size:
            raise Transient("closed the connection before all of the file was there")

    def afresh() -> None:
        try:
            once()
        except Transient:
            # What a server says of the rest of a file it does not have cannot be trusted.
            if _size(part) > file.size:
                part.unlink()
                part.touch()
            raise

    try:
        tried(asked, afresh, lambda: _size(part))
    except OSError as error:
        raise cannot_write(part, error) from error


# Any: the answer of huggingface_hub's HTTP client.
def _write(given: Any, part: Path, begin: int, size: int, shown: _Shown, stop: _Stop) -> None:
    with part.open("r+b") as target:
        # A server that ignores the range sends everything.
        target.truncate(begin)
        target.seek(begin)
        for chunk in given.iter_bytes(_CHUNK):
            if stop.is_set():
                raise _Stopped(f"{part.name} is not fetched any further; {KEPT}")
            begin += len(chunk)
            if begin > size:
                raise Transient(f"sends more than the {size:,} bytes that the file has")
            target.write(chunk)
            shown.arrived(len(chunk))


def _part(blob: Path) -> Path:
    """Where a file is until it is whole. The name is fixed, so that a later command finds what has arrived."""
    return blob.with_name(f"{blob.name}.incomplete")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest_of(path: Path, file: HubFile) -> str:
    begin = hashlib.sha256() if len(file.digest) == 64 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as content:
        return hashlib.file_digest(content, lambda: begin).hexdigest()


def _link(blob: Path, link: Path) -> None:
    with _named(link):
        with suppress(FileNotFoundError):
            link.unlink()  # a link whose target was deleted
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:  # a file system without links
            shutil.copyfile(blob, link)


def _check_space(repository: Repository, names: list[str]) -> None:
    needed, place = bytes_missing(repository, names), repository.storage
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise WorkError(
            f"{repository.name!r} needs {in_bytes(needed)} more on the disk of {str(repository.storage.parent)!r}, which has "
            f"{in_bytes(free)} free; free some space, or set HF_HOME to a folder on another disk; {KEPT}"
        )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error
