"""Reads labels from a file, such as a sheet in which somebody labelled the rows that `demur export` wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from demur.core.errors import InputError, nearest
from demur.inputs.instruction_files import read_row_file

if TYPE_CHECKING:
    from demur.runs.labelling.label_session import LabelSession

COLUMNS = ("key", "index", "label")
"""The columns that a file of labels needs. The first two are those of `demur export`. Rows without a label are left out."""


def import_labels(session: "LabelSession", path: Path) -> int:
    """Read labels from a file and store them, all or none.

    Rates are corrected as if the completions with labels were a random draw among those of their stratum, so a file should have
    labels of randomly chosen rows.

    Args:
        session: the labeller to whom the labels belong.
        path: a file with one of the endings that instruction files have, with the columns `key`, `index` and `label`.

    Returns:
        How many labels were stored.

    Raises:
        InputError: for a file that cannot be read or lacks a column, for a row of a completion that the run does not have, for an
            unknown label, and for a file without any label.
    """
    rows, given = read_row_file(path).rows, []
    for number, row in enumerate(rows, 1):
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            raise InputError(f"row {number} of {str(path)!r} has no {missing[0]!r}; expected {', '.join(COLUMNS)}")
        label = str(row["label"] or "").strip()
        if not label:
            continue
        if label not in session.design.labels:
            raise InputError(f"row {number} of {str(path)!r} has the label {label!r}; {nearest(label, session.design.labels)}")
        given.append((str(row["key"]), _position(row, number, path), label))
    if not given:
        raise InputError(f"{str(path)!r} has {len(rows)} rows and no label in any; fill the column 'label'")
    session.add(given, f"in {str(path)!r}")
    return len(given)


def _position(row: Mapping[str, object], number: int, path: Path) -> int:
    try:
        return int(str(row["index"]))
    except ValueError as error:
        raise InputError(
            f"row {number} of {str(path)!r} has the index {row['index']!r}; expected a whole number, as demur export writes it"
        ) from error
