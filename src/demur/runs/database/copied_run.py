"""Copies a run into another folder, for example from an archive that cannot be written."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from demur.core.atomic_files import cannot_write, replacing
from demur.core.errors import InputError
from demur.runs.database.damage import FILE
from demur.runs.database.untrusted_file import LOG_ENDINGS
from demur.runs.schema import connect_to_read


def copy_run(connection: sqlite3.Connection, folder: Path, target: Path) -> None:
    """Copy the results of a run. Everything else in a run folder is rebuilt from them by a report.

    Args:
        connection: the open run.
        folder: its folder, for messages.
        target: the new folder. It may hold an earlier copy of the same run, which is replaced.

    Raises:
        InputError: if the new folder holds something else, or cannot be written.
        WorkError: if the disk is full.
    """
    try:
        held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    except OSError as error:
        raise cannot_write(target, error) from error
    if held and not (FILE in held and _begun(target / FILE) == _begun_of(connection)):
        raise InputError(
            f"{str(target)!r} holds other files than a copy of {str(folder)!r}; give an empty or a new folder with --out"
        )
    with replacing(target / FILE) as partial:
        with closing(sqlite3.connect(partial)) as made:
            connection.backup(made)
            made.execute("PRAGMA journal_mode = DELETE")
        # SQLite would take a log of the earlier copy for a log of the new one.
        for end in LOG_ENDINGS:
            (target / f"{FILE}{end}").unlink(missing_ok=True)


def _begun(file: Path) -> object:
    opened, _ = connect_to_read(file)
    with closing(opened):
        return _begun_of(opened)


def _begun_of(connection: sqlite3.Connection) -> object:
    """The study and the moment at which a run began, which tell it from every other run."""
    rows = connection.execute("SELECT key, value FROM meta WHERE key IN ('study', 'created') ORDER BY key").fetchall()
    return [(key, json.loads(value)) for key, value in rows]
