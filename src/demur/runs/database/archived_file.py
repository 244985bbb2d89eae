"""Opens the SQLite file of a run that cannot be written: an archive, a read-only disk, another user's run.

Nothing in its folder is changed. If the newest commits are still in the log beside the file, or if the file is of an earlier
format, a copy in a temporary folder is opened.
"""

import os
import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

_WITH_COMMITS = ("-wal", "-journal")
"""Endings of the files beside a SQLite file that may hold commits. The third file, -shm, is an index that SQLite makes again."""


class CopiedConnection(sqlite3.Connection):
    """A connection to a copy, which is deleted with it."""

    copy: "TemporaryDirectory[str] | None" = None

    def close(self) -> None:
        """Close the connection and delete the copy."""
        super().close()
        if self.copy is not None:
            self.copy.cleanup()


def can_be_written(file: Path) -> bool:
    """Whether SQLite may write this file in place: it and its folder are writable, and it has no second name."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK) and file.stat().st_nlink == 1


def has_log(file: Path) -> bool:
    """Whether there are commits beside the file that are not in it."""
    logs = (file.with_name(file.name + end) for end in _WITH_COMMITS)
    return any(log.is_file() and log.stat().st_size > 0 for log in logs)


def open_unchanged(file: Path) -> sqlite3.Connection:
    """Open a file to read it in place. SQLite neither writes it nor makes files beside it.

    Args:
        file: a SQLite file without a log.
    """
    return sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1", uri=True)


def open_copy(file: Path) -> sqlite3.Connection:
    """Open a copy of a file and its log.

    Args:
        file: a SQLite file.

    Returns:
        The connection. The copy is deleted when it is closed.
    """
    folder = TemporaryDirectory(prefix="demur-run-")
    for end in ("", *_WITH_COMMITS):
        source = file.with_name(file.name + end)
        if source.is_file():
            shutil.copyfile(source, Path(folder.name) / source.name)
    made: Any = sqlite3.connect(Path(folder.name) / file.name, timeout=30, factory=CopiedConnection)
    made.copy = folder
    return made  # type: ignore[no-any-return]
