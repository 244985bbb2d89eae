"""Cosines beside their nulls: in the figure by layer, in a table, and in the answers."""

import pytest

from demur.analysis.arm_pairs import ArmPair, agreement_answers, arm_pairs
from demur.analysis.summary import MeasurementSummary
from demur.runs.runner import run
from demur.study.study_files import load_study
from tests.tiny_study import make_study


def pair(arms=("base/alpaca", "chat/alpaca"), cosine=0.93, null=(0.9, 0.97), p=0.6):
    return ArmPair(
        arms=arms,
        cosine=(None, cosine),
        corrected=(None, 0.94),
        corrected_ci95=(None, (0.92, 0.96)),
        null_mean=(None, 0.95),
        null95=(None, null),
        p_above=(None, p),
        halves=((None, 0.7), (None, 0.8)),
    )


def test_a_cosine_inside_its_null_shows_nothing():
    (sentence,) = agreement_answers([pair()], [1])
    assert not sentence.shown
    assert sentence.text == (
        'The directions of "base" and "chat" at layer 1 have a cosine of 0.93; this is no higher than the 0.90 to 0.97 that '
        "shuffled labels give, so it does not show that they share a mechanism."
    )


def test_a_cosine_above_its_null_is_shown():
    (sentence,) = agreement_answers([pair(null=(-0.2, 0.3), p=0.005)], [1])
    assert sentence.shown
    assert "this is higher than the -0.20 to 0.30 that shuffled labels give" in sentence.text


def test_pairs_of_one_prompt_format_come_first():
    other, same = pair(("base/alpaca", "chat/vicuna")), pair(("base/alpaca", "base/vicuna"))
    assert [one.differ_in for one in (pair(), other, same)] == ["weights", "both", "prompt"]
    assert len(agreement_answers([pair(), other, same], [1])) == 1
    (sentence,) = agreement_answers([other, same], [1])
    assert sentence.text.startswith('The directions of "base/alpaca" and "chat/vicuna"')
    assert agreement_answers([same], [1]) == []


def test_many_pairs_get_one_sentence():
    pairs = [pair(cosine=0.1 * number, p=0.01 if number < 2 else 0.5) for number in range(1, 6)]
    (sentence,) = agreement_answers(pairs, [1])
    assert "cosines from 0.10 to 0.50; 1 of 5 are higher" in sentence.text
    assert agreement_answers(pairs, [0]) == [], "at layer 0 nothing is defined"


def test_records_without_numbers_are_left_out():
    known = MeasurementSummary(name="direction-agreement", version=1, subject="x", summary=pair().model_dump(mode="json"))
    other = known.model_copy(update={"summary": {"arms": ["a/b", "c/d"]}})
    assert arm_pairs([known, other, known.model_copy(update={"name": "by-layer"})]) == [pair()]


@pytest.mark.parametrize("measured", [True, False])
def test_a_run_shows_the_null_where_it_was_measured(tmp_path, measured):
    names = ["by-layer", *(["direction-agreement"] if measured else [])]
    changes = [f"measurements={names}".replace("'", '"'), 'checkpoints.base.prompts=["native"]']
    with run(load_study(make_study(tmp_path), changes), tmp_path / "run") as finished:
        figure, answers = finished.figure("cosines-by-layer"), finished.answers()
    named = {trace.name for trace in figure.data}
    assert ("shuffled labels" in named) == measured
    assert any("shuffled labels" in text for text in answers["text"]) == measured
    table = tmp_path / "run" / "tables" / "cosine-nulls.csv"
    assert table.exists() == measured
    if measured:
        header, row = table.read_text().splitlines()
        assert header.startswith("first,second,differ in,layer,cosine,null low,null high")
        assert row.startswith("base,chat,weights,1,")
