"""The page and the terminal open with the verdicts on the hypotheses, verdict first."""

import json
from html import unescape

import pandas
import pytest
from rich.console import Console

from demur.analysis.cell import Claim, Null
from demur.core.number_format import tied
from demur.report import terminal
from demur.report.outcomes import hypothesis_rows as hypothesis_rows_module
from demur.report.outcomes.hypothesis_rows import hypothesis_rows
from demur.report.sections.section import ReportView, figures_of, made_sections
from demur.report.terminal import terminal_hypotheses
from demur.report.write_report import write_report
from tests.report.made_run import make_run

NULL = Null(kind="random", n=20, place=0, p=0.001, p_rank=1 / 21, band=(0.8, 0.95), reach=(0.81, 0.93))


def claim(name, verdict="supported", **facts):
    found = {"effect": 0.75, "n": 20, "rates": (0.05, 0.8), "ci95": (0.5, 0.9), "p": 0.002, "null": NULL, "nulls": (NULL,)}
    more = {"shown": verdict == "supported", "about": "hypothesis", "family": "confirmatory", "short": f"short {name}"}
    return Claim(id=name, text=f"Text of {name}.", verdict=verdict, **(found | more | facts))


@pytest.fixture
def made():
    summary, completions = make_run(n=20)
    cells = [cell for cell in summary.cells if cell.instructions == "harmless"]
    keys = (next(cell.key for cell in cells if not cell.edited), next(cell.key for cell in cells if cell.edited))
    nothing = {"effect": None, "n": None, "rates": None, "ci95": None, "p": None, "null": None, "nulls": ()}
    claims = (
        claim("absent", "not tested", because="the study has no base checkpoint", **nothing),
        claim("open", "not shown", because="the effect is inside the null distribution of random directions (p = 0.2)"),
        claim("works", cells=keys, evidence=("A cosine of 0.9 <b>.",), p_change=0.0001),
        claim("wrong", "contradicted", because="the change is smaller than 10 points (p = 0.01)"),
    )
    return summary.model_copy(update={"claims": (*claims, *summary.claims)}), completions


def test_verdicts_come_first_and_supported_ones_before_the_others(made):
    view = ReportView.of(*made)
    rows = hypothesis_rows(view.summary, view.entries)
    assert [row.claim.verdict for row in rows] == ["supported", "contradicted", "not shown", "not tested"]
    works, wrong, _, absent = rows
    assert works.found == (
        "From 5 % to 80 %, +75 points [+50, +90]; p = 0.002; 0 of 20 random directions do as much (p = 0.001)."
    )
    assert wrong.found.endswith("[+50, +90]: the change is smaller than 10 points (p = 0.01).")
    assert absent.found == "The study has no base checkpoint."
    assert "0 of 20 random directions do as much (p = 0.001); they give refusal rates of 81 to 93 %." in works.details
    assert [cell.address.split("&")[0] for cell in works.cells] == ["target=before", "target=before"]


def test_the_page_opens_with_them(made, tmp_path):
    page = write_report(tmp_path, *made).read_text(encoding="utf-8")
    first = page.index('<ul class="hypotheses">')
    assert page.index('<p class="question">') < first < page.index('<ol class="answers">')
    part = page[first : page.index('<p class="small">These', first)]
    places = [
        part.index(f'<span class="verdict">{verdict}</span>')
        for verdict in ("supported", "contradicted", "not shown", "not tested")
    ]
    assert places == sorted(places)
    assert part.count("<summary>") - 1 == part.count('id="claim-') == 4
    assert part.index('<details id="untested" open><summary>1 claim was not tested</summary>') < part.index('id="claim-absent')
    assert tied("Text of works.") in unescape(part)
    assert "&lt;b&gt;" in part
    assert "Text of works." not in page[page.index('<details id="claims"') :]
    tables = pandas.read_csv(tmp_path / "tables" / "claims.csv")
    assert tables["id"].to_list() == ["works", "wrong", "open", "absent"]
    assert tables["effect"].to_list()[:3] == [0.75] * 3


def test_claims_that_were_not_tested_are_folded_if_they_are_the_most(made, tmp_path):
    summary, completions = made
    few = [claim if claim.id == "works" else claim.model_copy(update={"verdict": "not tested"}) for claim in summary.claims]
    page = write_report(tmp_path, summary.model_copy(update={"claims": few}), completions).read_text(encoding="utf-8")
    assert '<details id="untested"><summary>3 claims were not tested</summary>' in page


def test_an_earlier_run_has_none(tmp_path):
    summary, completions = make_run(n=3)
    assert '<ul class="hypotheses">' not in write_report(tmp_path, summary, completions).read_text(encoding="utf-8")
    assert not (tmp_path / "tables" / "claims.csv").exists()
    assert terminal_hypotheses(summary) == []


def test_the_terminal_has_a_line_for_each_and_at_most_eight(made):
    summary, _ = made

    def shown(found):
        console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
        for each in terminal_hypotheses(found):
            console.print(each)
        return console.export_text().splitlines()

    lines = shown(summary)
    assert lines[2].split() == ["supported", "short", "works", "+75", "[+50,", "+90]", "0.002"]
    assert [line.split()[0] for line in lines[2:5]] == ["supported", "contradicted", "not"]
    assert lines[-1].strip() == "1 more on the page: 1 not tested."
    many = summary.model_copy(update={"claims": tuple(claim(f"c{number}") for number in range(11))})
    lines = shown(many)
    assert sum("short" in line for line in lines) == 8
    assert lines[-1].strip() == "3 more on the page: 3 supported."


def test_a_page_of_many_claims_shows_some_of_each_verdict_and_the_table_has_all(made, tmp_path, monkeypatch):
    summary, completions = made
    monkeypatch.setattr(hypothesis_rows_module, "MOST_ROWS", 8)
    monkeypatch.setattr(terminal, "MOST_ROWS", 8)
    rare = tuple(one for one in summary.claims if one.about == "hypothesis" and one.verdict == "contradicted")
    many = summary.model_copy(update={"claims": (*(claim(f"c{number}") for number in range(11)), *rare)})
    page = write_report(tmp_path, many, completions).read_text(encoding="utf-8")
    part = page[page.index('<ul class="hypotheses">') : page.index("These are the claims of the post")]
    assert part.count('id="claim-c') == 4
    assert all(f'id="claim-{one.id}"' in part for one in rare)
    assert "tables/claims.csv</code> has them all, with these more: 7 supported." in part
    assert len(pandas.read_csv(tmp_path / "tables" / "claims.csv")) == 11 + len(rare)
    assert (
        terminal_hypotheses(many)[-1] == f"{11 + len(rare) - 8} more in tables/claims.csv: 3 supported, {len(rare)} contradicted."
    )


def test_the_summary_keeps_them(made):
    summary, _ = made
    again = type(summary).model_validate(json.loads(summary.to_json()))
    assert again.claims == summary.claims
    view = ReportView.of(*made)
    assert "claims" in {section.name for section in made_sections(view)[0]}
    assert "claims" not in figures_of(view)
