"""Steps from earlier formats of the SQLite file of a run. Each is carried out in one transaction."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from demur.core.inner_files import inner_file
from demur.runs.database.judge_output_tables import add_judge_output_tables
from demur.runs.labelling.label_tables import add_label_tables

_LAYERWISE = "CREATE TABLE layerwise (arm TEXT PRIMARY KEY, facts TEXT NOT NULL, arrays BLOB NOT NULL)"
"""In version 3, only the measurement `by-layer` had a table. Kept for the step from 2 to 3."""

SINCE_4 = """
CREATE TABLE measurements (
    name TEXT NOT NULL, subject TEXT NOT NULL, settings TEXT NOT NULL, version INTEGER NOT NULL,
    facts TEXT NOT NULL, arrays BLOB NOT NULL, PRIMARY KEY (name, subject, settings)
);
CREATE TABLE measurement_failures (
    name TEXT NOT NULL, subject TEXT NOT NULL, settings TEXT NOT NULL, version INTEGER NOT NULL,
    reason TEXT NOT NULL, PRIMARY KEY (name, subject, settings)
);
CREATE TABLE judge_failures (
    cell TEXT NOT NULL, position INTEGER NOT NULL, judge TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (cell, position, judge)
) WITHOUT ROWID;
"""
SINCE_7 = """
CREATE TABLE means (
    arm TEXT NOT NULL, label TEXT NOT NULL, complete INTEGER NOT NULL, facts TEXT NOT NULL, arrays BLOB NOT NULL,
    PRIMARY KEY (arm, label)
)
"""


def _add_direction_files(db: sqlite3.Connection, file: Path) -> None:
    """1 to 2: the direction files are copied into the SQLite file. A direction whose file is missing is extracted again."""
    db.execute("ALTER TABLE directions ADD COLUMN file BLOB")
    for (name,) in db.execute("SELECT name FROM directions").fetchall():
        path = inner_file(file.parent, f"directions/{name}.safetensors")
        if path.is_file():
            db.execute("UPDATE directions SET file = ? WHERE name = ?", (path.read_bytes(), name))


def _add_layerwise(db: sqlite3.Connection, _: Path) -> None:
    """2 to 3: a table for the measurement `by-layer`. It stays empty until the run is resumed."""
    db.execute(_LAYERWISE)


def _add_measurements(db: sqlite3.Connection, _: Path) -> None:
    """3 to 4: one table for all measurements, into which the rows of `layerwise` are copied, and tables for failures."""
    for statement in filter(str.strip, SINCE_4.split(";")):
        db.execute(statement)
    db.execute(
        "INSERT INTO measurements (name, subject, settings, version, facts, arrays) "
        "SELECT 'by-layer', arm, '{}', 1, facts, arrays FROM layerwise ORDER BY rowid"
    )
    db.execute("DROP TABLE layerwise")


def _drop_try_again(db: sqlite3.Connection, _: Path) -> None:
    """4 to 5: `measurement_failures` loses the column `try_again`, which had no effect. The step from 3 to 4 does not make it."""
    if "try_again" in {row[1] for row in db.execute("PRAGMA table_info(measurement_failures)")}:
        db.execute("ALTER TABLE measurement_failures DROP COLUMN try_again")


def _add_own_turn(db: sqlite3.Connection, _: Path) -> None:
    """5 to 6: where a completion's own turn ends. Completions of before do not say it; they are judged as before."""
    db.execute("ALTER TABLE completions ADD COLUMN own_turn TEXT")


def _add_means(db: sqlite3.Connection, _: Path) -> None:
    """6 to 7: a table for means of activations. It stays empty until the run is resumed with an edit that needs them."""
    db.execute(SINCE_7)


STEPS: dict[int, Callable[[sqlite3.Connection, Path], None]] = {
    1: _add_direction_files,
    2: _add_layerwise,
    3: _add_measurements,
    4: _drop_try_again,
    5: _add_own_turn,
    6: _add_means,
    7: add_label_tables,
    8: add_judge_output_tables,
}
"""Version -> the step to the next one."""
