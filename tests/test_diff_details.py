"""A study with every further measurement of pairs: one run stores them, and its summary, page and files show them."""

import json
from html import unescape

import pytest

import demur
from tests.tiny_study import make_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("details")
    given = demur.load_study(make_study(folder))
    judge = {"judge": "tests.study_parts:Starts", "max_new_tokens": 2, "min_mass": 0.1, "instructions": 2}
    asked = [
        {"name": "divergence", "instructions": 2, "max_new_tokens": 7},
        {"name": "attribution", **judge, "tested": 2, "counts": [1, 3]},
        {"name": "difference-lens", **judge, "tokens": 3, "draws": 20, "layers": [1]},
    ]
    plain = {**given.model_dump(mode="json"), "measurements": asked, "interventions": [], "controls": {"random": 0}}
    demur.run(given.model_validate(plain), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_the_summary_has_the_numbers(summary):
    (found,) = summary["diff_details"]["divergence"]
    assert (found["first"], found["second"], len(found["curves"]), len(found["ablations"])) == ("base", "chat", 20, 4)
    (lens,) = summary["diff_details"]["difference_lens"]
    assert (lens["layer"], len(lens["places"])) == (1, 3 * 4)
    (written,) = summary["diff_details"]["attribution"]
    assert (len(written["components"]), len(written["by_layer"]), len(written["correlations"])) == (3 * 5, 3, 2)
    assert {one["measurement"] for one in summary["diff"]} == {"attribution", "difference-lens"}


def test_the_argument_has_a_step_for_each(summary):
    questions = [step["question"] for step in summary["changed"]]
    assert [one for one in questions if "refuse" not in one and "refusals" not in one] == [
        "Which components write the difference in the log-odds of a refusal?",
        "Do the estimates of attribution patching agree with exact patches?",
        'Is what training added to the stream on unrelated text along the direction of "chat"?',
        "Where along a response do the checkpoints' next tokens differ most?",
        'Does ablating its direction bring "chat" back to "base"?',
    ]


def test_the_page_and_the_files_show_them(folder):
    page = unescape((folder / "report.html").read_text())
    assert "Divergence along responses" in page
    assert "What training added to the stream on unrelated text" in page
    assert 'Does ablating its direction bring "chat" back to "base"?' in page
    tables = {path.name for path in (folder / "tables").glob("*.csv")}
    assert tables >= {"what-changed.csv", "diff-divergence.csv", "mean-difference.csv", "diff-difference-lens.csv"}
    assert tables >= {"components.csv", "diff-attribution.csv"}
    figures = {path.name for path in (folder / "figures").glob("*.svg")}
    assert figures >= {"diff-divergence.svg", "mean-difference.svg", "components.svg", "diff-attribution.svg"}
