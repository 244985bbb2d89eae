"""The report of a run: figures, tables and one self-contained page, all made from its summary and completions.

The same input gives the same bytes. Each file is replaced as a whole, and figures and tables of an earlier report that this one
no longer has are removed; nothing else in the run folder is touched.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.core.atomic_files import replace_file

if TYPE_CHECKING:
    import pandas

_OWN = re.compile(
    r"rates|(added|ablated)(-\d+)?|transfer-(add|ablate)(-.+)?-(harmful|harmless)|cosines(-by-layer)?|separation|norms|projections"
    r"|results|directions|labels|published"
)
"""The names that a report gives its figures and tables."""


def write_report(folder: Path, summary: dict[str, Any], completions: "pandas.DataFrame") -> Path:
    """Write `report.html`, `figures/` and `tables/` into a run folder and return the page's path.

    Raises `InputError` where the summary holds no judged cell, or the completions do not belong to it.
    """
    from demur.report import label_shares, published_tables, tables
    from demur.report.cell_view import entries, judges
    from demur.report.figures import draw
    from demur.report.layers_static import draw_layers
    from demur.report.page import render
    from demur.report.payload import payload
    from demur.report.rates_plotly import interactives
    from demur.report.style import KINDS, colours, save
    from demur.report.transfer_matrix import matrices

    judged = judges(summary)
    found = entries(summary)
    first = [entry for entry in found if entry.judge == judged[0]]
    data = payload(str(summary["study"]["name"]), first, judged, completions)
    moved = matrices(first)
    drawn = [*draw(summary, first, moved), *draw_layers(summary, first, colours(list(summary["checkpoints"])), completions)]
    drawings = [(drawing, save(drawing.figure, "svg")) for drawing in drawn]
    live = interactives(summary, first, moved, completions)
    page = render(summary, found, judged, drawings, live, moved, data)

    files: dict[Path, bytes] = {}
    for drawing, svg in drawings:
        for kind in KINDS:
            files[folder / "figures" / f"{drawing.name}.{kind}"] = svg if kind == "svg" else save(drawing.figure, kind)
    name = str(summary["study"]["name"])
    written = [
        ("results", tables.result_table(summary), tables.readable_results(found), f"Refusals in every cell of {name}"),
        ("directions", tables.direction_table(summary), tables.readable_directions(summary), f"Directions of {name}"),
        *((matrix.name, tables.matrix_table(matrix), tables.readable_matrix(matrix), matrix.title) for matrix in moved),
    ]
    kinds = label_shares.labelled(found)
    if kinds:
        written.append(
            ("labels", label_shares.label_table(kinds), label_shares.readable_labels(kinds), f"Labels in every cell of {name}")
        )
    numeric = tables.NUMERIC | {"n", *label_shares.label_names(kinds)}
    if summary.get("published"):
        full, readable = published_tables.published_table(summary), published_tables.readable_published(summary)
        written.append(("published", full, readable, f"Published and measured refusals of {name}"))
    for stem, full, readable, caption in written:
        files[folder / "tables" / f"{stem}.csv"] = full.to_csv(index=False, lineterminator="\n").encode()
        files[folder / "tables" / f"{stem}.tex"] = tables.latex(readable, caption, f"tab:{stem}", numeric).encode()
    path = folder / "report.html"
    files[path] = page.encode()
    for target, content in files.items():
        replace_file(target, content)
    _remove_stale(folder, set(files))
    return path


def _remove_stale(folder: Path, kept: set[Path]) -> None:
    for inner, kinds in (("figures", (".svg", ".png", ".pdf")), ("tables", (".csv", ".tex"))):
        for path in (folder / inner).glob("*"):
            if path.suffix in kinds and _OWN.fullmatch(path.stem) and path not in kept:
                path.unlink()
