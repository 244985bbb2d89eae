"""Many controls of one kind are one row, one bar and a band; two are shown one by one; the data files keep each of them."""

import io
from statistics import median

import pytest
from rich.console import Console

from demur.analysis.manifest import DirectionFacts
from demur.report import draw_static, label_shares, result_tables, terminal
from demur.report.cell_view import entries
from demur.report.complete_summary import parsed_summary
from demur.report.draw_plotly import interactive
from demur.report.sections.control_pools import MANY, Spread, folded, pooled, row_labels
from demur.report.sections.edited_rates import EditedRates
from demur.report.sections.section import ReportView
from demur.report.sections.transfer import Transfer
from demur.report.sections.transfer_matrix import matrices
from tests.report.made_run import made_facts, make_run

FIVE = {"controls": 5, "judges": ("prefix", "taxonomy"), "n": 10}


@pytest.fixture(scope="module")
def five():
    return make_run(**FIVE)


def pool_of(summary, **wanted):
    """The rates of the controls at one setting, counted from the summary itself."""
    return [cell.rate for cell in summary.cells if cell.control and all(getattr(cell, key) == wanted[key] for key in wanted)]


def test_pools_hold_the_controls_of_one_cell_and_edit(five):
    found = entries(five[0], "prefix")
    pools = [pool for pool in pooled(found) if pool[0].control]
    # Two targets, two sets, two edits.
    assert sorted(map(len, pools)) == [5] * 8
    assert {len({(one.target, one.instructions, one.intervention) for one in pool}) for pool in pools} == {1}
    assert [len(pool) for pool in folded(entries(make_run(controls=MANY - 1, n=4)[0], "prefix")) if len(pool) > 1] == []
    assert {len(pool) for pool in folded(found)} == {1, 5}


def test_a_spread_in_words():
    assert str(Spread(0.0, 0.125, 0.5, 8)) == "12 % (0 to 50)"
    assert str(Spread(0.1, 0.1, 0.1, 10)) == "10 %"
    assert Spread(0.001, 0.0125, 0.02, 1000).pieces == ("1.2 %", "(0.1 to 2.0)")


def test_kinds_are_pooled_apart_and_two_of_a_kind_stay_alone():
    facts, _ = made_facts(controls=5, judges=("prefix",), n=4)
    for cell in facts["cells"]:
        if cell["control"]:
            cell["control_kind"] = "topics" if cell["source"] in ("random-1", "random-2", "random-3") else "random"
    found = entries(parsed_summary(facts), "prefix")
    assert {len(pool) for pool in pooled(found) if pool[0].control} == {2, 3}
    labels = row_labels([one for one in found if one.target == "after" and one.intervention == "ablate"], lambda one: one.variant)
    assert sorted(set(labels.values())) == ["3 topics", "after", "before", "random-4", "random-5"]


def test_the_terminal_shows_median_and_range(five):
    stream = io.StringIO()
    Console(file=stream, width=80).print(terminal.terminal_table(five[0]))
    text = stream.getvalue()
    lines = [line for line in text.splitlines() if "5 random" in line]
    assert len(lines) == 8
    rates = pool_of(five[0], target="after", instructions="harmful", intervention="ablate", judge="prefix")
    low, middle, high = (f"{100 * pick(rates):.0f}" for pick in (min, median, max))
    assert any(f"{middle} % ({low} to {high})" in line for line in lines)
    assert "Controls are one line, from the lowest to the highest rate (in brackets, after their median, from 3 on)" in " ".join(
        text.split()
    )


def test_tables_of_the_page_have_one_row_and_data_files_have_all(five):
    summary, _ = five
    found = entries(summary)
    shown = result_tables.readable_results(found)
    row = shown[(shown["Direction from"] == "5 random") & (shown["Target"] == "after") & (shown["Judge"] == "prefix")]
    assert len(row) == 4
    assert len(shown) == len(found) - 4 * 16
    assert len(result_tables.result_table(summary)) == len(found)
    rates = pool_of(summary, target="after", instructions="harmless", intervention="add", judge="prefix")
    one = row[(row["Instructions"] == "harmless") & (row["Intervention"] == "add")].iloc[0]
    assert one["Rate"].startswith(f"{100 * median(rates):.0f} % (")
    assert (one["Refused"], one["95 % interval"], one["p"], one["Holm p"]) == ("", "", "", "")
    labels = label_shares.readable_labels(summary, [one for one in found if one.judge == "taxonomy"])
    assert set(labels[labels["Direction from"] == "5 random"]["n"]) == {"50"}
    # Two are as before.
    pair = result_tables.readable_results(entries(make_run(n=4, judges=("prefix",))[0]))
    assert set(pair["Direction from"]) == {"", "before", "after", "random-1", "random-2"}


def test_directions_say_what_they_are_a_null_for_and_their_cosine():
    facts, _ = made_facts(controls=4, judges=("prefix",), n=3)
    made = [facts for facts in facts["directions"] if facts["control"]]
    for cosine, each in zip((-0.5, 0.1, 0.2, 0.62), made, strict=True):
        each |= {"control_kind": "topics", "null_of": "one topic", "cosine": cosine, "stands_beside": "own"}
    summary = parsed_summary(facts)
    shown = result_tables.readable_directions(summary)
    assert list(shown["Direction"]) == ["before", "after", "4 topics"]
    last = shown.iloc[-1]
    assert (last["From"], last["Null for"], last["Cosine with its direction"]) == (
        "control",
        "one topic",
        "0.15 (\N{MINUS SIGN}0.50 to 0.62)",
    )
    whole = result_tables.direction_table(summary)
    assert list(whole["cosine"].dropna()) == [-0.5, 0.1, 0.2, 0.62]
    few = result_tables.readable_directions(parsed_summary(made_facts(controls=1, n=3)[0]))
    assert (list(few["Direction"]), list(few["Cosine with its direction"])) == (["before", "after", "random-1"], ["", "", ""])
    none = result_tables.readable_directions(parsed_summary(made_facts(controls=0, n=3)[0]))
    assert not {"Null for", "Cosine with its direction"} & set(none.columns)
    assert DirectionFacts(name="x").cosine is None


