"""The result table of a run for a paper: `latex`."""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from demur.runs.run import Run


class LatexExport:
    """The refusal rates of all cells as a LaTeX table."""

    name: ClassVar[str] = "latex"
    binary: ClassVar[bool] = False

    def content(self, run: "Run") -> str:
        """The table, with its caption and label.

        Args:
            run: the run.
        """
        from demur.report import result_tables
        from demur.report.cell_view import entries
        from demur.report.complete_summary import completed
        from demur.report.latex import latex

        summary = completed(run.summary_record())
        caption = f"Refusals in every cell of {summary.study['name']}"
        return latex(result_tables.readable_results(entries(summary)), caption, "tab:results")
