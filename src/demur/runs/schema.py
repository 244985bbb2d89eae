"""The SQLite file of a run. It is made as a whole or not at all, checked when it is opened, and migrated from older formats.

A commit is on the disk before the next batch begins. A damaged file, or one that a later version made, is refused. Each step of a
migration is one transaction.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from demur.core.atomic_files import cannot_write, sync_folder
from demur.core.errors import InputError, WorkError
from demur.runs.database import archived_file
from demur.runs.database.damage import FILE, damaged
from demur.runs.database.earlier_formats import SINCE_4, SINCE_7, STEPS
from demur.runs.database.judge_output_tables import JUDGE_OUTPUT_TABLES
from demur.runs.database.run_place import RunPlace
from demur.runs.database.untrusted_file import LOG_ENDINGS, check_files, check_names, check_schema, limit
from demur.runs.labelling.label_tables import LABEL_TABLES

SCHEMA_VERSION = 9
"""Version of the tables. Each earlier version has a step in `STEPS`."""

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE directions (name TEXT PRIMARY KEY, facts TEXT NOT NULL, file BLOB);
CREATE TABLE cells (key TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE completions (
    cell TEXT NOT NULL REFERENCES cells (key), position INTEGER NOT NULL,
    instruction TEXT NOT NULL, completion TEXT NOT NULL, token_ids TEXT NOT NULL, own_turn TEXT,
    PRIMARY KEY (cell, position)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    cell TEXT NOT NULL, position INTEGER NOT NULL, judge TEXT NOT NULL,
    refusal INTEGER NOT NULL, label TEXT NOT NULL, evidence TEXT NOT NULL,
    PRIMARY KEY (cell, position, judge)
) WITHOUT ROWID;
{SINCE_4}
{SINCE_7};
{LABEL_TABLES}
{JUDGE_OUTPUT_TABLES}
"""


def make(file: Path, facts: Mapping[str, JsonValue]) -> None:
    """Make the file of a new run. It replaces an existing file in one step.

    Args:
        file: where the SQLite file goes.
        facts: the first entries of the table `meta`.

    Raises:
        InputError: if the file cannot be written.
        WorkError: if the disk is full.
    """
    partial = file.with_name(file.name + ".partial")
    try:
        for path in (partial, *(partial.with_name(partial.name + end) for end in LOG_ENDINGS)):
            path.unlink(missing_ok=True)
        with in_plain_words(file), closing(sqlite3.connect(partial, isolation_level=None)) as db:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()])
        # SQLite would take a log of the old file for a log of the new one.
        for end in LOG_ENDINGS:
            file.with_name(file.name + end).unlink(missing_ok=True)
        partial.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise cannot_write(file, error) from error


def connect(file: Path) -> sqlite3.Connection:
    """Open a run, check that it is whole and bring it up to date.

    Args:
        file: the SQLite file.

    Returns:
        The connection.

    Raises:
        InputError: if the file is empty, damaged, of a later version, or holds what no run of demur has.
    """
    check_files(file)
    _refuse_empty(file)
    with in_plain_words(file):
        db = sqlite3.connect(file, timeout=30)
        try:
            limit(db)
            check_schema(db, file)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _bring_up_to_date(db, file)
        except BaseException:
            db.close()
            raise
    return db


def connect_to_read(file: Path) -> tuple[sqlite3.Connection, bool]:
    """Open a run to read it. A run that cannot be written is opened too, and its folder is left as it is.

    Args:
        file: the SQLite file.

    Returns:
        The connection, and whether it writes to the folder.

    Raises:
        InputError: as `connect`.
    """
    check_files(file, writing=False)
    if archived_file.can_be_written(file):
        try:
            return connect(file), True
        except InputError as error:
            refused = getattr(error.__cause__, "sqlite_errorname", "").startswith(_NOT_WRITABLE)
            if not refused:
                raise
    _refuse_empty(file)
    with in_plain_words(file):
        db = archived_file.open_copy(file) if archived_file.has_log(file) else archived_file.open_unchanged(file)
        try:
            limit(db)
            check_schema(db, file)
            if _version(db) in STEPS and not isinstance(db, archived_file.CopiedConnection):
                db.close()
                db = archived_file.open_copy(file)
                limit(db)
            _bring_up_to_date(db, file)
        except BaseException:
            db.close()
            raise
    return db, False


def _refuse_empty(file: Path) -> None:
    if file.stat().st_size == 0:
        raise InputError(f"{str(file)!r} is empty, so its results are lost; start over with --fresh, or give another --out")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _bring_up_to_date(db: sqlite3.Connection, file: Path) -> None:
    """Check that the file is whole, migrate it, and check its names. `file` is where the run is, not where a copy is."""
    version = _version(db)
    if version != SCHEMA_VERSION and version not in STEPS:
        known = ", ".join(map(str, (*STEPS, SCHEMA_VERSION)))
        raise InputError(
            f"{str(file)!r} has format {version} and this version of demur reads {known}; use the version that made it, "
            "or give another --out"
        )
    problems = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problems != "ok":
        raise damaged(file, problems)
    check_names(db, file)  # before a migration, because the first one reads files by these names
    while version != SCHEMA_VERSION:
        version = _migrate(db, file)


def _migrate(db: sqlite3.Connection, file: Path) -> int:
    """Do one step, as a whole or not at all, unless another process did it first. Gives the version afterwards."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        version = _version(db)
        if version in STEPS:
            STEPS[version](db, file)
            version += 1
            db.execute(f"PRAGMA user_version = {version}")
    return version


_NOT_WRITABLE = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")


@contextmanager
def in_plain_words(file: Path) -> Iterator[None]:
    """Turn the errors of SQLite into demur's own.

    Args:
        file: the SQLite file, for the message.

    Yields:
        Nothing.

    Raises:
        InputError: for a file that is damaged, is no run, or cannot be written.
        WorkError: for a full disk, and for a file that another process has been writing for too long.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            # SQLite calls every failure of the system a disk I/O error: a limit on file sizes, a broken disk, a lost connection.
            advice = "free some space" if name.startswith("SQLITE_FULL") else "check the disk, its connection and its free space"
            raise WorkError(
                f"{str(file)!r} could not be written: {error}; all finished batches are kept; {advice} and run the same "
                "command to resume"
            ) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise WorkError(f"another process has been writing {str(file)!r} for too long; run the same command later") from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise damaged(file, str(error)) from error
        if name.startswith(_NOT_WRITABLE):
            raise InputError(
                f"{str(file)!r} cannot be written: {error}; work on a copy of the folder, or make one with demur report RUN_DIR "
                "--out DIR"
            ) from error
        if name.startswith("SQLITE_TOOBIG"):
            raise damaged(file, "a value in it is larger than any that demur stores") from error
        if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
            raise damaged(file, str(error)) from error
        raise


class Connected:
    """A connection to the SQLite file in a run folder.

    Attributes:
        folder: the run folder.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection
        self._place = RunPlace(folder)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with in_plain_words(self.folder / FILE), self._db:
            yield self._db
        self.check_place()

    def check_place(self) -> None:
        """Raises `WorkError` if the run folder was moved or deleted since it was opened."""
        self._place.check()

    def close(self) -> None:
        """Close the file."""
        self._place.close()
        self._db.close()

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with in_plain_words(self.folder / FILE):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All reads inside see the run at the same moment, even if another process writes."""
        with in_plain_words(self.folder / FILE):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.rollback()
