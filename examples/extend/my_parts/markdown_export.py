"""An export: the refusal rates of a run as a table in Markdown, for an issue or a lab notebook."""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from demur.runs.run import Run


class Markdown:
    """`demur export RUN --format markdown`."""

    name: ClassVar[str] = "markdown"
    binary: ClassVar[bool] = False

    def content(self, run: "Run") -> str:
        """One line a cell and judge."""
        lines = ["| target | instructions | edit | direction | judge | refused |", "|---|---|---|---|---|---|"]
        for cell in run.summary_record().cells:
            names = (cell.target, cell.instructions, cell.intervention, cell.direction or "", cell.judge)
            lines.append(f"| {' | '.join(names)} | {100 * cell.rate:.0f} % of {cell.n} |")
        return "\n".join(lines) + "\n"
