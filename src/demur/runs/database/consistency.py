"""Checks that what a run stores about itself fits together, before anything is computed from it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from demur.analysis.cell import Cell
from demur.analysis.manifest import Manifest
from demur.analysis.study_facts import StudyFacts
from demur.core.errors import InputError
from demur.runs.database.damage import FILE, damaged


def check_consistent(folder: Path, manifest: Manifest, cells: Sequence[Cell]) -> None:
    """Check that what a run stores about itself fits together.

    Args:
        folder: the run folder.
        manifest: what the run stores about itself.
        cells: its cells.

    Raises:
        InputError: if the study cannot be read, names no judge, or names code in the run folder; or if a cell belongs to nothing
            that the run describes.
    """
    file = folder / FILE
    try:
        study = StudyFacts.of(manifest.study)
    except ValueError as error:
        raise damaged(file, f"the study in it cannot be read: {error}") from error
    if not study.judges:
        raise damaged(file, "its study names no judge")
    _refuse_own_code((manifest.study, manifest.added_judges, [cell.intervention for cell in cells]), folder)
    for cell in cells:
        if cell.instructions not in manifest.instructions:
            raise damaged(file, f"the cell {cell.key!r} uses the instructions {cell.instructions!r}, which the run does not have")


def _refuse_own_code(named: object, folder: Path) -> None:
    """Refuse a run that names a part in a Python file of its own folder, which `import` finds where the folder is on the path."""
    for module in {found[1] for text in _texts(named) if (found := _PART.fullmatch(text))}:
        spec = None
        with suppress(ImportError, ValueError):
            spec = find_spec(module)
        origins = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if any(origin and Path(origin).resolve().is_relative_to(folder.resolve()) for origin in origins):
            raise InputError(
                f"the run in {str(folder)!r} names {module!r}, which is code in its own folder, and demur runs no code of a run "
                "folder; read the code, and install it elsewhere if you trust it"
            )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*map(str, value), *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


_PART = re.compile(r"(\w+)(?:\.\w+)*:[\w.]+")
"""A part as a study names it, `module:Class`, with the outermost package as a group."""
