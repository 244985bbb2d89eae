"""What a container or a scheduler's job may still take of the machine's memory: Linux control groups, of either version.

Where there are none, or none has a limit, there is nothing to say.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NO_LIMIT = 2**60
"""Version 1 writes a number of this size where there is no limit."""


def left(root: Path = Path("/")) -> int | None:
    """Bytes that this process's groups may still take; None without a limit. Files that are kept in memory do not count."""
    found = [room for folder, names in _groups(root) if (room := _room(folder, *names)) is not None]
    return min(found, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of this process's groups and of those around them, and how their files are called."""
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
        # Inside a container the path may be that of the host, and the group's own files lie at the top.
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
