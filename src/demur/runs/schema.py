"""The SQLite file of a run: made whole or not at all, checked when it is opened, brought up to date, and its failures in words.

A commit is on the disk before the next batch begins. A file that is damaged, or that a later version made, is refused; one of an
earlier version is migrated in one transaction.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from demur.core.atomic_files import cannot_write, sync_folder
from demur.core.errors import InputError, WorkError

SCHEMA_VERSION = 3
_LAYERWISE = "CREATE TABLE layerwise (arm TEXT PRIMARY KEY, facts TEXT NOT NULL, arrays BLOB NOT NULL)"
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE directions (name TEXT PRIMARY KEY, facts TEXT NOT NULL, file BLOB);
CREATE TABLE cells (key TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE completions (
    cell TEXT NOT NULL REFERENCES cells (key), position INTEGER NOT NULL,
    instruction TEXT NOT NULL, completion TEXT NOT NULL, token_ids TEXT NOT NULL,
    PRIMARY KEY (cell, position)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    cell TEXT NOT NULL, position INTEGER NOT NULL, judge TEXT NOT NULL,
    refusal INTEGER NOT NULL, label TEXT NOT NULL, evidence TEXT NOT NULL,
    PRIMARY KEY (cell, position, judge)
) WITHOUT ROWID;
{_LAYERWISE};
"""
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside its file. The write-ahead log holds commits that are not in the file yet."""


def make(file: Path, facts: Mapping[str, Any]) -> None:
    """Put a new run in this place, with its first facts; what was there is replaced in one step."""
    partial = file.with_name(file.name + ".partial")
    try:
        for path in (partial, *(partial.with_name(partial.name + end) for end in BESIDE)):
            path.unlink(missing_ok=True)
        with told(file), closing(sqlite3.connect(partial, isolation_level=None)) as db:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in facts.items()])
        # A log of the old file would be taken for one of the new.
        for end in BESIDE:
            file.with_name(file.name + end).unlink(missing_ok=True)
        partial.replace(file)
        sync_folder(file.parent)
    except OSError as error:
        raise cannot_write(file, error) from error


def connect(file: Path) -> sqlite3.Connection:
    """Open a run, check that it is whole and bring it up to date.

    Raises `InputError` where it is damaged or of a later version.
    """
    if file.stat().st_size == 0:
        raise InputError(f"{str(file)!r} is empty, so what it held is lost; start over with --fresh, or give another --out")
    with told(file):
        db = sqlite3.connect(file, timeout=30)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version != SCHEMA_VERSION and version not in _MIGRATIONS:
                known = ", ".join(map(str, (*_MIGRATIONS, SCHEMA_VERSION)))
                raise InputError(
                    f"{str(file)!r} has format {version} and this version of demur reads {known}; use the version that made it, "
                    "or give another --out"
                )
            problems = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problems != "ok":
                raise InputError(_damaged(file, problems))
            while version != SCHEMA_VERSION:
                version = _migrate(db, file)
        except BaseException:
            db.close()
            raise
    return db


def _migrate(db: sqlite3.Connection, file: Path) -> int:
    """One step, as a whole or not at all; another process may have made it first."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version in _MIGRATIONS:
            _MIGRATIONS[version](db, file)
            version += 1
            db.execute(f"PRAGMA user_version = {version}")
    return version


def _directions_into_the_file(db: sqlite3.Connection, file: Path) -> None:
    """1 to 2: the direction files become part of the truth. One that is missing is extracted again."""
    db.execute("ALTER TABLE directions ADD COLUMN file BLOB")
    for (name,) in db.execute("SELECT name FROM directions").fetchall():
        path = file.parent / "directions" / f"{name}.safetensors"
        if path.is_file():
            db.execute("UPDATE directions SET file = ? WHERE name = ?", (path.read_bytes(), name))


def _room_for_layers(db: sqlite3.Connection, _: Path) -> None:
    """2 to 3: measurements at every layer have a place. A run that goes on makes them; one that does not has none."""
    db.execute(_LAYERWISE)


_MIGRATIONS: dict[int, Callable[[sqlite3.Connection, Path], None]] = {1: _directions_into_the_file, 2: _room_for_layers}
"""Version -> the step to the next."""


@contextmanager
def told(file: Path) -> Iterator[None]:
    """Turns what SQLite raises into what the user is told: `InputError` for a file, `WorkError` for a disk."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            raise WorkError(
                f"{str(file)!r} could not be written: {error}; every batch that was finished is kept: free some space and the "
                "same command goes on"
            ) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise WorkError(
                f"another process has been writing {str(file)!r} for too long; the same command goes on later"
            ) from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise InputError(_damaged(file, str(error))) from error
        if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            raise InputError(f"{str(file)!r} cannot be opened for writing: {error}; a run folder must be writable") from error
        if isinstance(error, sqlite3.OperationalError) and "no such" in str(error):
            raise InputError(_damaged(file, str(error))) from error
        raise


def _damaged(file: Path, why: str) -> str:
    return (
        f"{str(file)!r} is damaged or not a run of demur ({' '.join(why.split())}); restore a copy with its -wal file, "
        "or start over with --fresh"
    )
