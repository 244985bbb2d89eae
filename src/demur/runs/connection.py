"""An open SQLite file of a run: transactions, queries and consistent reading, with SQLite's errors in plain words."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demur.runs import schema

FILE = "run.sqlite"
"""Name of the SQLite file in a run folder."""


class Connected:
    """A connection to the SQLite file in a run folder.

    Attributes:
        folder: the run folder.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with schema.in_plain_words(self.folder / FILE), self._db:
            yield self._db

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with schema.in_plain_words(self.folder / FILE):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that is read inside is of one moment, while another process goes on writing."""
        with schema.in_plain_words(self.folder / FILE):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.rollback()
