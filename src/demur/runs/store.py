"""The run folder. One SQLite file holds all results, and everything else is rebuilt from it. No other module writes the folder.

Every finished batch is committed before the next one begins, so a killed run resumes where it stopped and repeats nothing. One
process writes a folder at a time; others may read it. A folder with another study is refused, so studies are never mixed.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import warn

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts
from demur.core import file_locks
from demur.core.atomic_files import cannot_write, replace_file
from demur.core.errors import InputError
from demur.core.inner_files import inner_entries, inner_file
from demur.runs import schema
from demur.runs.database.copied_run import copy_run
from demur.runs.database.damage import FILE, damaged, read_from_rows
from demur.runs.database.direction_files import write_direction
from demur.runs.database.judge_store import JudgeStore
from demur.runs.database.untrusted_file import LOG_ENDINGS
from demur.runs.labelling.kept_labels import refuse_to_lose_labels
from demur.runs.rows import StoredCompletion
from demur.runs.stored_records import Results, cell_of, direction_of, with_source_prompts

if TYPE_CHECKING:
    from demur.directions.direction import Direction

LOCK, REPORT_LOCK = "run.lock", "report.lock"
_LEFT_BY_A_KILL = {LOCK, REPORT_LOCK, *(f"{FILE}.partial{end}" for end in ("", *LOG_ENDINGS))}
NO_LOCKS = "This file system has no locks, so a second process could have written to the run at the same time."


class Store(JudgeStore):
    """An open run folder. Other processes may read it while one writes.

    Attributes:
        writable: whether results and reports can be written there. An archived run can only be read.
    """

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, lock: file_locks.Lock | None = None, *, writable: bool = True
    ) -> None:
        super().__init__(folder, connection)
        self._lock, self.writable = lock, writable

    @classmethod
    def create(
        cls,
        folder: Path,
        study_digest: str,
        study_toml: str,
        *,
        fresh: bool = False,
        check_study: "Callable[[Store], None] | None" = None,
    ) -> "Store":
        """Open the folder of a study that is new or is resumed, and prevent other processes from writing it.

        Args:
            folder: the run folder.
            study_digest: the digest of the study.
            study_toml: the study with every default written out; it is written to `study.toml`.
            fresh: replace an earlier run of demur in the folder. Only files that demur made are removed.
            check_study: called if the folder has another digest; raises `InputError` if the study cannot be resumed there.
                Without it, every other digest is refused.

        Returns:
            The open folder.

        Raises:
            InputError: if the folder holds another study or other files, if another process is writing it, or if `fresh` would
                remove labels that people gave.
        """
        file = folder / FILE
        try:
            known = file.is_file()
            if not known and folder.is_dir() and {path.name for path in folder.iterdir()} - _LEFT_BY_A_KILL:
                raise InputError(
                    f"{str(folder)!r} holds other files and no run of demur; give an empty or a new folder with --out"
                )
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        with ExitStack() as undone:
            lock = file_locks.hold(folder / LOCK)
            undone.callback(lock.release)
            if fresh and known:
                _empty(folder)
            if fresh or not known:
                schema.make(file, {"study": study_digest})
            store = cls(folder, schema.connect(file), lock)
            undone.callback(store.close)
            if store.digest != study_digest:
                if check_study is None:
                    raise InputError(
                        f"{str(folder)!r} holds another study ({store.digest}, this one is {study_digest}); "
                        "give another --out, or --fresh to start over"
                    )
                check_study(store)
                store.remember("study", study_digest)
            replace_file(inner_file(folder, "study.toml"), study_toml)
            if not lock.real:
                store.warn([NO_LOCKS])
            undone.pop_all()
        return store

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """Open a folder that holds a run, to read it. A folder that cannot be written, such as an archived run, is left as it is.

        Args:
            folder: the run folder.

        Returns:
            The open folder.

        Raises:
            InputError: if the folder holds no run, a run that has not stored its study yet, or what no run of demur has.
        """
        file = Path(folder) / FILE
        if not file.is_file():
            raise InputError(f"{str(folder)!r} holds no run of demur (no {FILE}); make one with demur run STUDY --out DIR")
        connection, writable = schema.connect_to_read(file)
        store = cls(Path(folder), connection, writable=writable)
        try:
            if not store.begun:
                raise store._not_begun()
        except BaseException:
            store.close()
            raise
        return store

    def release(self) -> None:
        """Let other processes write the folder. The open file stays readable."""
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Close the file and release the lock."""
        super().close()
        self.release()

    def add_direction(self, direction: "Direction", facts: DirectionFacts) -> None:
        """Store a direction and write its file.

        A direction that is stored already is kept as it is, because completions were generated with it.

        Args:
            direction: the direction.
            facts: what is known of it without its vector.
        """
        content = direction.to_bytes()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO directions VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET facts = excluded.facts, "
                "file = excluded.file WHERE file IS NULL",
                (direction.name, json.dumps(facts.model_dump(mode="json")), content),
            )
        write_direction(self.folder, direction.name, content)

    def direction_names(self) -> set[str]:
        """Names of all stored directions."""
        return {row[0] for row in self._rows("SELECT name FROM directions WHERE file IS NOT NULL")}

    def direction_file(self, name: str) -> bytes | None:
        """The content of a stored direction's file, or None."""
        rows = self._rows("SELECT file FROM directions WHERE name = ? AND file IS NOT NULL", (name,))
        if rows and not isinstance(rows[0][0], bytes):
            raise damaged(self.folder / FILE, f"the direction {name!r} in it is not a file")
        return rows[0][0] if rows else None

    def direction(self, name: str) -> "Direction | None":
        """A stored direction, or None. It is read from the SQLite file, so a damaged file in `directions/` does no harm."""
        content = self.direction_file(name)
        if content is None:
            return None
        from demur.directions.files.safetensors_file import from_bytes  # imports torch

        return from_bytes(content, f"direction {name} in {self.folder / FILE}")

    @read_from_rows
    def directions(self) -> list[DirectionFacts]:
        """Facts of the directions that were made, in the order of the study."""
        rows = self._rows("SELECT facts FROM directions WHERE facts != '' ORDER BY rowid")
        return [direction_of(json.loads(row[0])) for row in rows]

    @read_from_rows
    def restore_directions(self) -> None:
        """Write the files in `directions/` that are missing or differ from what is stored."""
        for name, content in self._rows("SELECT name, file FROM directions WHERE file IS NOT NULL"):
            write_direction(self.folder, name, content)

    @read_from_rows
    def cells(self) -> list[Cell]:
        """All cells, in order of entry. Cells of earlier versions get the facts that were not stored then."""
        return [cell_of(json.loads(row[0])) for row in self._rows("SELECT facts FROM cells ORDER BY rowid")]

    def progress(self) -> dict[str, int]:
        """Cell -> number of its completions that are stored; cells without any are left out."""
        return dict(self._rows("SELECT cell, count(*) FROM completions GROUP BY cell"))

    def positions(self) -> dict[str, set[int]]:
        """Cell -> positions in its instruction set whose completions are stored."""
        found: dict[str, set[int]] = {}
        for cell, position in self._rows("SELECT cell, position FROM completions"):
            found.setdefault(cell, set()).add(position)
        return found

    def add_completions(self, rows: Iterable[StoredCompletion]) -> None:
        """Store one finished batch in one transaction."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?, ?, ?)",
                [(cell, position, ask, text, json.dumps(list(ids)), own) for cell, position, ask, text, ids, own in rows],
            )

    @read_from_rows
    def completions(self, cell: str | None = None) -> list[StoredCompletion]:
        """Completions in the order of cells and positions.

        Args:
            cell: the key of one cell; all cells by default.
        """
        # "? IS NULL OR c.cell = ?" in one query would read every completion to find those of one cell.
        chosen, values = ("", ()) if cell is None else ("WHERE c.cell = ? ", (cell,))
        rows = self._rows(
            "SELECT c.cell, position, instruction, completion, token_ids, own_turn FROM completions c "
            f"JOIN cells ON cells.key = c.cell {chosen}ORDER BY cells.rowid, position",
            values,
        )
        # One call for all rows takes a tenth of the time of one call for each.
        tokens = json.loads(f"[{','.join(row[4] for row in rows)}]")
        return [
            StoredCompletion(key, position, ask, text, tuple(ids), own)
            for (key, position, ask, text, _, own), ids in zip(rows, tokens, strict=True)
        ]

    def results(self) -> Results:
        """All cells, verdicts, failures and labels of people, read once."""
        cells = with_source_prompts(self.cells(), self.directions())
        return Results(cells, self.verdicts(), self.failures(), self.labelled_sample())

    @contextmanager
    def report_held(self, waiting: Callable[[str], object] = warn) -> Iterator[None]:
        """Lets one process at a time write this folder's report, so that the newest report is made from the newest data.

        Args:
            waiting: is told for whom this process waits, and how long, if another one is writing the report.

        Raises:
            InputError: if the folder cannot be written.
        """
        if not self.writable:
            raise InputError(
                f"{str(self.folder)!r} cannot be written, so its report cannot be rebuilt there; demur report {self.folder} "
                "--out DIR copies the run into another folder and reports it there"
            )
        with file_locks.held(self.folder / REPORT_LOCK, waiting):
            self.check_place()
            yield
            self.check_place()

    def copy_to(self, target: Path) -> None:
        """Copy the run into a new folder; see `copied_run.copy_run`."""
        with schema.in_plain_words(target / FILE):
            copy_run(self._db, self.folder, target)

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the report, as a whole or not at all.

        Args:
            name: its name in the run folder.
            text: its content.

        Returns:
            Its path.
        """
        return replace_file(inner_file(self.folder, name), text)


def _empty(folder: Path) -> None:
    """Remove what demur made in a run folder. Raises `InputError` if that would remove labels that people gave."""
    refuse_to_lose_labels(folder / FILE)
    for path in inner_entries(folder, "directions", "*.safetensors"):
        path.unlink()
    for name in ("summary.json", "report.html", "report-completions.js"):
        inner_file(folder, name).unlink(missing_ok=True)