def test_bars_have_a_band_for_each_kind_behind_the_real_directions(five):
    view = ReportView.of(*five)
    figure = next(one for one in EditedRates().figures(view) if one.name == "ablated")
    block = next(block for block in figure.content.blocks if block.title == "on after")
    rows = {row.label: row.bars for row in block.rows}
    assert list(rows) == ["baseline", "before", "after", "5 random"]
    rates = pool_of(view.summary, target="after", instructions="harmful", intervention="ablate", judge="prefix")
    low, middle, high = (pytest.approx(100 * pick(rates)) for pick in (min, median, max))
    bar = rows["5 random"][0]
    assert (bar.low, bar.value, bar.high, bar.control, bar.bands) == (low, middle, high, True, ())
    (band,) = rows["before"][0].bands
    assert (band.low, band.middle, band.high, band.tip.name) == (low, middle, high, "5 random")
    assert rows["baseline"][0].bands == ()
    assert "3 or more controls of one kind are one bar" in figure.caption
    assert len(figure.sheets[0].data) == 2 * 2 * (1 + 2 + 5)
    assert sorted(set(figure.sheets[0].readable["direction"])) == ["5 random", "after", "baseline", "before"]
    assert "5 random on after, harmful: " in figure.sheets[0].alternative
    pair = next(one for one in EditedRates().figures(ReportView.of(*make_run(n=4))) if one.name == "ablated")
    assert all(bar.bands == () for block in pair.content.blocks for row in block.rows for bar in row.bars)
    assert "one bar: its length" not in pair.caption


def test_bands_have_the_setting_of_their_bar():
    view = ReportView.of(*make_run(controls=3, coefficients=(1.0, 2.0), judges=("prefix",), n=12))
    figure = next(one for one in EditedRates().figures(view) if one.name == "added")
    for row in figure.content.blocks[1].rows:
        for bar, label in zip(row.bars, ("harmful", "harmless"), strict=True):
            if bar.bands:
                dose = 1.0 if "1 raw" in row.label else 2.0
                rates = pool_of(view.summary, target="after", instructions=label, intervention="add", coefficient=dose)
                assert bar.bands[0].low == pytest.approx(100 * min(rates))
                assert len(bar.bands) == 1


def test_bands_are_drawn_behind_the_bars_and_over_the_whole_row(five, real_figures):
    view = ReportView.of(*five)
    figure = next(one for one in EditedRates().figures(view) if one.name == "ablated")
    drawn = interactive(figure)
    bars = [trace for trace in drawn.data if trace["type"] == "bar" and trace["xaxis"] == "x"]
    areas, front = bars
    assert drawn.layout["barmode"] == "overlay"
    assert (areas["width"], front["width"]) == (1, 0.72)
    wide = [a + b for a, b in zip(areas["base"], areas["x"], strict=True)]
    bands = [band for block in figure.content.blocks for row in block.rows for band in row.bars[0].bands]
    assert wide == pytest.approx([band.high for band in bands], abs=0.01)
    assert all("5 random" in text for text in areas["customdata"])
    static = draw_static.draw(figure.content)
    patches = [patch for axes in static.axes for patch in axes.patches if patch.get_height() == pytest.approx(1.0)]
    # Two real directions on two targets, with two sets each.
    assert len(patches) == 8
    assert all(patch.get_alpha() < 0.3 for patch in patches)


def test_transfer_has_one_row_for_many_controls(five):
    view = ReportView.of(*five)
    made = matrices(view.summary, view.entries)
    figure = Transfer().figures(view)[0]
    for matrix, one in zip(made, figure.content.maps, strict=True):
        assert len(matrix.rows) == 1 + 2 + 5
        assert one.rows == ("baseline", "before", "after", "5 random")
        assert (one.controls, one.rules) == (frozenset(("5 random",)), (1, 3))
        rates = [matrix.cells[f"random-{number}", "after"].rate for number in range(1, 6)]
        tile = one.tiles[3][one.columns.index("after")]
        assert tile.value == pytest.approx(median(rates))
        shown = result_tables.readable_matrix(matrix)
        assert list(shown["Direction from"]) == list(one.rows)
        assert shown["after"].iloc[3] == str(Spread(min(rates), median(rates), max(rates), 10))
        assert len(result_tables.matrix_table(matrix)) == 8
    assert "3 or more controls of one kind are one row" in figure.caption
    assert "one row: their median" not in Transfer().figures(ReportView.of(*make_run(n=3)))[0].caption


def test_more_controls_do_not_make_the_page_longer():
    small, large = (entries(make_run(controls=controls, judges=("prefix",), n=3)[0]) for controls in (3, 20))
    assert len(large) > len(small)
    assert len(result_tables.readable_results(small)) == len(result_tables.readable_results(large))
