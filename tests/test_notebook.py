"""How objects look in a notebook: short, whole, and escaped; and the notebook that is shown."""

import ast
import json
from pathlib import Path

import demur
from demur.core.html_repr import facts_table, shortened
from demur.measurements.selection.ranking import Scored, Selection
from demur.study.study_files import load_study
from tests.tiny import HARMFUL, HARMLESS

NOTEBOOK = Path(__file__).parents[1] / "examples" / "walkthrough.ipynb"


def test_everything_is_escaped_and_what_is_empty_left_out():
    html = facts_table("<b>", [("a & b", "<script>alert(1)</script>"), ("none", None), ("empty", ""), ("zero", 0)])
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a &amp; b" in html
    assert "&lt;b&gt;" in html
    assert "none" not in html
    assert "zero" in html


def test_long_texts_are_cut_in_one_line():
    assert shortened("a\n b") == "a b"
    assert len(shortened("x" * 100)) == 60


def test_directions_checkpoints_prompts_and_completions_are_short(checkpoint):
    prompt = demur.prompt_format("chatml", checkpoint)
    direction = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=1, name="<i>tiny</i>")
    (row,) = demur.generate(checkpoint, ["How?\n<b>Now</b>" + " x" * 100], prompt, max_new_tokens=2)[0]
    edit = demur.add(direction, 2.0)
    for thing in (direction, checkpoint, prompt, row, edit, load_study("demo")):
        assert len(repr(thing)) < 300, repr(thing)
        assert "\n" not in repr(thing)
    assert repr(direction).startswith("Direction('<i>tiny</i>', layer=1, site='resid_pre', position=-1, width=32, raw_norm=")
    assert repr(checkpoint) == "Checkpoint('tiny', llama, 3 layers of width 32, torch.float32 on cpu)"
    assert "2 tokens" in repr(row)
    for thing in (direction, checkpoint, row):
        html = thing._repr_html_()
        assert not {"<i>", "<b>"} & {html[i : i + 3] for i in range(len(html))}
        assert html.count("<tr>") == html.count("</tr>") >= 2
    assert "8 harmful and 8 harmless" in direction._repr_html_()


def test_selections_show_the_best_places():
    places = (Scored(-1, 2, 0.5, {"score": 0.5}), Scored(-1, 3, 0.7, {"score": 0.7}), Scored(-1, 4, float("nan"), {}, "too late"))
    found = Selection("cosmic", places)
    assert repr(found) == "Selection('cosmic', best: position -1 layer 3, 2 of 3 places valid)"
    assert found._repr_html_().index("0.700") < found._repr_html_().index("0.500")
    assert repr(Selection("cosmic", places[2:])) == "Selection('cosmic', best: none, 0 of 1 places valid)"
    assert "<td" not in Selection("cosmic", places[2:])._repr_html_()


def test_the_notebook_holds_no_output_and_code_that_parses():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 8
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        ast.parse("".join(cell["source"]))
