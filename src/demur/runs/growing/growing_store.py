"""What a run folder plans, and how this grows: names of directions, cells, and the facts that a larger study replaces."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from demur.analysis.cell import Cell
from demur.analysis.manifest import ArmFacts
from demur.runs.database.measurement_store import MeasurementStore, remove_measurements
from demur.runs.manifest_store import put

_EARLIER = "earlier_tests"
"""Entry: arm -> label -> the number of test instructions over which the arm's stored hash of token ids was taken."""

_GROWN_FROM = "grown_from"
"""Entry: what the last growth replaced, and the cells and directions that were planned before it."""


class GrowingStore(MeasurementStore):
    """The planned directions and cells of a run, in the order of its study."""

    def add_planned_directions(self, names: Iterable[str]) -> None:
        """Enter the names of directions that are to be made, so that `directions` gives them in the order of the study."""
        with self._transaction() as db:
            _enter(db, "directions", dict.fromkeys(names, ("", None)))

    def planned_directions(self) -> list[str]:
        """The names of all directions that are made or to be made, in the order of the study."""
        return [row[0] for row in self._rows("SELECT name FROM directions ORDER BY rowid")]

    def planned_cells(self) -> list[str]:
        """The keys of all cells that have completions, in the order of the study."""
        return [row[0] for row in self._rows("SELECT key FROM cells ORDER BY rowid")]

    def add_cells(self, cells: Iterable[Cell]) -> None:
        """Enter cells that are not there yet. Then all cells are in the order given."""
        with self._transaction() as db:
            _enter(db, "cells", {cell.key: (json.dumps(cell.model_dump(mode="json")),) for cell in cells})

    def grow(
        self,
        facts: Mapping[str, JsonValue],
        *,
        tests: Mapping[str, int],
        forget_measurements: bool,
        stale_warnings: Sequence[str] = (),
    ) -> None:
        """Let the run go on with a larger study, in one transaction. Completions, verdicts and directions stay.

        Args:
            facts: the entries that the larger study replaces.
            tests: the number of test instructions of each label before. The hashes of stored arms are over these.
            forget_measurements: whether stored measurements are removed, so that they are made again.
            stale_warnings: sentences that are not true of the larger study.
        """
        known = self._table(_EARLIER)
        earlier: JsonValue = {**{arm.name: dict(tests) for arm in self.arms()}, **known}
        warnings: JsonValue = [each for each in self._listed("warnings") if each not in stale_warnings]
        before: JsonValue = {
            "entries": {key: self.recall(key) for key in facts},
            "cells": [*self.planned_cells()],
            "directions": [*self.planned_directions()],
        }
        entries = {**facts, _EARLIER: earlier, _GROWN_FROM: before, "warnings": warnings}
        with self._transaction() as db:
            put(db, entries)
            if forget_measurements:
                remove_measurements(db)

    def unused_growth(self) -> dict[str, JsonValue] | None:
        """The entries from before the last growth, if no checkpoint was loaded and no direction made since; else None."""
        before, arms = self._table(_GROWN_FROM), {arm.name for arm in self.arms()}
        made = {row[0] for row in self._rows("SELECT name FROM directions WHERE file IS NOT NULL")}
        entries, known = before.get("entries"), before.get("directions")
        unused = isinstance(known, list) and arms <= self._table(_EARLIER).keys() and made <= {str(name) for name in known}
        return entries if unused and isinstance(entries, dict) else None

    def shrink(self) -> None:
        """Take back a growth that was not used, such as one with a wrong name of a model. Measurements are made again."""
        entries, before = self.unused_growth(), self._table(_GROWN_FROM)
        if entries is None:
            return
        with self._transaction() as db:
            put(db, entries)
            for table, column in (("cells", "key"), ("directions", "name")):
                kept = json.dumps(before[table])
                db.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT value FROM json_each(?))", (kept,))
            remove_measurements(db)
            db.execute("DELETE FROM meta WHERE key = ?", (_GROWN_FROM,))

    def earlier_tests(self) -> dict[str, dict[str, int]]:
        """The test instructions over which hashes of arms were taken, by arm and label; only of arms not loaded since it grew."""
        found: dict[str, dict[str, int]] = {}
        for arm, counts in self._table(_EARLIER).items():
            found[arm] = {label: n for label, n in counts.items() if isinstance(n, int)} if isinstance(counts, dict) else {}
        return found

    def remember_arms(self, arms: Sequence[ArmFacts]) -> None:
        """Write down arms. An arm that is known already is replaced, a new one goes to the end."""
        by_name = {arm.name: arm for arm in (*self.arms(), *arms)}
        loaded = {arm.name for arm in arms}
        entries: dict[str, JsonValue] = {"arms": [arm.model_dump(mode="json") for arm in by_name.values()]}
        known = self._table(_EARLIER)
        if known:
            entries[_EARLIER] = {name: counts for name, counts in known.items() if name not in loaded}
        self.remember_all(entries)

    def arms(self) -> list[ArmFacts]:
        """The facts of the arms, in the order in which they were first loaded."""
        return [ArmFacts.model_validate(each) for each in self._listed("arms")]

    def added_measurements(self) -> list[tuple[str, str]]:
        """Name and canonical settings of the measurements that were asked for in addition to those of the study."""
        return [(str(one[0]), str(one[1])) for one in self._listed("added_measurements") if isinstance(one, list)]


def _enter(db: sqlite3.Connection, table: str, wanted: Mapping[str, tuple[object, ...]]) -> None:
    """Enter rows that are not there yet, by their first column, and put all rows in the order of `wanted`. Others come last."""
    rows = {row[0]: row for row in db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()}
    if all(key in rows for key in wanted):
        return
    after = {key: rows.get(key, (key, *row)) for key, row in wanted.items()}
    after |= {key: row for key, row in rows.items() if key not in after}
    db.execute(f"DELETE FROM {table}")
    marks = ", ".join("?" * len(next(iter(after.values()))))
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", list(after.values()))
