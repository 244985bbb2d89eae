"""The tables of people's labels in the SQLite file of a run."""

import sqlite3
from pathlib import Path

LABEL_TABLES = """
CREATE TABLE IF NOT EXISTS label_strata (name TEXT PRIMARY KEY, size INTEGER NOT NULL, taken INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS label_frame (
    cell TEXT NOT NULL, position INTEGER NOT NULL, stratum TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (cell, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labels (
    number INTEGER PRIMARY KEY, labeller TEXT NOT NULL, cell TEXT NOT NULL, position INTEGER NOT NULL,
    label TEXT, moment TEXT NOT NULL, UNIQUE (labeller, cell, position)
);
"""
"""`label_frame` has every completion that could be drawn, with its stratum and its random place in it. Those whose place is below
`taken` of their stratum are in the sample. A label that is NULL is a completion that the labeller skipped."""


def add_label_tables(db: sqlite3.Connection, _: Path) -> None:
    """The step of a migration that adds the tables. They stay empty until somebody labels."""
    for statement in filter(str.strip, LABEL_TABLES.split(";")):
        db.execute(statement)
