"""Runs of many checkpoints: small pages with completions beside them, folded tables in the terminal, figures of some of many."""

import re
from contextlib import closing
from io import StringIO

import pytest
from rich.console import Console

from benchmarks.made_runs import Shape, write_run
from demur.analysis.lineages.lineage_trends import trend
from demur.report.large_runs import completions_file
from demur.report.large_runs.completions_file import NAME
from demur.report.large_runs.evenly_spaced import MOST_SHOWN, axis_ticks
from demur.report.large_runs.terminal_folded import MOST_LINES
from demur.report.sections.control_pools import MANY_OTHERS
from demur.report.sections.section import ReportView, figures_of
from demur.report.terminal import MOST_DIFFERENCES, terminal_comparison, terminal_table
from demur.report.write_report import made_report
from demur.runs.compare import compare_runs
from demur.runs.run import open_run
from tests.report.chromium import needs_chromium, until, watched

CHECKPOINTS, ASKED = MANY_OTHERS + 2, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("large") / "run", Shape(CHECKPOINTS, ASKED, controls=5, lineage=True))


@pytest.fixture(scope="module")
def run(folder):
    with open_run(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def view(run):
    return ReportView.of(run.summary_record(), run.completions())


def printed(table):
    stream = StringIO()
    Console(file=stream, width=80).print(table)
    return stream.getvalue()


def test_the_terminal_has_one_line_for_all_cells_of_one_kind(view):
    text = printed(terminal_table(view.summary))
    assert text.count("\n") <= MOST_LINES
    assert f"{CHECKPOINTS * (CHECKPOINTS - 1)}" in text
    others = [cell for cell in view.summary.cells if cell.edited and not cell.control and cell.source != cell.target]
    low, high = (pick(cell.rate for cell in others) for pick in (min, max))
    assert f"({100 * low:.0f} to {100 * high:.0f})" in text
    assert "step9000" not in text


def test_a_comparison_of_large_runs_shows_the_cells_that_differ_most(run, tmp_path):
    other = write_run(tmp_path / "other", Shape(CHECKPOINTS, ASKED, controls=5, lineage=True), seed=1)
    with open_run(other) as second:
        found = compare_runs(run, second)
    shown = "\n".join(part if isinstance(part, str) else printed(part) for part in terminal_comparison(found, ["one", "other"]))
    cells = len(found[0].cells)
    assert f"{MOST_DIFFERENCES} of {cells} shared cells" in " ".join(shown.split())
    assert shown.count("\n") <= MOST_LINES
    assert min(cell.p_holm for cell in found[0].cells) == min(cell.p_holm for cell in found[0].cells if cell.cell.target in shown)


def test_bars_show_many_other_directions_as_one_row_and_the_matrix_shows_each(view):
    figures = figures_of(view)
    block = figures["ablated"].content.blocks[0]
    labels = [row.label for row in block.rows]
    assert labels == ["baseline", "step1000", f"{CHECKPOINTS - 1} other checkpoints' directions", "5 random"]
    rates = [
        entry.rate for entry in view.entries if entry.target == "step1000" and entry.edited and entry.source != "step1000"
        and not entry.control
    ]  # fmt: skip
    folded = next(bar for bar in block.rows[2].bars if bar is not None)
    assert (folded.low, folded.high) == (100 * min(rates), 100 * max(rates))
    assert not folded.control
    (matrix,) = figures["transfer"].content.maps
    assert (len(matrix.columns), len(matrix.rows)) == (CHECKPOINTS, CHECKPOINTS + 2)


def test_figures_by_layer_show_some_arms_and_their_files_have_all(view):
    figures = figures_of(view)
    for name in ("separation", "norms"):
        (sheet,) = figures[name].sheets
        assert len(sheet.content.panels[0].lines) == MOST_SHOWN
        assert f"{MOST_SHOWN} of {CHECKPOINTS} arms" in sheet.caption
        assert sum(column.endswith((": AUROC", ": norm")) for column in sheet.data.columns) == CHECKPOINTS
    assert len(figures["projections"].content.strips) == MOST_SHOWN


def test_a_lineage_has_trends_and_what_each_direction_does_in_the_others(view):
    lineage = view.summary.lineage
    harmful, harmless = lineage.trends
    assert (harmful.instructions, harmful.slope > 0.5, harmful.p_holm < 0.05) == ("harmful", True, True)
    assert harmless.p_holm > 0.05
    assert [one.source for one in lineage.reaches] == list(lineage.checkpoints)
    cells = {cell.key: cell for cell in view.summary.cells}
    baselines = {cell.place: cell.rate for cell in cells.values() if not cell.edited}
    for reach in lineage.reaches:
        mine = [cell for cell in cells.values() if cell.source == reach.source and cell.target != reach.source]
        assert reach.change == pytest.approx(sum(cell.rate - baselines[cell.place] for cell in mine) / len(mine))
    assert lineage.cosine_to_last[-1] == pytest.approx(1)
    assert lineage.cosine_to_previous[0] is None
    assert any("Along the 18 checkpoints" in answer.text and answer.shown for answer in view.summary.answers)
    content = figures_of(view)["lineage"].content
    assert content.names == lineage.checkpoints
    assert len(axis_ticks(content.horizontal, content.names)) == MOST_SHOWN


def test_two_checkpoints_are_no_lineage(tmp_path):
    with open_run(write_run(tmp_path / "two", Shape(2, 4, controls=1, lineage=True))) as run:
        assert run.summary_record().lineage is None


def test_the_interval_of_a_trend_covers_the_true_slope():
    import numpy

    draw, covered, false, times = numpy.random.default_rng(0), 0, 0, 400
    rise = numpy.linspace(0, 0.25, 5)
    truth = float(numpy.clip(draw.beta(1, 2, (100_000, 1)) + rise, 0, 1).mean(0) @ WEIGHTS)
    for _ in range(times):
        level = draw.beta(1, 2, (60, 1))
        rising = draw.random((60, 5)) < numpy.clip(level + rise, 0, 1)
        _, (low, high), _ = trend(rising.astype(float).tolist(), range(60))
        covered += low <= truth <= high
        flat = draw.random((60, 5)) < level
        false += trend(flat.astype(float).tolist(), range(60))[2] < 0.05
    assert covered / times >= 0.93
    assert false / times <= 0.075


WEIGHTS = [-0.8, -0.4, 0.0, 0.4, 0.8]
"""The slope over five places from 0 to 1 is the sum of these times the values."""


def test_near_duplicates_widen_the_interval_of_a_trend():
    rows = [[0, 0, 1]] * 20 + [[1, 1, 1]] * 20
    alone, doubled = trend(rows, range(40)), trend(rows, [place // 4 for place in range(40)])
    assert doubled[0] == alone[0]
    assert doubled[1][1] - doubled[1][0] > alone[1][1] - alone[1][0]
    assert doubled[2] > alone[2]


def page_of(run, monkeypatch, most):
    monkeypatch.setattr(completions_file, "MOST_INSIDE", most)
    return made_report(run.summary_record(), run.completions()).write_page(run.path)


@pytest.mark.soak
def test_completions_of_a_large_run_lie_beside_the_page(run, monkeypatch):
    inside = page_of(run, monkeypatch, 10**9).read_text(encoding="utf-8")
    assert not (run.path / NAME).exists()
    page = page_of(run, monkeypatch, 0)
    beside = (run.path / NAME).read_bytes()
    assert len(page.read_bytes()) < len(inside.encode())
    assert "I cannot" in inside
    assert "I cannot" not in page.read_text(encoding="utf-8")
    page_of(run, monkeypatch, 0)
    assert (run.path / NAME).read_bytes() == beside
    assert "file: 'self'" not in inside


@pytest.mark.soak
@needs_chromium
def test_the_page_loads_the_completions_beside_it_when_they_are_opened(run, monkeypatch, browser):
    page = page_of(run, monkeypatch, 0)
    with watched(browser) as open_page:
        opened = open_page(page, drawn=False)
        assert opened.evaluate("document.querySelectorAll('script[src]').length") == 0
        opened.locator("#browser > summary").click()
        until(opened, "document.querySelectorAll('table.completions tbody tr').length === 50")
        total = len(run.completions())
        assert re.search(rf"^{total:,} of {total:,} completions", opened.locator("#status").text_content())


@pytest.mark.soak
@needs_chromium
def test_a_link_into_completions_beside_the_page_marks_the_completion(run, monkeypatch, browser):
    page = page_of(run, monkeypatch, 0)
    with watched(browser) as open_page:
        opened = open_page(page, "target=step2000&edit=ablate+step1000&instruction=harmful+3", drawn=False)
        until(opened, "document.querySelectorAll('.card.chosen').length === 1")


@pytest.mark.soak
@needs_chromium
def test_a_page_without_its_completions_says_where_they_are(run, monkeypatch, tmp_path, browser):
    alone = tmp_path / "report.html"
    alone.write_bytes(page_of(run, monkeypatch, 0).read_bytes())
    with closing(browser.new_context(offline=True)) as context:
        opened = context.new_page()
        opened.goto(alone.as_uri())
        opened.locator("#browser > summary").click()
        until(opened, f"document.getElementById('status').textContent.includes('{NAME}, which is not beside this page')")
        (tmp_path / NAME).write_text('demurCompletions("another", "");\n')
        opened.reload()
        opened.locator("#browser > summary").click()
        until(opened, "document.getElementById('status').textContent.includes('belongs to another report')")
