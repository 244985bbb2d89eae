"""Published rates in the report: marks, tables, page and terminal agree, and say first that a changed run is no reproduction."""

import csv
import io
import re

import pytest
from rich.console import Console

from demur.core.statistics import fisher, wilson
from demur.report import published_tables
from demur.report.complete_summary import parsed_summary
from demur.report.draw_static import draw
from demur.report.write_report import write_report
from tests.report.made_run import made_facts, make_run, sheets

WORK = "A. Nother & <b>Co</b> 2024, Table 3"


def row(cell, refusals=90, n=100, departures=(), **more):
    """What `published_rows` would say of a cell."""
    figure = {"n": n, "refusals": refusals, "rate": refusals / n, "ci95": list(wilson(refusals, n))}
    keys = ("target", "prompt", "instructions", "intervention", "source", "coefficient", "key", "judge")
    p = fisher(refusals, n, cell["refusals"], cell["n"])
    return {
        **{key: cell[key] for key in keys},
        "work": WORK,
        "note": "",
        "published": figure,
        "measured": {key: cell[key] for key in ("n", "refusals", "rate", "ci95")},
        "difference": cell["rate"] - figure["rate"],
        "p_value": p,
        "differs": p < 0.05,
        "verdicts_changed_at_least": None,
        "settings": "depart" if departures else "as published",
        "departures": list(departures),
        "not_stated": [],
        "reason": "",
        **more,
    }


DEPARTURE = {"setting": "checkpoints.after.model", "published": "big/<model>", "here": "small/model"}


@pytest.fixture(scope="module")
def published():
    summary, completions = made_facts()
    cells = [cell for cell in summary["cells"] if cell["judge"] == "prefix" and not cell["control"]]
    base = next(cell for cell in cells if cell["target"] == "before" and cell["intervention"] == "none")
    after = [cell for cell in cells if cell["target"] == "after" and cell["instructions"] == "harmful"]
    nothing = {
        "measured": None,
        "key": None,
        "judge": None,
        "difference": None,
        "p_value": None,
        "differs": None,
        "settings": None,
    }
    untested = {"p_value": None, "differs": None, "settings": "not all stated", "not_stated": ["dtype", "judges"]}
    summary["published"] = [
        row(base, refusals=40, verdicts_changed_at_least=3),
        *(row(cell, departures=[DEPARTURE]) for cell in after),
        row(after[0], reason="no such cell in this run", **nothing),
        row(base, reason="published without n, so there is no interval and no test", **untested),
    ]
    summary["published"][-1]["published"] = {"n": None, "refusals": None, "rate": 0.13, "ci95": None}
    summary["text_and_code"] = [{"work": WORK, "setting": "direction.layers", "text": "not stated", "code": "14 & more"}]
    return parsed_summary(summary), completions


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("run"), *published).parent


def printed(summary, width=80):
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for part in published_tables.terminal_published(summary):
        console.print(part, markup=False, highlight=False)
    return stream.getvalue()


