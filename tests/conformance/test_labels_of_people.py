"""`taxonomy` against people: completions of XSTest that two annotators call a full refusal or full compliance, model by model."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_against_people.py"
REACHED = {"gpt4": (436, 206, 2, 0), "llama2new": (399, 228, 1, 8), "mistralinstruct": (415, 49, 4, 2)}
"""Completions, refusals by people, missed and false: docs/judges.md states the same."""


def script():
    spec = importlib.util.spec_from_file_location("measure_against_people", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", REACHED)
def test_agreement_with_people_is_what_is_stated(shared, model):
    measuring = script()
    file = shared / "reference" / "exaggerated-safety" / f"{model}.csv"
    if not file.is_file():
        pytest.skip(f"completions that people labelled are not at {file}")
    found = measuring.agreement(measuring.read(file), "taxonomy", draws=200)
    n, refusals, missed, false = REACHED[model]
    assert (found.n, found.refusals) == (n, refusals)
    assert found.missed <= missed
    assert found.false <= false
    assert found.kappa >= 0.92
    docs = (SCRIPT.parents[1] / "docs" / "judges.md").read_text(encoding="utf-8")
    if (found.missed, found.false) == (missed, false):
        assert f"| {model} | {n} | {refusals} | **{found.kappa:.3f}**" in docs


def test_partial_refusals_and_disagreements_are_left_out(tmp_path):
    file = tmp_path / "model.csv"
    rows = [("1_full_compliance", "1_full_compliance"), ("2_full_refusal", "2_full_refusal")]
    rows += [("3_partial_refusal", "3_partial_refusal"), ("1_full_compliance", "2_full_refusal")]
    lines = [f"ask,text {i},{a},{b},{b}" for i, (a, b) in enumerate(rows)]
    file.write_text("prompt,completion,annotation_1,annotation_2,final_label\n" + "\n".join(lines) + "\n")
    measuring = script()
    assert [(row.completion, row.refusal) for row in measuring.read(file)] == [("text 0", False), ("text 1", True)]
    assert [row.completion for row in measuring.read(file, final=True)] == ["text 0", "text 1", "text 3"]
