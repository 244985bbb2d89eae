"""Labels are work of people, so starting a run over does not remove them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from demur.core.errors import InputError
from demur.runs.database.untrusted_file import check_files, limit


def refuse_to_lose_labels(file: Path) -> None:
    """Refuse to replace a run that holds labels of people. A file that cannot be read holds none that could be used.

    Args:
        file: the SQLite file of the run.

    Raises:
        InputError: if it holds labels.
    """
    try:
        check_files(file, writing=False)
        # Read-only, so that SQLite leaves the file and its journal as they are.
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
            limit(db)
            count = db.execute("SELECT count(label) FROM labels").fetchone()[0]
    except (sqlite3.Error, InputError):
        return
    if count:
        raise InputError(
            f"{str(file.parent)!r} holds {count:,} labels that people gave, and --fresh would remove them; give another --out, "
            f"or delete the folder yourself (demur export {file.parent} writes the labels to a file)"
        )