def test_terminal_fits_eighty_columns_and_says_first_that_it_is_no_reproduction(published):
    summary, _ = published
    text = printed(summary, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text
    assert text.splitlines()[0].strip() == "Published and measured rates: not a reproduction"
    assert len(re.findall(r"\d+ % \[\d+, \d+\]", text)) == 2 * 6 + 1 + 1
    assert "13 %" in text
    assert "verdicts cannot be" in text.replace("\n", " ")
    for words in ("checkpoints.after.model", "big/<model>", "small/model", "direction.layers", "14 & more"):
        assert words in text


def test_terminal_says_nothing_where_nothing_was_published():
    assert printed(make_run(n=3)[0]) == ""


def test_sentences(published):
    summary, _ = published
    said = " ".join(published_tables.verdicts(summary))
    count = len(summary.published)
    assert f"1 of {count} published rates were measured under the published settings" in said
    assert f"Not a reproduction: {count - 3} of {count} published rates" in said
    assert f"Not known to be a reproduction: for 1 of {count} published rates" in said
    assert "The largest such difference in a cell is 3." in said
    assert "Settings that the source does not state: dtype, judges." in said
    assert "no such cell in this run." in said
    assert "published without n" in said
    differ = sum(bool(each.differs) for each in summary.published)
    assert f"differ in {differ} of {count - 2} tested pairs" in said


def test_departures_are_counted_by_rate(published):
    summary, _ = published
    (found,) = published_tables.departures(summary)
    n = len(summary.published)
    assert (found.setting, found.published, found.here) == ("checkpoints.after.model", "big/<model>", "small/model")
    assert found.rates == f"{n - 3} of {n - 1}"


def test_csv_holds_full_numbers(published, folder):
    summary, _ = published
    with (folder / "tables" / "published.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(summary.published)
    for found, each in zip(rows, summary.published, strict=True):
        assert float(found["published_rate"]) == each.published.rate
        assert found["published_n"] == ("" if each.published.n is None else "100")
        assert found["p_value"] == "" if each.p_value is None else float(found["p_value"]) == each.p_value
        assert found["measured_refusals"] == ("" if each.measured is None else str(each.measured.refusals))
    assert rows[1]["departures"] == "checkpoints.after.model: published big/<model>, here small/model"


def test_latex_table_is_written_and_removed_with_its_rows(published, folder, tmp_path):
    text = (folder / "tables" / "published.tex").read_text()
    assert r"\label{tab:published}" in text
    assert "no difference shown" in text
    summary, completions = published
    write_report(tmp_path, summary, completions)
    write_report(tmp_path, summary.model_copy(update={"published": ()}), completions)
    assert not list((tmp_path / "tables").glob("published*"))


def test_figures_mark_published_rates_filled_only_under_the_same_settings(published):
    drawings = {sheet.name: sheet for sheet in sheets(*published)}
    marks = {}
    for name in ("rates", "ablated", "added"):
        for axes in draw(drawings[name].content).axes:
            for line in axes.get_lines():
                if line.get_marker() == "D":
                    marks.setdefault(name, []).extend((round(float(x)), line.get_markerfacecolor()) for x in line.get_xdata())
    assert sorted(marks["rates"]) == [(13, "white"), (40, "black"), (90, "white")]
    assert sorted(marks["ablated"]) == [(13, "white"), (40, "black"), (90, "white"), (90, "white"), (90, "white")]
    assert "Diamonds: published rates, hollow where the settings are not known to be the same." in drawings["rates"].caption
    assert "(published 40 %)" in drawings["rates"].alternative
    assert list(drawings["rates"].data["published"]) == ["40.0 %, 13.0 %", "", "90.0 %", ""]
    assert not any("Diamond" in sheet.caption for sheet in sheets(*make_run()))


def test_the_page_says_it_at_its_head_and_in_a_section(folder):
    text = (folder / "report.html").read_text()
    head = text[: text.index("<main")]
    assert "<b>Not a reproduction.</b>" in head
    assert "checkpoints.after.model" in head
    assert '<a href="#published">Published</a>' in head
    section = text[text.index('<section id="published"') : text.index('<section id="completions"')]
    assert "A. Nother &amp; &lt;b&gt;Co&lt;/b&gt; 2024" in section
    assert "big/&lt;model&gt;" in section
    assert section[: section.index("</section>")].count("<table>") == 3
    assert "docs/differences.md" in text[text.index('<section id="method"') :]
    assert "<b>Co</b>" not in text


def test_a_reproduction_keeps_its_own_summary_at_the_head(published, tmp_path):
    summary, completions = published
    page = write_report(tmp_path, summary.model_copy(update={"published": summary.published[:1]}), completions).read_text()
    assert "Not a reproduction" not in page
    assert "Did safety tuning build on something" in page[: page.index("<main")]
