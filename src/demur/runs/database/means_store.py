"""Stores the mean activations of a run's arms, which affine edits and facts about directions use."""

import json

from demur.runs.database.damage import read_from_rows
from demur.runs.labelling.label_store import LabelStore
from demur.runs.rows import StoredMeans


class MeansStore(LabelStore):
    """The table of means."""

    def add_means(self, found: StoredMeans) -> None:
        """Store the means of an arm. Means at every point replace those at some points; nothing else is replaced."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO means VALUES (?, ?, ?, ?, ?) ON CONFLICT (arm, label) DO UPDATE SET complete = excluded.complete, "
                "facts = excluded.facts, arrays = excluded.arrays WHERE excluded.complete > complete",
                (found.arm, found.label, int(found.complete), json.dumps(found.facts, sort_keys=True), found.array_bytes()),
            )

    def complete_means(self) -> set[tuple[str, str]]:
        """Arm and label of the means that are stored at every point of the stream."""
        return set(self._rows("SELECT arm, label FROM means WHERE complete"))

    @read_from_rows
    def means(self, arm: str | None = None, label: str | None = None) -> list[StoredMeans]:
        """The stored means.

        Args:
            arm: the name of one arm; all arms by default.
            label: one label; both by default.
        """
        rows = self._rows(
            "SELECT arm, label, complete, facts, arrays FROM means WHERE (? IS NULL OR arm = ?) AND (? IS NULL OR label = ?) "
            "ORDER BY arm, label",
            (arm, arm, label, label),
        )
        return [StoredMeans.from_row(*row) for row in rows]
