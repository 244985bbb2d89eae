"""Stores the measurements of a run, and what could not be measured."""

import json
import sqlite3

from demur.core.edit_words import GATE
from demur.runs.database.damage import read_from_rows
from demur.runs.database.means_store import MeansStore
from demur.runs.rows import StoredMeasurement, UnmeasuredSubject


class MeasurementStore(MeansStore):
    """The tables of measurements."""

    def add_measurement(self, found: StoredMeasurement) -> None:
        """Store the result of a measurement of a subject. It replaces a record of another version, and a failure."""
        with self._transaction() as db:
            db.execute("DELETE FROM measurement_failures WHERE (name, subject, settings) = (?, ?, ?)", found.key)
            db.execute(
                "INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET version = excluded.version, "
                "facts = excluded.facts, arrays = excluded.arrays WHERE version != excluded.version",
                (*found.key, found.version, json.dumps(dict(found.record.facts), sort_keys=True), found.array_bytes()),
            )

    @read_from_rows
    def measurements(self) -> list[StoredMeasurement]:
        """All measurements that were made, in order of entry."""
        rows = self._rows("SELECT name, subject, settings, version, facts, arrays FROM measurements ORDER BY rowid")
        return [StoredMeasurement.from_row(*row) for row in rows]

    def gate_names(self) -> set[tuple[str, str]]:
        """Target arm and settings of the gates that are stored."""
        return set(self._rows("SELECT subject, settings FROM measurements WHERE name = ?", (GATE,)))

    @read_from_rows
    def gate(self, name: tuple[str, str]) -> StoredMeasurement | None:
        """The gate of a target arm and settings, or None."""
        rows = self._rows(
            "SELECT name, subject, settings, version, facts, arrays FROM measurements "
            "WHERE (name, subject, settings) = (?, ?, ?)",
            (GATE, *name),
        )
        return StoredMeasurement.from_row(*rows[0]) if rows else None

    def add_unmeasured(self, failed: UnmeasuredSubject) -> None:
        """Store that a measurement could not be made of a subject, and why."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO measurement_failures VALUES (?, ?, ?, ?, ?)", tuple(failed))

    def unmeasured(self) -> list[UnmeasuredSubject]:
        """The measurements that could not be made, in order of entry."""
        rows = self._rows("SELECT name, subject, settings, version, reason FROM measurement_failures ORDER BY rowid")
        return [UnmeasuredSubject(*row) for row in rows]

    def measured(self) -> dict[tuple[str, str, str], int]:
        """(measurement, subject, settings) -> version, of stored records."""
        rows = self._rows("SELECT name, subject, settings, version FROM measurements")
        return {(name, subject, settings): version for name, subject, settings, version in rows}


def remove_measurements(db: sqlite3.Connection) -> None:
    """Remove all measurements and failures, in a transaction that is open."""
    db.execute("DELETE FROM measurements")
    db.execute("DELETE FROM measurement_failures")
