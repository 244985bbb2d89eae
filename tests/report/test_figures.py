"""Figures against stored ones, by size and by what is written in them; pixels may differ between versions of matplotlib.

`python -m tests.report.test_figures` stores them anew, after looking at them.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from demur.report import draw_static, style
from demur.report.cell_view import entries
from demur.report.draw_plotly import interactive
from demur.report.sections.layer_view import instruction_places
from demur.report.sections.section import ReportView, figures_of
from tests.report.made_run import make_run, sheets

pytestmark = pytest.mark.usefixtures("real_figures")
STORED = Path(__file__).with_name("figures.json")
SHAPES: dict[str, dict[str, Any]] = {
    "pair": {},
    "arms": {"checkpoints": ("base", "chat"), "prompts": ("chatml", "plain"), "controls": 1, "n": 120},
    "one": {"checkpoints": ("only",), "controls": 0, "instructions": ("harmful",)},
}


def drawings(shape):
    return {sheet.name: draw_static.draw(sheet.content) for sheet in sheets(*make_run(**SHAPES[shape]))}


drawn_once = cache(drawings)
"""For what only looks."""


def facts(figure):
    """Size in inches, and the texts in the order in which they were drawn."""
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    width, height = figure.get_size_inches()
    return {"size": [round(float(width), 3), round(float(height), 3)], "texts": sorted(texts)}


def all_facts():
    return {shape: {name: facts(figure) for name, figure in drawn_once(shape).items()} for shape in SHAPES}


def test_figures_are_as_stored():
    assert all_facts() == json.loads(STORED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_figure_is_one_or_two_columns_wide_and_fits_a_page(shape):
    for figure in drawn_once(shape).values():
        width, height = figure.get_size_inches()
        assert width in (3.25, 6.75)
        assert height <= 9.5
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0) >= 0, "something is cut off"
        assert box.x1 <= width
        assert box.y1 <= height


@pytest.mark.parametrize("shape", SHAPES)
def test_a_layout_is_at_rest_behind_one_drawing(shape, monkeypatch):
    """What `settled` freezes is what further drawings would end at."""
    drawn = []

    def twice(figure):
        figure.draw_without_rendering()
        first = [side for axes in figure.axes for side in axes.get_position().bounds]
        figure.draw_without_rendering()
        drawn.append((first, [side for axes in figure.axes for side in axes.get_position().bounds]))
        return figure

    monkeypatch.setattr(draw_static, "settled", twice)
    drawings(shape)
    for first, second in drawn:
        assert first == pytest.approx(second, abs=1e-9)
    assert len(drawn) > 0


def test_colours_can_be_told_apart_without_red_and_green():
    """Brightness alone tells the first checkpoints apart: what is left where colour is not seen or not printed."""

    def brightness(colour):
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    two = [brightness(colour) for colour in style.colours(["base", "chat"]).values()]
    assert abs(two[0] - two[1]) > 0.05
    assert len(set(style.PALETTE)) == len(style.PALETTE) == 7


if __name__ == "__main__":
    STORED.write_text(json.dumps(all_facts(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def test_instructions_without_a_verdict_are_neither_refused_nor_not_refused():
    summary, completions = make_run(n=6)
    found = [entry for entry in entries(summary) if entry.judge == "prefix"]
    whole = {place.verdict for row in instruction_places(summary, found, completions) for place in row.places}
    assert whole == {"refused", "not refused"}
    late = completions[~((completions["instructions"] == "harmful") & (completions["index"] > 2))]
    for row in instruction_places(summary, found, late):
        unanswered = {(place.instructions, place.index) for place in row.places if place.refused is None}
        assert unanswered == {("harmful", 3), ("harmful", 4), ("harmful", 5)}
    failed = completions.astype({"prefix_refusal": object})
    failed.loc[failed["index"] == 0, "prefix_refusal"] = float("nan")  # the judge failed
    for row in instruction_places(summary, found, failed):
        assert {place.index for place in row.places if place.refused is None} == {0}
    figure = figures_of(ReportView.of(summary, late))["projections"]
    named = [text.get_text() for text in draw_static.draw(figure.content).legends[0].get_texts()]
    assert "harmful, no verdict" in named
    assert "harmless, no verdict" not in named
    symbols = [trace["marker"]["symbol"] for trace in interactive(figure).data if trace.get("mode") == "markers"]
    assert {symbol for side in symbols for symbol in side} == {"circle", "circle-open", "x-thin-open"}
