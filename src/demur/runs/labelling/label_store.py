"""Stores people's labels. Each label is one transaction, so a labeller who is interrupted loses nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime

from demur.runs.database.damage import read_from_rows
from demur.runs.labelling.label_records import FrameRow, LabelDesign, LabelledSample, StoredLabel, Stratum
from demur.runs.manifest_store import ManifestStore

_ENTRY = "labelling"


class LabelStore(ManifestStore):
    """The tables of labels."""

    @read_from_rows
    def label_design(self) -> LabelDesign | None:
        """What all labellers of the run share; None if nobody has begun to label."""
        found = self.recall(_ENTRY)
        return None if found is None else LabelDesign.model_validate(found)

    def remember_label_design(self, design: LabelDesign) -> None:
        """Write down what all labellers share."""
        self.remember(_ENTRY, design.model_dump(mode="json"))

    def set_sample(self, strata: Sequence[Stratum], added: Sequence[FrameRow]) -> None:
        """Store the strata in place of those of before, and further completions that can be drawn, in one transaction.

        Args:
            strata: every stratum of the run.
            added: completions that are not stored yet. One that another process stored first keeps its place.
        """
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO label_frame VALUES (?, ?, ?, ?)", added)
            db.executemany(
                "INSERT INTO label_strata VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET taken = max(taken, excluded.taken)",
                strata,
            )

    @read_from_rows
    def labelled_sample(self) -> LabelledSample:
        """Design, strata, the completions that can be drawn, and all labels."""
        design = self.label_design()
        if design is None:
            return LabelledSample(None)
        strata = self._rows("SELECT name, size, taken FROM label_strata ORDER BY rowid")
        frame = self._rows("SELECT cell, position, stratum, place FROM label_frame ORDER BY cell, position")
        unknown = {row[2] for row in frame} - {name for name, _, _ in strata}
        if unknown:
            raise ValueError(f"the stratum {unknown.pop()!r} has no size")
        return LabelledSample(
            design,
            tuple(Stratum(str(name), int(size), int(taken)) for name, size, taken in strata),
            tuple(FrameRow(str(cell), int(position), stratum, int(place)) for cell, position, stratum, place in frame),
            tuple(self.labels()),
        )

    @read_from_rows
    def labels(self, labeller: str | None = None) -> list[StoredLabel]:
        """Labels in the order in which they were given.

        Args:
            labeller: one labeller; everybody by default.
        """
        rows = self._rows(
            "SELECT labeller, cell, position, label FROM labels WHERE ? IS NULL OR labeller = ? ORDER BY number",
            (labeller, labeller),
        )
        return [StoredLabel(str(who), str(cell), int(position), label) for who, cell, position, label in rows]

    def add_labels(self, given: Sequence[StoredLabel]) -> None:
        """Store labels in one transaction. A completion that the labeller labelled before gets the new label."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO labels (labeller, cell, position, label, moment) VALUES (?, ?, ?, ?, ?)",
                [(*one, moment) for one in given],
            )

    def take_back_label(self, labeller: str) -> bool:
        """Remove the last label or skip of a labeller. Gives whether there was one."""
        with self._transaction() as db:
            removed = db.execute(
                "DELETE FROM labels WHERE number = (SELECT max(number) FROM labels WHERE labeller = ?)", (labeller,)
            ).rowcount
        return removed > 0
