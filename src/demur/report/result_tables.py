"""The tables of a run as data frames.

Most have two forms: one with all digits for the CSV files, and one with labels and rounded numbers for LaTeX and the page.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.analysis.summary import Summary
from demur.core import number_format
from demur.report.cell_labels import BASELINE, direction_labels
from demur.report.cell_view import Entry, entries
from demur.report.sections.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas

_RATES = {"Refused", "No verdict", "Rate", "95 % interval", "Published", "Measured", "Change", "Difference", "p", "Holm p"}
NUMERIC = frozenset({*_RATES, "Layer", "Raw norm", "Mean residual norm"})
"""Readable columns that are aligned to the right."""


def result_table(summary: Summary) -> "pandas.DataFrame":
    """One row for each cell and judge, in reading order. Rates are fractions, `change` is in percentage points."""
    return result_frame(entries(summary))


def result_frame(found: Sequence[Entry]) -> "pandas.DataFrame":
    """The same table for the given entries."""
    import pandas

    rows = [
        {
            **identity(entry),
            "refusals": entry.refusals,
            "rate": entry.rate,
            "ci_low": entry.interval[0],
            "ci_high": entry.interval[1],
            "change": None if entry.change is None else 100 * entry.change,
            "p_value": entry.p_value,
            "p_holm": entry.p_holm,
        }
        for entry in found
    ]
    frame = pandas.DataFrame(rows)
    return frame.astype({"layer": "Int64", **dict.fromkeys(("coefficient", "change", "p_value", "p_holm"), "float64")})


def identity(entry: Entry) -> dict[str, object]:
    """The columns of a CSV file that name the cell and the judge of a row, and the number of completions."""
    return {
        "target": entry.cell.target,
        "prompt": entry.cell.prompt,
        "instructions": entry.instructions,
        "intervention": entry.intervention,
        "source": entry.source,
        "direction": entry.cell.direction,
        "control": entry.control,
        "layer": entry.cell.layer,
        "layers": "+".join(map(str, entry.cell.layers or ())),
        "sites": "+".join(entry.cell.sites or ()),
        "positions": entry.cell.positions,
        "coefficient": entry.cell.coefficient,
        "unit": entry.cell.unit,
        "judge": entry.judge,
        "n": entry.n,
    }


def readable_results(found: Sequence[Entry]) -> "pandas.DataFrame":
    """The readable table of entries. Prompt and judge are left out if there is only one, failures of judges if there are none."""
    import pandas

    rows = [
        {
            "Target": entry.cell.target,
            "Prompt": entry.cell.prompt,
            "Instructions": entry.instructions,
            "Intervention": BASELINE if not entry.edited else entry.intervention,
            "Direction from": "" if not entry.edited else entry.direction,
            "Layer": number_format.number(entry.cell.layer),
            "Coefficient": entry.dose.replace("-", number_format.MINUS, 1),
            "Judge": entry.judge,
            "Refused": f"{entry.refusals}/{entry.n}",
            "No verdict": str(entry.cell.failures),
            "Rate": f"{100 * entry.rate:.1f} %",
            "95 % interval": number_format.interval(entry.interval),
            "Change": number_format.points(entry.change),
            "p": number_format.p_value(entry.p_value),
            "Holm p": number_format.p_value(entry.p_holm),
        }
        for entry in found
    ]
    frame = pandas.DataFrame(rows)
    same = [name for name in ("Prompt", "Judge") if frame[name].nunique() == 1]
    return frame.drop(columns=[*same, *([] if any(entry.cell.failures for entry in found) else ["No verdict"])])


def direction_table(summary: Summary) -> "pandas.DataFrame":
    """One row for each direction: where it was read, its norm, and the mean norm of the stream there."""
    import pandas

    names = [
        "name",
        "source",
        "prompt",
        "control",
        "layer",
        "position",
        "site",
        "raw_norm",
        "mean_residual_norm",
        "fingerprint",
        "file",
    ]
    return pandas.DataFrame([{name: getattr(each, name) for name in names} for each in summary.directions], columns=names)


def readable_directions(summary: Summary) -> "pandas.DataFrame":
    """The readable table of directions."""
    import pandas

    labels = direction_labels(summary)
    columns = ["Direction", "From", "Prompt", "Layer", "Position", "Site", "Raw norm", "Mean residual norm", "Fingerprint"]
    rows = [
        (
            labels[each.name],
            "control" if each.control else each.method or "difference of means",
            str(each.prompt or ""),
            number_format.number(each.layer),
            number_format.number(each.position),
            str(each.site or ""),
            number_format.number(each.raw_norm),
            number_format.number(each.mean_residual_norm),
            str(each.fingerprint or ""),
        )
        for each in summary.directions
    ]
    return pandas.DataFrame(rows, columns=columns)


def matrix_table(matrix: Matrix) -> "pandas.DataFrame":
    """A transfer matrix: one row for each source, one column for each target, rates as fractions."""
    import pandas

    cells = [[e.rate if (e := matrix.cells.get((row, column))) else None for column in matrix.columns] for row in matrix.rows]
    frame = pandas.DataFrame(cells, columns=list(matrix.columns), dtype="float64")
    frame.insert(0, "direction from", list(matrix.rows), allow_duplicates=True)
    return frame


def readable_matrix(matrix: Matrix) -> "pandas.DataFrame":
    """The readable table of a transfer matrix, with rates in per cent and intervals."""
    import pandas

    def text(entry: Entry | None) -> str:
        return number_format.DASH if entry is None else number_format.estimate(entry.rate, entry.interval, entry.n)

    rows = [(row, *(text(matrix.cells.get((row, column))) for column in matrix.columns)) for row in matrix.rows]
    return pandas.DataFrame(rows, columns=["Direction from", *matrix.columns])
