"""Names of prompt formats that a run keeps: cells and directions are stored under them, so a run goes on with its own names."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from demur.core.atomic_files import is_file
from demur.runs import schema
from demur.runs.database.damage import FILE
from demur.runs.store import Store
from demur.study.shorthand.named_formats import named_as_in_run
from demur.study.spec import Study, make_study


def with_kept_names(study: Study, folder: Path, tell: Callable[[str], object]) -> Study:
    """The study with the names that a run folder has for its prompt formats. Changes nothing in the folder.

    Args:
        study: the study.
        folder: the run folder; it may be missing.
        tell: called with one sentence if the folder has another name for a format.

    Returns:
        The study; the same one if no name differs.
    """
    file = folder / FILE
    if not is_file(file):
        return study
    connection, writable = schema.connect_to_read(file)
    with closing(Store(folder, connection, writable=writable)) as store:
        if not store.begun:
            return study
        stored = store.manifest().study
    found, names = named_as_in_run(study.model_dump(mode="json"), stored)
    if not names:
        return study
    kept = ", ".join(f"{its!r} for {mine!r}" for mine, its in names.items())
    tell(f"{str(folder)!r} keeps the names of prompt formats that it began with: {kept}")
    return make_study(found, f"study {study.name!r}")
