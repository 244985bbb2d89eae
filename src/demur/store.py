"""The run folder: one SQLite file is the truth, everything else is rebuilt from it. The only file that writes there.

Every finished batch is committed before the next begins, so a killed run goes on where it stopped and repeats nothing. A folder
that holds another study is refused, never mixed.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import InputError
from demur.judges import Verdict

if TYPE_CHECKING:
    from demur.directions import Direction

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE directions (name TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE cells (key TEXT PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE completions (
    cell TEXT NOT NULL REFERENCES cells (key), position INTEGER NOT NULL,
    instruction TEXT NOT NULL, completion TEXT NOT NULL, token_ids TEXT NOT NULL,
    PRIMARY KEY (cell, position)
) WITHOUT ROWID;
CREATE TABLE verdicts (
    cell TEXT NOT NULL, position INTEGER NOT NULL, judge TEXT NOT NULL,
    refusal INTEGER NOT NULL, label TEXT NOT NULL, evidence TEXT NOT NULL,
    PRIMARY KEY (cell, position, judge)
) WITHOUT ROWID;
"""


class Store:
    """An open run folder. Readers may look while a run writes."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    @classmethod
    def create(cls, folder: Path, study_digest: str, study_toml: str, *, fresh: bool = False) -> "Store":
        """Open the folder for this study, new or to go on. Raises `InputError` where it holds another study or other files.

        `fresh` removes an earlier run of demur from the folder first, and nothing else.
        """
        file = folder / "run.sqlite"
        if fresh and file.is_file():
            for name in ("run.sqlite", "run.sqlite-wal", "run.sqlite-shm", "run.sqlite-journal"):
                (folder / name).unlink(missing_ok=True)
            for path in (folder / "directions").glob("*.safetensors"):
                path.unlink()
        elif not file.exists() and folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{str(folder)!r} holds other files and no run of demur; give an empty or a new folder with --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the run folder {str(folder)!r} cannot be made: {error.strerror}") from error
        store = cls(folder, _connect(file))
        if not store._has_schema():
            with store._transaction() as db:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            store.remember("study", study_digest)
        elif store.recall("study") != study_digest:
            raise InputError(
                f"{str(folder)!r} holds another study ({store.recall('study')}, this one is {study_digest}); "
                "give another --out, or --fresh to start over"
            )
        (folder / "study.toml").write_text(study_toml, encoding="utf-8")
        return store

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """Open a folder that holds a run. Raises `InputError` where it does not."""
        file = Path(folder) / "run.sqlite"
        if not file.is_file():
            raise InputError(f"{str(folder)!r} holds no run of demur (no run.sqlite); make one with demur run STUDY --out DIR")
        store = cls(Path(folder), _connect(file))
        if not store._has_schema():
            raise InputError(f"the run in {str(folder)!r} was not begun; run its study again")
        return store

    def _has_schema(self) -> bool:
        try:
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.DatabaseError as error:
            raise InputError(f"{str(self.folder / 'run.sqlite')!r} is not a run of demur: {error}") from error
        if version not in (0, SCHEMA_VERSION):
            raise InputError(f"the run in {str(self.folder)!r} has format {version}; this version reads {SCHEMA_VERSION}")
        return version == SCHEMA_VERSION

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._db:
            yield self._db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def remember(self, key: str, value: Any) -> None:
        """Keep a fact about the run."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def recall(self, key: str, default: Any = None) -> Any:
        """A fact about the run."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def add_direction(self, direction: "Direction", facts: Mapping[str, Any]) -> None:
        """Write a direction's file, then its entry: an entry without its file cannot be."""
        direction.save(self.folder / "directions" / f"{direction.name}.safetensors")
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO directions VALUES (?, ?)", (direction.name, json.dumps(dict(facts))))

    def direction(self, name: str) -> "Direction | None":
        """A stored direction, or None."""
        if self._db.execute("SELECT 1 FROM directions WHERE name = ?", (name,)).fetchone() is None:
            return None
        from demur.formats import load_direction

        path = self.folder / "directions" / f"{name}.safetensors"
        return load_direction(path) if path.is_file() else None

    def directions(self) -> list[dict[str, Any]]:
        """Facts of all directions, in order of entry."""
        return [json.loads(row[0]) for row in self._db.execute("SELECT facts FROM directions ORDER BY rowid")]

    def add_cells(self, cells: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Enter cells that are not there yet."""
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO cells VALUES (?, ?)", [(key, json.dumps(dict(facts))) for key, facts in cells])

    def cells(self) -> list[dict[str, Any]]:
        """Facts of all cells, in order of entry."""
        return [json.loads(row[0]) for row in self._db.execute("SELECT facts FROM cells ORDER BY rowid")]

    def done(self, cell: str) -> set[int]:
        """Positions of a cell whose completions are stored."""
        return {row[0] for row in self._db.execute("SELECT position FROM completions WHERE cell = ?", (cell,))}

    def add_completions(self, rows: Iterable[tuple[str, int, str, str, Sequence[int]]]) -> None:
        """One finished batch, in one transaction: (cell, position, instruction, text, token ids)."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO completions VALUES (?, ?, ?, ?, ?)",
                [(cell, position, ask, text, json.dumps(list(ids))) for cell, position, ask, text, ids in rows],
            )

    def unjudged(self, judge: str) -> list[tuple[str, int, str, str]]:
        """(cell, position, instruction, text) of completions that this judge has not seen."""
        return self._db.execute(
            "SELECT c.cell, c.position, c.instruction, c.completion FROM completions c LEFT JOIN verdicts v "
            "ON v.cell = c.cell AND v.position = c.position AND v.judge = ? WHERE v.cell IS NULL",
            (judge,),
        ).fetchall()

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
        rows = self._db.execute(
            "SELECT c.cell, position, instruction, completion, token_ids FROM completions c JOIN cells ON cells.key = c.cell "
            "ORDER BY cells.rowid, position"
        )
        return [(cell, position, ask, text, json.loads(ids)) for cell, position, ask, text, ids in rows]

    def verdicts(self) -> list[tuple[str, int, str, bool, str, str]]:
        """All verdicts: (cell, position, judge, refusal, label, evidence)."""
        rows = self._db.execute("SELECT cell, position, judge, refusal, label, evidence FROM verdicts")
        return [(cell, position, judge, bool(refusal), label, why) for cell, position, judge, refusal, label, why in rows]


def _connect(file: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(file, timeout=10)
        # Write-ahead log: readers do not wait for the run, and a commit survives a killed process.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        raise InputError(f"{str(file)!r} cannot be opened as a run of demur: {error}") from error
    return connection
