"""The free memory of a container or a scheduler's job, from Linux control groups of version 1 or 2."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NO_LIMIT = 2**60
"""If there is no limit, version 1 writes a number larger than this."""


def left(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still use within the limits of its control groups; None without a limit.

    The system's cache of files does not count as used, because the system frees it when memory is needed.
    """
    found = [room for folder, names in _groups(root) if (room := _room(folder, *names)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of this process's groups and of the groups around them, each with the names of its files."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container, the path may be that of the host. The files of the group are then at the top.
        own = base / path.lstrip("/")
        yield from ((folder, names) for folder in dict.fromkeys([own, *own.parents, base]) if folder.is_relative_to(base))


def _room(folder: Path, most: str, taken: str, kept_files: str) -> int | None:
    try:
        limit = int((folder / most).read_text())
        used = int((folder / taken).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return None if limit >= NO_LIMIT else max(0, limit - used + int(stat.get(kept_files, 0)))
