"""Writes the report of a run: one self-contained page, tables and figures, all made from its summary and completions.

The page and the tables are written first. The files of figures take longer, so only those are drawn that show something new.
The same input gives the same bytes. Each file is replaced as a whole. Figures and tables that only an earlier report had are
removed; nothing else in the run folder is changed.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

from demur.analysis.summary import Summary
from demur.core.atomic_files import replace_file
from demur.core.inner_files import inner_entries, inner_file
from demur.core.printable import cell
from demur.core.progress import Phases, no_phases

if TYPE_CHECKING:
    import pandas

    from demur.report.figure_spec import Sheet, TableSpec
    from demur.report.sections.section import MadeSection, ReportView

_LISTED = re.compile(r'<meta name="demur-files" content="([^"]*)">')
"""Where a page lists the figures and tables that were written with it."""

_UNLISTED = re.compile(
    r"rates|(added|ablated)(-\d+)?|transfer-(add|ablate)(-.+)?-(harmful|harmless)|cosines(-by-layer)?|separation|norms|projections"
    r"|results|directions|labels|published"
)
"""The names of figures and tables in versions whose pages do not list them. New names are not added here."""


@dataclass(frozen=True)
class Report:
    """A report that is made but not written yet.

    Attributes:
        view: the run; the warnings of its summary say which sections were left out.
        made: the figures and tables of each section.
        left_out: one sentence for each section that cannot be used.
    """

    view: "ReportView"
    made: "tuple[MadeSection, ...]"
    left_out: tuple[str, ...]

    @property
    def sheets(self) -> "list[Sheet]":
        """Every figure that has files in `figures/`."""
        return [sheet for section in self.made for figure in section.figures for sheet in figure.sheets]

    def write(self, folder: Path) -> Path:
        """Write `report.html`, `tables/` and those files of `figures/` that are missing or out of date.

        Args:
            folder: the run folder.

        Returns:
            The path of the page.

        Raises:
            InputError: if the completions do not belong to the summary, or if an entry of the folder leads out of it.
        """
        path = self.write_page(folder)
        self.draw_pictures(folder)
        return path

    def write_page(self, folder: Path) -> Path:
        """Write `report.html` and `tables/`, and remove the figures and tables that only an earlier report had.

        Of a large run, the completions are written into a file beside the page.

        Args:
            folder: the run folder.

        Returns:
            The path of the page.

        Raises:
            InputError: as `write`.
        """
        from demur.report.large_runs.completions_file import NAME, stored_completions
        from demur.report.page import render
        from demur.report.payload import payload
        from demur.report.pictures.picture_files import picture_paths

        view = self.view
        labels = {name: view.summary.judge_labels[name] for name in view.judges}
        data = payload(str(view.summary.study["name"]), view.all_entries, labels, view.completions, view.summary.labellers)
        completions = stored_completions(data)
        tables = _tables(view, self.made)
        pictures = [sheet.name for sheet in self.sheets]
        names = [*(f"figures/{name}" for name in pictures), *(f"tables/{table.name}" for table in tables)]
        page = render(view, self.made, completions, names)
        kept = set(picture_paths(folder, pictures))
        files: dict[Path, bytes] = {}
        for table in tables:
            files |= {inner_file(folder, f"tables/{name}"): content for name, content in _table_files(table).items()}
        path, beside = inner_file(folder, "report.html"), inner_file(folder, NAME)
        if completions.file is not None:
            files[beside] = completions.file
        for target, content in files.items():
            replace_file(target, content)
        # The page is replaced last. If this process stops before all old files are removed, the old page still lists them.
        for stale in earlier_files(folder):
            if stale not in files and stale not in kept:
                stale.unlink()
        replace_file(path, page.encode())
        if completions.file is None:
            beside.unlink(missing_ok=True)
        return path

    def draw_pictures(self, folder: Path, *, every: bool = False, phases: Phases = no_phases) -> None:
        """Write the files of figures.

        Args:
            folder: the run folder.
            every: whether to draw also those whose files show what they should.
            phases: shows progress.

        Raises:
            InputError: if an entry of the folder leads out of it, or cannot be written.
        """
        from demur.report.pictures.picture_files import update_pictures

        update_pictures(folder, self.sheets, every=every, phases=phases)


def made_report(summary: Summary, completions: "pandas.DataFrame") -> Report:
    """Make the sections of a report.

    Args:
        summary: the run's summary.
        completions: one row a completion, with its cell and every judge's verdict.

    Returns:
        The report. A section of another package that fails is left out, and a warning says so.

    Raises:
        InputError: if the summary holds no judged cell.
    """
    from demur.report.sections.section import ReportView, left_out_sentence, made_sections

    view = ReportView.of(summary, completions)
    made, left_out = made_sections(view)
    kept = []
    for section in made:
        try:
            if not section.shipped:
                _try_all_forms(section)
        except Exception as error:  # a section of another package may describe what cannot be drawn
            left_out.append(left_out_sentence(section.name, error))
        else:
            kept.append(section)
    warned = view.summary.model_copy(update={"warnings": (*view.summary.warnings, *left_out)})
    return Report(ReportView(warned, completions), tuple(kept), tuple(left_out))


def write_report(folder: Path, summary: Summary, completions: "pandas.DataFrame") -> Path:
    """Write `report.html`, `figures/` and `tables/` into a run folder.

    Args:
        folder: the run folder.
        summary: the run's summary.
        completions: one row a completion, with its cell and every judge's verdict.

    Returns:
        The path of the page.

    Raises:
        InputError: if the summary holds no judged cell, or the completions do not belong to it.
    """
    return made_report(summary, completions).write(folder)


def _try_all_forms(section: "MadeSection") -> None:
    """Draws and writes a section of another package in every form, so that it fails here if it fails at all."""
    from demur.report.draw_plotly import interactive
    from demur.report.draw_static import draw
    from demur.report.pictures.inline_svg import inline_svg
    from demur.report.style import save

    for figure in section.figures:
        interactive(figure)
        for sheet in figure.sheets:
            inline_svg(sheet.content)
            save(draw(sheet.content), "svg")
    for table in section.tables:
        _table_files(table)


def _table_files(table: "TableSpec") -> dict[str, bytes]:
    """The files of one table."""
    from demur.report.latex import latex
    from demur.report.result_tables import NUMERIC

    text = latex(table.readable, table.caption, f"tab:{table.name}", NUMERIC | table.numeric)
    return {
        f"{table.name}.csv": table.data.map(cell).rename(columns=cell).to_csv(index=False, lineterminator="\n").encode(),
        f"{table.name}.tex": text.encode(),
    }


def _tables(view: "ReportView", made: "Sequence[MadeSection]") -> "list[TableSpec]":
    """Every table of the report: of all cells, directions, labels and published rates, and those of the sections."""
    from demur.report import label_shares, published_tables, result_tables
    from demur.report.figure_spec import TableSpec

    summary, found = view.summary, view.all_entries
    name = str(summary.study["name"])
    results, directions = result_tables.readable_results(found), result_tables.readable_directions(summary)
    tables = [
        TableSpec("results", f"Refusals in every cell of {name}", result_tables.result_table(summary), results),
        TableSpec("directions", f"Directions of {name}", result_tables.direction_table(summary), directions),
        *(table for section in made for table in section.tables),
    ]
    if kinds := label_shares.labelled(summary, found):
        shares = label_shares.label_table(summary, kinds), label_shares.readable_labels(summary, kinds)
        columns = frozenset({"n", *label_shares.label_names(summary, kinds)})
        tables.append(TableSpec("labels", f"Labels in every cell of {name}", *shares, columns))
    if summary.published:
        published = published_tables.published_table(summary), published_tables.readable_published(summary)
        tables.append(TableSpec("published", f"Published and measured refusals of {name}", *published))
    return tables


def earlier_files(folder: Path) -> list[Path]:
    """The figures and tables in a run folder that an earlier report wrote.

    Args:
        folder: the run folder.

    Returns:
        The files that its page lists. If the page is from a version that lists none, the files with a name that it used.
    """
    page = inner_file(folder, "report.html")
    found = _LISTED.search(_beginning(page)) if page.is_file() else None
    listed: Collection[str] | None = None if found is None else set(unescape(found[1]).split())
    files = []
    for inner, kinds in (("figures", (".svg", ".png", ".pdf")), ("tables", (".csv", ".tex"))):
        for path in inner_entries(folder, inner, "*"):
            own = _UNLISTED.fullmatch(path.stem) if listed is None else f"{inner}/{path.stem}" in listed
            if path.suffix in kinds and own:
                files.append(path)
    return files


def _beginning(page: Path) -> str:
    """The part of a page in which it lists its files. The rest may be as large as its sender likes."""
    with page.open("rb") as file:
        return file.read(1 << 20).decode(errors="replace")
