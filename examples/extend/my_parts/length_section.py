"""A section of the report: how long the completions of every checkpoint are without an edit."""

from collections.abc import Sequence
from typing import ClassVar

from demur.report.figure_contents import Bar, BarBlock, BarRow, Bars, Tip
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.section import ReportView


class Lengths:
    """The figure `lengths`: a bar for each checkpoint."""

    part: ClassVar[str] = "Length of the completions"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure, described once; demur draws it for the page and for paper."""
        found = view.completions[view.completions["intervention"] == "none"]
        numbers = found.groupby("target", sort=False)["n_tokens"].agg(["mean", "min", "max"]).reset_index()
        rows = tuple(
            BarRow(target, (Bar(mean, low, high, f"{mean:.1f}", Tip(target, (f"{mean:.1f} tokens",))),))
            for target, mean, low, high in numbers.itertuples(index=False, name=None)
        )
        title = "Length of completions without an edit"
        said = "; ".join(f"{row.label}: {row.bars[0].text} tokens" for row in rows)
        content = Bars(("tokens",), (BarBlock("", rows),), full=float(numbers["max"].max()))
        caption = "Mean number of tokens; lines go from the shortest to the longest completion."
        return [FigureSpec.of(Sheet("lengths", title, caption, f"{title}. {said}.", numbers, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """No tables other than the numbers of the figure."""
        return []
