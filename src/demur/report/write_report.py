"""Writes the report of a run: figures, tables and one self-contained page, all made from its summary and completions.

The same input gives the same bytes. Each file is replaced as a whole. Figures and tables that only an earlier report had are
removed; nothing else in the run folder is changed.
"""

import re
from collections.abc import Collection, Sequence
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

from demur.analysis.summary import Summary
from demur.core.atomic_files import replace_file

if TYPE_CHECKING:
    import pandas

    from demur.report.figure_spec import TableSpec
    from demur.report.sections.section import MadeSection, ReportView

_LISTED = re.compile(r'<meta name="demur-files" content="([^"]*)">')
"""Where a page lists the figures and tables that were written with it."""

_UNLISTED = re.compile(
    r"rates|(added|ablated)(-\d+)?|transfer-(add|ablate)(-.+)?-(harmful|harmless)|cosines(-by-layer)?|separation|norms|projections"
    r"|results|directions|labels|published"
)
"""The names of figures and tables of the versions whose pages do not list them. It stays as it is: newer pages have the list."""


def write_report(folder: Path, summary: Summary, completions: "pandas.DataFrame") -> Path:
    """Write `report.html`, `figures/` and `tables/` into a run folder.

    Args:
        folder: the run folder.
        summary: the run's summary.
        completions: one row a completion, with its cell and every judge's verdict.

    Returns:
        The path of the page.

    Raises:
        InputError: if the summary holds no judged cell, the completions do not belong to it, or a section cannot be used.
    """
    from demur.report.draw_static import draw
    from demur.report.latex import latex
    from demur.report.page import render
    from demur.report.page_figures import Drawn
    from demur.report.payload import payload
    from demur.report.result_tables import NUMERIC
    from demur.report.sections.section import ReportView, made_sections
    from demur.report.style import KINDS, save

    view = ReportView.of(summary, completions)
    data = payload(str(summary.study["name"]), view.entries, view.judges, completions)
    made = made_sections(view)
    drawn = {}
    for sheet in (sheet for section in made for figure in section.figures for sheet in figure.sheets):
        drawing = draw(sheet.content)
        drawn[sheet.name] = Drawn(drawing, save(drawing, "svg"))
    tables = _tables(view, made)
    names = [*(f"figures/{name}" for name in drawn), *(f"tables/{table.name}" for table in tables)]
    page = render(view, made, drawn, data, names)

    files: dict[Path, bytes] = {}
    for name, one in drawn.items():
        for kind in KINDS:
            files[folder / "figures" / f"{name}.{kind}"] = one.svg if kind == "svg" else save(one.figure, kind)
    for table in tables:
        files[folder / "tables" / f"{table.name}.csv"] = table.data.to_csv(index=False, lineterminator="\n").encode()
        text = latex(table.readable, table.caption, f"tab:{table.name}", NUMERIC | table.numeric)
        files[folder / "tables" / f"{table.name}.tex"] = text.encode()
    for target, content in files.items():
        replace_file(target, content)
    path = folder / "report.html"
    # The page is replaced last: if this process is stopped before, the old page still lists the files that must be removed.
    for stale in earlier_files(folder):
        if stale not in files:
            stale.unlink()
    replace_file(path, page.encode())
    return path


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
        Those that its page lists; where the page is of a version that lists none, those with a name that this version gave.
    """
    page = folder / "report.html"
    found = _LISTED.search(page.read_text(encoding="utf-8")) if page.is_file() else None
    listed: Collection[str] | None = None if found is None else set(unescape(found[1]).split())
    files = []
    for inner, kinds in (("figures", (".svg", ".png", ".pdf")), ("tables", (".csv", ".tex"))):
        for path in sorted((folder / inner).glob("*")):
            own = _UNLISTED.fullmatch(path.stem) if listed is None else f"{inner}/{path.stem}" in listed
            if path.suffix in kinds and own:
                files.append(path)
    return files
