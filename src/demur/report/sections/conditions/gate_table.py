"""The gates of conditional edits: with what a prompt is compared, the threshold, and which share of prompts opens the gate."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import JsonValue

from demur.analysis.summary import MeasurementSummary
from demur.core.edit_words import GATE
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView


class GateTable:
    """The table `gates`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One row for each gate of each target; no table if the run has no gates."""
        import pandas

        gates = [one for one in view.summary.measurements if one.name == GATE]
        if not gates:
            return []
        sets = list(dict.fromkeys(name for one in gates for name in _shares(one)))
        data = [
            {
                "target": one.subject,
                "condition": one.settings.get("direction"),
                "tokens": one.settings.get("tokens"),
                "open": one.summary.get("open"),
                "threshold": one.summary.get("threshold"),
                "found": one.summary.get("found"),
                "f1": one.summary.get("f1"),
                **{f"open {name}": _shares(one).get(name) for name in sets},
            }
            for one in gates
        ]
        readable = [
            {
                "Target": row["target"],
                "Condition": row["condition"],
                "Tokens": row["tokens"],
                "Open": f"{row['open']} {_rounded(row['threshold'])}{' (found)' if row['found'] else ''}",
                "F1": _rounded(row["f1"]),
                **{name.capitalize(): _percent(row[f"open {name}"]) for name in sets},
            }
            for row in data
        ]
        caption = (
            "Gates of conditional edits. Such an edit acts only in rows whose prompt opens the gate: the cosine of the unedited "
            "prompt with the condition direction is above or below the threshold. F1: for harmful training instructions. The "
            "last columns: the share of each set's prompts that opens it. Null directions have the gate of the edit beside them."
        )
        numeric = frozenset({"F1", *(name.capitalize() for name in sets)})
        return [TableSpec("gates", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numeric)]


def _shares(gate: MeasurementSummary) -> dict[str, JsonValue]:
    shares = gate.summary.get("open_shares")
    return shares if isinstance(shares, dict) else {}


def _rounded(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else ""


def _percent(value: object) -> str:
    return f"{100 * value:.0f} %" if isinstance(value, int | float) else ""
