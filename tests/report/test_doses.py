"""Doses as lines: which runs have them, which numbers they show, and what stands beside them."""

import pytest

from demur.analysis.summary import MeasurementSummary
from demur.core.number_format import TIMES
from demur.report.draw_plotly import interactive
from demur.report.draw_static import draw
from demur.report.sections.section import ReportView, figures_of
from demur.report.style import GREY
from tests.report.made_run import make_run

DOSES = (-1.0, 0.5, 2.0)


@pytest.fixture(scope="module")
def view():
    return ReportView.of(*make_run(n=10, coefficients=DOSES, controls=2))


@pytest.fixture(scope="module")
def figure(view):
    return figures_of(view)["doses-add-raw"]


def test_a_run_with_one_coefficient_has_no_such_figure():
    assert not [name for name in figures_of(ReportView.of(*make_run(n=3))) if name.startswith("doses")]


def test_every_dose_of_every_direction_is_on_its_line(view, figure):
    assert figure.content.horizontal == (-1.0, 0.0, 0.5, 2.0)
    assert figure.content.axis == f"coefficient ({TIMES} raw norm)"
    assert [panel.heading for panel in figure.content.panels] == [
        f"{target}, {kind} instructions" for target in ("before", "after") for kind in ("harmful", "harmless")
    ]
    seen = 0
    for panel in figure.content.panels:
        target, instructions = panel.heading.removesuffix(" instructions").split(", ")
        here = [e for e in view.entries if (e.target, e.instructions) == (target, instructions)]
        baseline = next(e for e in here if not e.edited)
        bands = {band.name: band for band in panel.bands}
        for line in panel.lines:
            assert line.values[1] == baseline.rate
            if line.thin:
                continue
            for place, value, bounds in zip(figure.content.horizontal, line.values, bands[line.name].bounds, strict=True):
                if place == 0.0:
                    continue
                (cell,) = [
                    e for e in here if e.kind == "add" and e.source == line.name and e.cell.coefficient == place and not e.control
                ]
                assert (value, bounds) == (cell.rate, cell.interval)
                seen += 1
    assert seen == 4 * 2 * len(DOSES)


def test_the_probability_of_a_refusal_has_a_panel_where_it_was_measured():
    summary, completions = make_run(n=10, coefficients=DOSES)
    measured = [
        MeasurementSummary(
            name="refusal-probability", version=1, subject=cell.key, settings={},
            summary={"judge": "prefix", "mean": (cell.coefficient or 0.0) / 4, "n": 5, "ci95": [0.0, 0.9]},
        )
        for cell in summary.cells
        if cell.judge == "prefix" and (cell.coefficient or 0) >= 0 and not cell.control
    ]  # fmt: skip
    made = figures_of(ReportView.of(summary.model_copy(update={"measurements": tuple(measured)}), completions))["doses-add-raw"]
    rates, probabilities = made.content.panels[:2]
    assert (rates.title, probabilities.title) == ("refused", "probability")
    (line,) = [one for one in probabilities.lines if one.name == "before"]
    assert line.values == (None, 0.0, 0.125, 0.5)
    assert line.notes[3] == "50 % [0, 90], 5 instructions"
    assert "exact probability of a refusal" in made.caption
    interactive(made)
    draw(made.sheets[0].content)


def test_controls_are_thin_grey_lines_with_one_name(figure):
    for panel in figure.content.panels:
        thin = [line for line in panel.lines if line.thin]
        assert len(thin) == 2
        assert {(line.colour, line.name) for line in thin} == {(GREY, "random directions (controls)")}
        assert not {line.name for line in thin} & {band.name for band in panel.bands}
    live = interactive(figure)
    named = [trace["name"] for trace in live.data if trace["showlegend"]]
    assert sorted(named) == ["after", "before", "random directions (controls)"]


def test_a_click_on_a_dose_selects_its_completions(figure):
    lines = [trace for trace in interactive(figure).data if "meta" in trace]
    assert lines[-1]["meta"]["selects"][-1].startswith("target=after&instructions=harmless&edit=add+")
