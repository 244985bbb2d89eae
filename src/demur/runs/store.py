"""The run folder: one SQLite file is the truth, everything else is rebuilt from it. The only file that writes there.

Every finished batch is committed before the next begins, so a killed run goes on where it stopped and repeats nothing. One
process writes a folder at a time; others may read meanwhile. A folder that holds another study is refused, never mixed.
"""

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.core import file_locks
from demur.core.atomic_files import cannot_write, replace_file
from demur.core.errors import InputError
from demur.judges.judge import Verdict
from demur.runs import schema

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.measurements.layerwise import Layerwise

FILE, LOCK, REPORT_LOCK = "run.sqlite", "run.lock", "report.lock"
_LEFT_BY_A_KILL = {LOCK, REPORT_LOCK, *(f"{FILE}.partial{end}" for end in ("", *schema.BESIDE))}
NO_LOCKS = "this file system has no locks: nothing kept a second process from writing the run at the same time"


class Store:
    """An open run folder. Readers may look while a run writes."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: file_locks.Lock | None = None) -> None:
        self.folder = folder
        self._db = connection
        self._lock = lock

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
        """Open the folder for this study, new or to go on, and keep every other process from writing it.

        Raises `InputError` where it holds another study or other files, or another process writes it. `fresh` replaces an earlier
        run of demur in the folder, and removes nothing but what demur made. Where the folder holds another digest, `check_study`
        raises `InputError` if the study cannot go on there; without it, every other digest is refused.
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
        lock = file_locks.hold(folder / LOCK)
        try:
            if fresh and known:
                for path in (*(folder / "directions").glob("*.safetensors"), folder / "summary.json", folder / "report.html"):
                    path.unlink(missing_ok=True)
            if fresh or not known:
                schema.make(file, {"study": study_digest})
            store = cls(folder, schema.connect(file), lock)
            if store.recall("study") != study_digest:
                if check_study is None:
                    raise InputError(
                        f"{str(folder)!r} holds another study ({store.recall('study')}, this one is {study_digest}); "
                        "give another --out, or --fresh to start over"
                    )
                check_study(store)
                store.remember("study", study_digest)
            replace_file(folder / "study.toml", study_toml)
            if not lock.real:
                store.warn([NO_LOCKS])
        except BaseException:
            lock.release()
            raise
        return store

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """Open a folder that holds a run, to read it. Raises `InputError` where it does not."""
        file = Path(folder) / FILE
        if not file.is_file():
            raise InputError(f"{str(folder)!r} holds no run of demur (no {FILE}); make one with demur run STUDY --out DIR")
        store = cls(Path(folder), schema.connect(file))
        if store.recall("study_facts") is None:
            raise InputError(f"the run in {str(folder)!r} was not begun; run its study again")
        return store

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with schema.told(self.folder / FILE), self._db:
            yield self._db

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with schema.told(self.folder / FILE):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside is of one moment, while another process goes on writing."""
        with schema.told(self.folder / FILE):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.rollback()

    def release(self) -> None:
        """Let other processes write the folder. What is open stays readable."""
        if self._lock is not None:
            self._lock.release()

    def close(self) -> None:
        """Close the file, and give the lock back."""
        self._db.close()
        self.release()

    def remember(self, key: str, value: Any) -> None:
        """Keep a fact about the run."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def recall(self, key: str, default: Any = None) -> Any:
        """A fact about the run."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else default

    def warn(self, sentences: Iterable[str]) -> None:
        """Keep what the reader of the numbers should know, each sentence once."""
        known = self.recall("warnings", [])
        new = [sentence for sentence in sentences if sentence not in known]
        if new:
            self.remember("warnings", [*known, *new])

    def add_direction(self, direction: "Direction", facts: Mapping[str, Any]) -> None:
        """Keep a direction with its file. One that is stored already stays: what was generated with it refers to it."""
        content = direction.to_bytes()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO directions VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET facts = excluded.facts, "
                "file = excluded.file WHERE file IS NULL",
                (direction.name, json.dumps(dict(facts)), content),
            )
        self._write_direction(direction.name, content)

    def has_direction(self, name: str) -> bool:
        """Is this direction stored?"""
        return bool(self._rows("SELECT 1 FROM directions WHERE name = ? AND file IS NOT NULL", (name,)))

    def direction(self, name: str) -> "Direction | None":
        """A stored direction, or None. Read from the SQLite file, whatever became of the file in `directions/`."""
        rows = self._rows("SELECT file FROM directions WHERE name = ? AND file IS NOT NULL", (name,))
        if not rows:
            return None
        from demur.directions.files.load_and_save import load_direction

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "direction.safetensors"
            path.write_bytes(rows[0][0])
            return load_direction(path)

    def restore_directions(self) -> None:
        """Write those files in `directions/` that are missing or are not what was stored."""
        for name, content in self._rows("SELECT name, file FROM directions WHERE file IS NOT NULL"):
            self._write_direction(name, content)

    def _write_direction(self, name: str, content: bytes) -> None:
        path = self.folder / "directions" / f"{name}.safetensors"
        if not path.is_file() or path.read_bytes() != content:
            replace_file(path, content)

    def directions(self) -> list[dict[str, Any]]:
        """Facts of all directions, in order of entry."""
        return [json.loads(row[0]) for row in self._rows("SELECT facts FROM directions ORDER BY rowid")]

    def add_layerwise(self, arm: str, facts: Mapping[str, Any], measured: "Layerwise") -> None:
        """Keep what an arm is at every layer, with what that was measured on. One that is stored already stays."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO layerwise VALUES (?, ?, ?)", (arm, json.dumps(dict(facts)), measured.to_bytes()))

    def has_layerwise(self, arm: str) -> bool:
        """Is this arm measured?"""
        return bool(self._rows("SELECT 1 FROM layerwise WHERE arm = ?", (arm,)))

    def layerwise(self) -> "list[tuple[dict[str, Any], Layerwise]]":
        """Facts and measurement of every arm that is measured, in order of entry."""
        from demur.measurements.layerwise import Layerwise

        rows = self._rows("SELECT facts, arrays FROM layerwise ORDER BY rowid")
        return [(json.loads(facts), Layerwise.from_bytes(content)) for facts, content in rows]

    def add_cells(self, cells: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Enter cells that are not there yet."""
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO cells VALUES (?, ?)", [(key, json.dumps(dict(facts))) for key, facts in cells])

    def cells(self) -> list[dict[str, Any]]:
        """Facts of all cells, in order of entry."""
        return [json.loads(row[0]) for row in self._rows("SELECT facts FROM cells ORDER BY rowid")]

    def done(self, cell: str) -> set[int]:
        """Positions of a cell whose completions are stored."""
        return {row[0] for row in self._rows("SELECT position FROM completions WHERE cell = ?", (cell,))}

    def progress(self) -> dict[str, int]:
        """Cell -> number of its completions that are stored; cells without any are left out."""
        return dict(self._rows("SELECT cell, count(*) FROM completions GROUP BY cell"))

    def add_completions(self, rows: Iterable[tuple[str, int, str, str, Sequence[int]]]) -> None:
        """One finished batch, in one transaction: (cell, position, instruction, text, token ids)."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?, ?)",
                [(cell, position, ask, text, json.dumps(list(ids))) for cell, position, ask, text, ids in rows],
            )

    def unjudged(self, judge: str) -> list[tuple[str, int, str, str]]:
        """(cell, position, instruction, text) of completions that this judge has not seen."""
        return self._rows(
            "SELECT c.cell, c.position, c.instruction, c.completion FROM completions c LEFT JOIN verdicts v "
            "ON v.cell = c.cell AND v.position = c.position AND v.judge = ? WHERE v.cell IS NULL",
            (judge,),
        )

    def add_verdicts(self, rows: Iterable[tuple[str, int, Verdict]]) -> None:
        """Verdicts on stored completions."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)",
                [(cell, position, v.judge, int(v.refusal), v.label, v.evidence) for cell, position, v in rows],
            )

    def forget_verdicts(self, judge: str) -> None:
        """Remove all verdicts of one judge, so that it sees every completion anew."""
        with self._transaction() as db:
            db.execute("DELETE FROM verdicts WHERE judge = ?", (judge,))

    def completions(self) -> list[tuple[str, int, str, str, list[int]]]:
        """All completions: (cell, position, instruction, text, token ids), by cell and position."""
        rows = self._rows(
            "SELECT c.cell, position, instruction, completion, token_ids FROM completions c JOIN cells ON cells.key = c.cell "
            "ORDER BY cells.rowid, position"
        )
        return [(cell, position, ask, text, json.loads(ids)) for cell, position, ask, text, ids in rows]

    def verdicts(self) -> list[tuple[str, int, str, bool, str, str]]:
        """All verdicts: (cell, position, judge, refusal, label, evidence), by cell, position and judge."""
        rows = self._rows("SELECT cell, position, judge, refusal, label, evidence FROM verdicts ORDER BY cell, position, judge")
        return [(cell, position, judge, bool(refusal), label, why) for cell, position, judge, refusal, label, why in rows]

    @contextmanager
    def report_held(self) -> Iterator[None]:
        """Wait until no other process writes this folder's report, and keep others waiting: the last to write has read last."""
        with file_locks.held(self.folder / REPORT_LOCK):
            yield

    def write_text(self, name: str, text: str) -> Path:
        """Put a derived file into the folder, as a whole."""
        return replace_file(self.folder / name, text)
