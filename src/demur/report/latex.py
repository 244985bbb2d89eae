"""LaTeX of a readable table, with every special character escaped."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.core import number_format
from demur.report.result_tables import NUMERIC

if TYPE_CHECKING:
    import pandas

LONG = 45
"""The number of rows above which a LaTeX table may break across pages."""

_APART = "\x00"
"""A placeholder for an empty group while characters are escaped; no name contains it."""

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
    """Text in a form that LaTeX prints unchanged."""
    # Two hyphens in a row would be set as a dash.
    return "".join(_LATEX.get(sign, sign) for sign in text.replace("--", f"-{_APART}-")).replace(_APART, "{}")


def latex(frame: "pandas.DataFrame", caption: str, label: str, numeric: frozenset[str] = NUMERIC) -> str:
    """A readable frame as a booktabs table, or as a longtable if it is long. Its first line names the packages that it needs.

    Columns named in `numeric` are aligned to the right. Some columns with the same value in all rows are moved to the caption, so
    that the tables of most studies fit the width of a page.
    """
    frame, caption = _narrowed(frame, caption)
    columns = [str(name) for name in frame.columns]
    body = [[str(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    shape = "".join("r" if name in numeric else "l" for name in columns)

    def line(values: Sequence[str]) -> str:
        # LaTeX would read a bracket at the start of a row as an optional argument of the \\ before it. Braces prevent this.
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
"""Columns that are moved to the caption if they have only one value."""


def _narrowed(frame: "pandas.DataFrame", caption: str) -> "tuple[pandas.DataFrame, str]":
    """The frame without the columns that are moved to the caption, and that caption. Fingerprints are only in the CSV file."""
    drop = [name for name in ("Fingerprint",) if name in frame.columns]
    for name in _SAID_ONCE:
        said = set(frame[name]) - {""} if name in frame.columns else set()
        if len(said) == 1 and len(frame) > 1:
            drop.append(name)
            caption = f"{caption.rstrip('.')}. {name} {said.pop()}"
    return frame.drop(columns=drop), caption
