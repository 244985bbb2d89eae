"""The mean activation difference on unrelated text: a figure of cosines and norms by layer, and its tokens as a table."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.diff.lens_results import LensPlace, LensResult
from demur.core import number_format
from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.diff.what_changed import PART
from demur.report.sections.section import ReportView
from demur.report.style import PALETTE

SHOWN_TOKENS = 5
"""How many tokens of each end the page shows; the CSV file has all that are kept."""


class LensTables:
    """The figure `mean-difference` and the table of the same name."""

    part: ClassVar[str] = PART

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure for each pair."""
        results = view.summary.diff_details.difference_lens
        return [_figure(one, "" if len(results) == 1 else f"-{number}") for number, one in enumerate(results, start=1)]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One table; none for a run that did not measure it."""
        results = view.summary.diff_details.difference_lens
        return [_table(results)] if results else []


def _figure(one: LensResult, number: str) -> FigureSpec:
    import pandas

    lines, bands = [], []
    for place, name in enumerate((one.first, one.second)):
        colour, values = PALETTE[place], [each.cosines[place] for each in one.overall]
        lines.append(Line(f"with the direction of {name}", tuple(each.cosine for each in values), colour))
        bounds = tuple(None if each.null95 is None else (-each.null95, each.null95) for each in values)
        bands.append(Band(f"shuffled labels, {name}", bounds, colour, in_legend=True))
    shares = Line("mean difference", tuple(each.share for each in one.overall), PALETTE[2])
    panels = (
        LinePanel("cosine", tuple(lines), tuple(bands)),
        LinePanel("share of the norm", (shares,), scale="share", short_title="norm"),
    )
    title = f"What training added to the stream on unrelated text: {one.subject}"
    caption = (
        f"The mean difference of both streams, {one.second} minus {one.first}, over {one.texts} harmless instructions read as "
        "plain text, at all token positions but the first. Above: its cosine with each checkpoint's direction at the same layer; "
        "bands: 95 % of the directions for shuffled labels. Below: its norm as a share of the mean norm of the stream."
    )
    rows = [
        {"layer": each.layer, "norm": each.norm, "share of the norm": each.share, "cosine of both halves": each.halves}
        | {f"cosine with {cosine.checkpoint}": cosine.cosine for cosine in each.cosines}
        | {f"shuffled labels, {cosine.checkpoint}": cosine.null95 for cosine in each.cosines}
        for each in one.overall
    ]
    at = one.overall[one.layer]
    said = "; ".join(
        f"cosine with the direction of {each.checkpoint} at layer {one.layer}: {number_format.hundredths(each.cosine) or 'none'}"
        for each in at.cosines
    )
    content = LayerLines(panels, (float(one.layer),), inches=4.4, pixels=560)
    return FigureSpec.of(Sheet(f"mean-difference{number}", title, caption, f"{title}. {said}.", pandas.DataFrame(rows), content))


def _table(results: Sequence[LensResult]) -> TableSpec:
    import pandas

    data = [_numbers(one, place) for one in results for place in one.places]
    readable = []
    for one in results:
        for place in one.places:
            # The mean at every layer, and single positions at the layer of the direction.
            if place.position is None or place.layer == one.layer:
                readable.append({**({"Pair": one.subject} if len(results) > 1 else {}), **_readable(place)})
    caption = (
        "The mean difference of both checkpoints' streams on harmless instructions read as plain text, at every layer (the mean "
        "over positions without the first), and at single positions at the layer of the direction. Norm: as a share of the "
        "stream's. Halves: cosine of the differences of two halves of the texts. Cosine: with a checkpoint's direction; in "
        "brackets what 95 % of directions for shuffled labels stay below. Tokens: the most likely ones if the later checkpoint's "
        "final norm and unembedding read the difference or its opposite."
    )
    numeric = frozenset(
        {"Layer", "Position", "Norm", "Halves", *(f"Cosine, {name}" for one in results for name in (one.first, one.second))}
    )
    return TableSpec("mean-difference", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numeric)


def _numbers(one: LensResult, place: LensPlace) -> dict[str, object]:
    row: dict[str, object] = {"pair": one.subject, **place.model_dump(include={"layer", "position", "norm", "share", "halves"})}
    for each in place.cosines:
        row |= {f"{name} {each.checkpoint}": getattr(each, name) for name in ("cosine", "null95", "p")}
    return {**row, "up": " ".join(map(repr, place.up)), "down": " ".join(map(repr, place.down))}


def _readable(place: LensPlace) -> dict[str, str]:
    row = {
        "Layer": str(place.layer),
        "Position": "mean" if place.position is None else str(place.position),
        "Norm": f"{100 * place.share:.2g} %",
        "Halves": number_format.hundredths(place.halves),
    }
    for each in place.cosines:
        null = "" if each.null95 is None or each.cosine is None else f" [{each.null95:.2f}]"
        row[f"Cosine, {each.checkpoint}"] = number_format.hundredths(each.cosine) + null
    known = place.halves is not None
    row["Tokens"] = " ".join(map(repr, place.up[:SHOWN_TOKENS])) if known else ""
    row["Tokens of the opposite"] = " ".join(map(repr, place.down[:SHOWN_TOKENS])) if known else ""
    return row
