"""Whether a run folder is still where it was opened. SQLite goes on writing to a file that was moved or deleted meanwhile."""

import os
from pathlib import Path

from demur.core.errors import WorkError
from demur.runs.database.damage import FILE


class RunPlace:
    """The place of an open run. It remembers which file was opened there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = _identity(folder / FILE)
        # An open folder can be asked for its path of now.
        self._handle = os.open(folder, os.O_RDONLY) if os.name == "posix" else None

    def check(self) -> None:
        """Check that the folder still holds the file that was opened.

        Raises:
            WorkError: if it was moved, deleted or replaced. The message says where it is now, where the system tells.
        """
        if _identity(self._folder / FILE) == self._known:
            return
        where, now = str(self._folder), self._now()
        if now is not None and _identity(now / FILE) == self._known:
            raise WorkError(
                f"the run folder {where!r} was moved to {str(now)!r} while the run was at work; all finished batches are there; "
                f"run the same command with --out {now} to resume"
            )
        raise WorkError(
            f"the {FILE} of the run folder {where!r} was moved, deleted or replaced while the run was at work, so nothing more "
            "is written; move it back and run the same command to resume, or start over"
        )

    def close(self) -> None:
        """Close the open folder. Calling this twice does no harm."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _now(self) -> Path | None:
        """Where the folder is now; None if the system does not tell, or if it was deleted."""
        if self._handle is None:
            return None
        try:
            path = Path(f"/proc/self/fd/{self._handle}").readlink()
        except OSError:
            return None
        return path if path.is_dir() else None


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
