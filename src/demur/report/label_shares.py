"""The kinds of answers in each cell: the share of every label, for judges that have more than two labels.

A refusal rate says nothing about the other completions. These tables show, for example, how many comply, miss the
request, or are broken. A study whose judges all have two labels has no such table.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.analysis.summary import Summary
from demur.core import number_format
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry
from demur.report.complete_summary import completed
from demur.report.result_tables import identity
from demur.report.sections.control_pools import folded, pool_label

if TYPE_CHECKING:
    import pandas


def labelled(summary: Summary, found: Sequence[Entry]) -> list[Entry]:
    """The entries of judges that have more than two labels."""
    labels = completed(summary).judge_labels
    return [entry for entry in found if len(labels[entry.judge]) > 2]


def label_names(summary: Summary, found: Sequence[Entry]) -> list[str]:
    """The labels of these entries' judges, in the judges' own order."""
    labels = completed(summary).judge_labels
    return list(dict.fromkeys(label for entry in found for label in labels[entry.judge]))


def label_table(summary: Summary, found: Sequence[Entry]) -> "pandas.DataFrame":
    """One row for each entry, one column for each label: its share of the judged completions, as a fraction."""
    import pandas

    names = label_names(summary, found)
    rows = [{**identity(entry), **{label: entry.cell.labels.get(label, 0) / entry.n for label in names}} for entry in found]
    return pandas.DataFrame(rows).astype({"layer": "Int64", "coefficient": "float64"})


def readable_labels(summary: Summary, found: Sequence[Entry]) -> "pandas.DataFrame":
    """The readable table of the same shares. The judge is left out if there is only one.

    Many controls of one kind are one row, with the shares in the completions of all of them.
    """
    import pandas

    names = label_names(summary, found)
    rows = []
    for pool in folded(found):
        entry, n = pool[0], sum(one.n for one in pool)
        counts = {label: sum(one.cell.labels.get(label, 0) for one in pool) for label in names}
        rows.append(
            {
                "Target": entry.target,
                "Instructions": entry.instructions,
                "Intervention": BASELINE if not entry.edited else entry.intervention,
                "Direction from": "" if not entry.edited else _source(pool),
                "Judge": entry.judge,
                "n": str(n),
                **{label: number_format.percent(count / n, n) for label, count in counts.items()},
            }
        )
    frame = pandas.DataFrame(rows)
    return frame.drop(columns="Judge") if frame["Judge"].nunique() == 1 else frame


def _source(pool: Sequence[Entry]) -> str:
    return pool[0].variant if len(pool) == 1 else pool_label(pool, lambda entry: entry.variant)
