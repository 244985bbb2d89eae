"""The table of label shares: there where a judge gives more than two labels, complete and adding up."""

import csv
import re

import pytest

from demur.judges.taxonomy.taxonomy_judge import LABELS
from demur.report.cell_view import entries
from demur.report.label_shares import label_table, labelled, readable_labels
from demur.report.write_report import write_report
from tests.report.made_run import make_run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    made = make_run(n=8, judges=("prefix", "taxonomy"))
    return made, write_report(tmp_path_factory.mktemp("run"), *made)


def test_shares_are_the_cells_own(written):
    (summary, completions), page = written
    with (page.parent / "tables" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [cell for cell in summary.cells if cell.judge == "taxonomy"]
    assert len(rows) == len(cells)
    assert all(row["judge"] == "taxonomy" for row in rows)
    keys = ("target", "prompt", "instructions", "intervention", "direction", "coefficient")
    found = {tuple(row[key] for key in keys): row for row in rows}
    for cell in cells:
        row = found[tuple("" if getattr(cell, key) is None else str(getattr(cell, key)) for key in keys)]
        given = completions.loc[completions["key"] == cell.key, "taxonomy_label"]
        assert int(row["n"]) == len(given)
        for label in LABELS:
            assert float(row[label]) == pytest.approx((given == label).mean())
        assert sum(float(row[label]) for label in LABELS) == pytest.approx(1)


def test_the_page_and_latex_show_them(written):
    (summary, _), page = written
    html = page.read_text(encoding="utf-8")
    assert "Share of each label of the judge taxonomy" in html
    table = html[html.index("<caption>Share of each label") :]
    table = table[: table.index("</table>")]
    assert ">Refused (prefix)</th>" in table
    frame = readable_labels(summary, labelled(summary, entries(summary)))
    assert table.count("<tr>") == 1 + len(frame)
    assert list(frame.columns[-len(LABELS) :]) == list(LABELS)
    assert "Judge" not in frame.columns
    latex = (page.parent / "tables" / "labels.tex").read_text()
    assert "rules of the judge" not in html
    assert re.search(r"\\begin\{(tabular|longtable)\}\{@\{\}l+r{8}@\{\}\}", latex)


def test_no_table_for_judges_of_two_labels(page, made):
    summary, _ = made
    assert labelled(summary, entries(summary)) == []
    assert not list((page.parent / "tables").glob("labels*"))
    assert "Share of each label" not in page.read_text(encoding="utf-8")


def test_the_table_goes_when_the_judge_does(tmp_path):
    write_report(tmp_path, *make_run(n=3, judges=("prefix", "taxonomy")))
    assert (tmp_path / "tables" / "labels.csv").is_file()
    write_report(tmp_path, *make_run(n=3))
    assert not list((tmp_path / "tables").glob("labels*"))


def test_a_label_that_no_completion_got_is_nought():
    summary, _ = make_run(n=3, judges=("taxonomy",), checkpoints=("only",), controls=0)
    cells = tuple(cell.model_copy(update={"labels": {"echo": 3}}) for cell in summary.cells)
    summary = summary.model_copy(update={"cells": cells})
    frame = label_table(summary, entries(summary))
    assert frame["echo"].tolist() == [1.0] * len(frame)
    assert not frame[[label for label in LABELS if label != "echo"]].to_numpy().any()


def test_versions_of_rules_are_in_the_method(tmp_path):
    summary, completions = make_run(n=3, judges=("taxonomy",))
    page = write_report(tmp_path, summary.model_copy(update={"judges": {"taxonomy": 7}}), completions)
    html = page.read_text(encoding="utf-8")
    assert "rules of the judge taxonomy" in html
    assert ">version 7<" in html
