"""What kind of answers each cell holds: the share of every label, for judges that give more than two.

A rate of refusals says nothing of the rest; these tables say how much of it is an answer, talk past the request, or broken text.
A study whose judges give two labels has no such table.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.core import number_format
from demur.judges.judge import get_judge
from demur.report.cell_view import BASELINE, Entry
from demur.report.tables import identity

if TYPE_CHECKING:
    import pandas


def labelled(found: Sequence[Entry]) -> list[Entry]:
    """The entries of judges that give more than two labels."""
    return [entry for entry in found if len(get_judge(entry.judge).labels) > 2]


def label_names(found: Sequence[Entry]) -> list[str]:
    """The labels of these entries' judges, in the judges' own order."""
    return list(dict.fromkeys(label for entry in found for label in get_judge(entry.judge).labels))


def label_table(found: Sequence[Entry]) -> "pandas.DataFrame":
    """One row an entry, one column a label: its share of the cell's completions, as a fraction."""
    import pandas

    names = label_names(found)
    rows = [{**identity(entry), **{label: entry.labels.get(label, 0) / entry.n for label in names}} for entry in found]
    return pandas.DataFrame(rows).astype({"layer": "Int64", "coefficient": "float64"})


def readable_labels(found: Sequence[Entry]) -> "pandas.DataFrame":
    """The same in words. The judge is left out where there is but one."""
    import pandas

    names = label_names(found)
    rows = [
        {
            "Target": entry.target,
            "Instructions": entry.instructions,
            "Intervention": BASELINE if entry.intervention == "none" else entry.intervention,
            "Direction from": "" if entry.intervention == "none" else entry.variant,
            "Judge": entry.judge,
            "n": str(entry.n),
            **{label: number_format.percent(entry.labels.get(label, 0) / entry.n, entry.n) for label in names},
        }
        for entry in found
    ]
    frame = pandas.DataFrame(rows)
    return frame.drop(columns="Judge") if frame["Judge"].nunique() == 1 else frame
