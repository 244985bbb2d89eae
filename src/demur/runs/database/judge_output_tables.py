"""The tables of what the models of judges answered, in the SQLite file of a run."""

import sqlite3
from pathlib import Path

JUDGE_OUTPUT_TABLES = """
CREATE TABLE IF NOT EXISTS judge_outputs (
    key TEXT PRIMARY KEY, judge TEXT NOT NULL, model TEXT NOT NULL, output TEXT NOT NULL,
    input_tokens INTEGER, output_tokens INTEGER, cost REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS verdict_outputs (
    cell TEXT NOT NULL, position INTEGER NOT NULL, judge TEXT NOT NULL, output TEXT NOT NULL,
    PRIMARY KEY (cell, position, judge)
) WITHOUT ROWID;
"""


def add_judge_output_tables(db: sqlite3.Connection, _: Path) -> None:
    """The step of a migration that adds the tables. Judges of before asked no model, or did not keep its answers."""
    for statement in filter(str.strip, JUDGE_OUTPUT_TABLES.split(";")):
        db.execute(statement)
