"""The tables of a run as data frames, CSV and LaTeX.

Frames hold full numbers and are what the CSV files contain; readable ones hold the words of a paper, and LaTeX is made from them,
with every special character escaped.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from demur.core import number_format
from demur.report.cell_view import BASELINE, Entry, direction_labels, entries
from demur.report.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas

LONG = 45
"""Rows from which on a LaTeX table may break across pages."""

_RATES = {"Refused", "Rate", "95 % interval", "Published", "Measured", "Change", "Difference", "p", "Holm p"}
NUMERIC = frozenset({*_RATES, "Layer", "Raw norm", "Mean residual norm"})
"""Readable columns that are set flush right."""


def result_table(summary: Mapping[str, Any]) -> "pandas.DataFrame":
    """One row a cell and judge, in reading order. Rates are fractions, `change` is in percentage points."""
    return result_frame(entries(summary))


def result_frame(found: Sequence[Entry]) -> "pandas.DataFrame":
    """The same of some entries."""
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


def identity(entry: Entry) -> dict[str, Any]:
    """The columns by which a CSV file says which cell and judge a row is about, and the number of completions."""
    return {
        "target": entry.cell["target"],
        "prompt": entry.cell["prompt"],
        "instructions": entry.instructions,
        "intervention": entry.intervention,
        "source": entry.source,
        "direction": entry.cell["direction"],
        "control": entry.control,
        "layer": entry.cell["layer"],
        "layers": "+".join(map(str, entry.cell.get("layers") or ())),
        "sites": "+".join(entry.cell.get("sites") or ()),
        "positions": entry.cell.get("positions"),
        "coefficient": entry.cell["coefficient"],
        "unit": entry.cell["unit"],
        "judge": entry.judge,
        "n": entry.n,
    }


def readable_results(found: Sequence[Entry]) -> "pandas.DataFrame":
    """Entries in words. Prompt and judge are left out where there is but one."""
    import pandas

    rows = [
        {
            "Target": entry.cell["target"],
            "Prompt": entry.cell["prompt"],
            "Instructions": entry.instructions,
            "Intervention": BASELINE if entry.intervention == "none" else entry.intervention,
            "Direction from": "" if entry.intervention == "none" else entry.direction,
            "Layer": number_format.number(entry.cell["layer"]),
            "Coefficient": entry.dose.replace("-", number_format.MINUS, 1),
            "Judge": entry.judge,
            "Refused": f"{entry.refusals}/{entry.n}",
            "Rate": f"{100 * entry.rate:.1f} %",
            "95 % interval": number_format.interval(entry.interval),
            "Change": number_format.points(entry.change),
            "p": number_format.p_value(entry.p_value),
            "Holm p": number_format.p_value(entry.p_holm),
        }
        for entry in found
    ]
    frame = pandas.DataFrame(rows)
    return frame.drop(columns=[name for name in ("Prompt", "Judge") if frame[name].nunique() == 1])


def direction_table(summary: Mapping[str, Any]) -> "pandas.DataFrame":
    """One row a direction: where it was read and how long it is, beside the mean norm of the stream there."""
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
    return pandas.DataFrame([{name: each.get(name) for name in names} for each in summary["directions"]], columns=names)


def readable_directions(summary: Mapping[str, Any]) -> "pandas.DataFrame":
    """Directions in words."""
    import pandas

    labels = direction_labels(summary)
    columns = ["Direction", "From", "Prompt", "Layer", "Position", "Site", "Raw norm", "Mean residual norm", "Fingerprint"]
    rows = [
        (
            labels[each["name"]],
            "control" if each["control"] else "difference of means",
            str(each["prompt"] or ""),
            number_format.number(each["layer"]),
            number_format.number(each["position"]),
            str(each["site"] or ""),
            number_format.number(each["raw_norm"]),
            number_format.number(each["mean_residual_norm"]),
            str(each["fingerprint"] or ""),
        )
        for each in summary["directions"]
    ]
    return pandas.DataFrame(rows, columns=columns)


def matrix_table(matrix: Matrix) -> "pandas.DataFrame":
    """A transfer matrix: a row a source, a column a target, rates as fractions."""
    import pandas

    cells = [[e.rate if (e := matrix.cells.get((row, column))) else None for column in matrix.columns] for row in matrix.rows]
    frame = pandas.DataFrame(cells, columns=list(matrix.columns), dtype="float64")
    frame.insert(0, "direction from", list(matrix.rows), allow_duplicates=True)
    return frame


def readable_matrix(matrix: Matrix) -> "pandas.DataFrame":
    """The same with rates and intervals in words."""
    import pandas

    def text(entry: Entry | None) -> str:
        return number_format.DASH if entry is None else number_format.estimate(entry.rate, entry.interval, entry.n)

    rows = [(row, *(text(matrix.cells.get((row, column))) for column in matrix.columns)) for row in matrix.rows]
    return pandas.DataFrame(rows, columns=["Direction from", *matrix.columns])


_APART = "\x00"
"""Stands for an empty group while signs are escaped; no name holds it."""

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    number_format.MINUS: "$-$",
    number_format.TIMES: r"$\times$",
    number_format.DASH: "--",
    "`": r"\textasciigrave{}",
    "\n": " ",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}


def latex_escape(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    # Two hyphens in a row would be set as a dash.
    return "".join(_LATEX.get(sign, sign) for sign in text.replace("--", f"-{_APART}-")).replace(_APART, "{}")


def latex(frame: "pandas.DataFrame", caption: str, label: str, numeric: frozenset[str] = NUMERIC) -> str:
    """A readable frame as a booktabs table; a long one as a longtable. Needs nothing but the packages named in its first line.

    Columns named in `numeric` are set flush right. What is the same in every row that has it goes into the caption, so that the
    tables of usual studies fit a page of one column.
    """
    frame, caption = _narrowed(frame, caption)
    columns = [str(name) for name in frame.columns]
    body = [[str(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    shape = "".join("r" if name in numeric else "l" for name in columns)

    def line(values: Sequence[str]) -> str:
        # braces in front: a row that starts with a bracket would be read as an optional argument of the \\ before it
        return (
            " & ".join(f"{{}}{latex_escape(value)}" if value.startswith("[") else latex_escape(value) for value in values)
            + r" \\"
        )

    lines = [line(row) for row in body]
    head = [r"\toprule", line(columns), r"\midrule"]
    title = f"\\caption{{{latex_escape(caption)}}}\\label{{{label}}}"
    small = r"\footnotesize\setlength{\tabcolsep}{3pt}"
    if len(body) > LONG:
        before = ["% needs booktabs, longtable", "{" + small, f"\\begin{{longtable}}{{@{{}}{shape}@{{}}}}", title + r"\\"]
        return "\n".join([*before, *head, r"\endhead", r"\bottomrule", r"\endfoot", *lines, r"\end{longtable}}", ""])
    before = ["% needs booktabs", r"\begin{table}", r"\centering", small, title, f"\\begin{{tabular}}{{@{{}}{shape}@{{}}}}"]
    return "\n".join([*before, *head, *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


_SAID_ONCE = ("Layer", "Coefficient", "Prompt", "Position", "Site")
"""Columns that a paper's table need not have where all rows agree."""


def _narrowed(frame: "pandas.DataFrame", caption: str) -> "tuple[pandas.DataFrame, str]":
    """The frame without those columns, and the caption with what they say; fingerprints are left to the CSV file."""
    drop = [name for name in ("Fingerprint",) if name in frame.columns]
    for name in _SAID_ONCE:
        said = set(frame[name]) - {""} if name in frame.columns else set()
        if len(said) == 1 and len(frame) > 1:
            drop.append(name)
            caption = f"{caption.rstrip('.')}. {name} {said.pop()}"
    return frame.drop(columns=drop), caption
