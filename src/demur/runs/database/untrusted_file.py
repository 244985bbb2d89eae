"""Checks the SQLite file of a run folder that someone else may have made, before anything is read from it or written to it.

A SQLite file can hold more than rows: triggers and views act when a table is read or written, and the files beside it can make
SQLite write or delete other files. demur uses none of this, so a file with any of it is refused.
"""

import sqlite3
from contextlib import suppress
from pathlib import Path

from demur.core.errors import InputError, short
from demur.core.inner_files import check_own_file, inner_file, is_file_stem

LOG_ENDINGS = ("-wal", "-shm", "-journal")
"""Endings of the files that SQLite keeps next to its own. The write-ahead log holds commits that are not in the file yet."""

_MOST_VALUE_BYTES = 256 << 20
"""The most bytes of one value. The largest that demur stores are the arrays of a measurement, some MB."""

_JOURNAL_END = bytes.fromhex("d9d505f920a163d7")
"""The last bytes of a rollback journal that names another file. SQLite deletes that file after it has used the journal.

Source: section 2.5 of the SQLite file format, "super-journal". Only transactions over several databases write one.
"""


def check_files(file: Path, *, writing: bool = True) -> None:
    """Check the file and its neighbours as entries of a folder.

    Args:
        file: the SQLite file.
        writing: whether they will be changed in place. If so, a second name (a hard link) is refused too.

    Raises:
        InputError: for a link, a pipe, a device or a folder, and for a journal that names another file.
    """
    for path in (file, *(file.with_name(file.name + end) for end in LOG_ENDINGS)):
        if writing:
            check_own_file(path)
        else:
            inner_file(path.parent, path.name)
    with suppress(FileNotFoundError), file.with_name(f"{file.name}-journal").open("rb") as journal:
        journal.seek(0, 2)
        journal.seek(max(0, journal.tell() - len(_JOURNAL_END)))
        if journal.read() == _JOURNAL_END:
            raise InputError(f"{file.name!r} in {str(file.parent)!r} has a journal that names another file; {_ADVICE}")


def limit(db: sqlite3.Connection) -> None:
    """Switch off what a run never needs: functions and tables in the schema, further databases, huge values."""
    db.execute("PRAGMA trusted_schema = OFF")
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE_BYTES)


def check_schema(db: sqlite3.Connection, file: Path) -> None:
    """Check that the file holds only plain tables.

    Args:
        db: the open file.
        file: its path, for the message.

    Raises:
        InputError: for a trigger, a view, a virtual table or a generated column.
    """
    for kind, name, text in db.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        words = str(text or "").split(None, 2)
        if kind not in ("table", "index") or (kind == "table" and words[1:2] and words[1].upper() != "TABLE"):
            raise InputError(f"{str(file)!r} holds the {kind} {name!r}, which no run of demur has; {_ADVICE}")
        if kind == "table" and any(row[-1] for row in db.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))):
            raise InputError(f"{str(file)!r} holds a generated column in the table {name!r}, which no run has; {_ADVICE}")


def check_names(db: sqlite3.Connection, file: Path) -> None:
    """Check that every direction has a name that a study could give it, because its file is named after it.

    Args:
        db: the open file.
        file: its path, for the message.

    Raises:
        InputError: for the first name that cannot be a file's name.
    """
    for (name,) in db.execute("SELECT name FROM directions").fetchall():
        if not is_file_stem(name):
            raise InputError(
                f"{str(file)!r} holds a direction with the name {short(ascii(name), 80)}, which is no name of a study "
                f"(letters, digits, '-', '_' and '.'), so no file can be named after it; {_ADVICE}"
            )


_ADVICE = "do not use this folder unless you know who made it"
