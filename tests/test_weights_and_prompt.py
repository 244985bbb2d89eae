"""Effects of weights and prompt format: exact values, planted truths, coverage, and their place in a run."""

import random

import pytest

from demur.analysis.cell import Cell
from demur.analysis.rates import judged_cells
from demur.analysis.weights_and_prompt import factor_answers, factor_effects
from demur.core.effects.bounded_means import mean_interval
from demur.runs.runner import run
from demur.study.study_files import load_study
from tests.tiny_study import make_study


def effects_of(verdicts, lineage=("base", "chat"), judge="prefix", groups=None):
    """The effects for verdicts by (checkpoint, prompt): a list of verdicts, one for each instruction."""
    cells = [
        Cell(key=f"{target}/{prompt}", target=target, prompt=prompt, instructions="harmful", intervention="none")
        for target, prompt in verdicts
    ]
    refusals = {(f"{target}/{prompt}", judge): dict(enumerate(each)) for (target, prompt), each in verdicts.items()}
    return factor_effects(judged_cells(cells, refusals, [judge]), refusals, judge, lineage, groups)


def test_exact_values():
    found = effects_of(
        {
            ("base", "a"): [False, False, False, True],
            ("base", "b"): [False, False, True, True],
            ("chat", "a"): [True, True, False, True],
            ("chat", "b"): [True, True, True, True],
        }
    )
    assert [(one.factor, one.effect) for one in found] == [("weights", 0.5), ("prompt", 0.25), ("interaction", 0.0)]
    assert {(one.checkpoints, one.prompts, one.n) for one in found} == {(("base", "chat"), ("a", "b"), 4)}


def test_an_interaction_is_the_difference_of_two_changes():
    rows = {("base", "a"): [False], ("base", "b"): [True], ("chat", "a"): [True], ("chat", "b"): [False]}
    found = {one.factor: one for one in effects_of({key: value * 10 for key, value in rows.items()})}
    assert (found["weights"].effect, found["prompt"].effect, found["interaction"].effect) == (0, 0, -2)
    assert found["interaction"].ci95[0] == -2
    assert -2 < found["interaction"].ci95[1] < 0


def test_near_duplicates_widen_the_interval_and_move_no_effect():
    chance = random.Random(0)
    groups = [place // 5 for place in range(60)]
    ease = [chance.random() for _ in range(12)]
    rows = {
        (target, prompt): [ease[group] < rate for group in groups]
        for target, rates in (("base", (0.2, 0.4)), ("chat", (0.7, 0.9))) for prompt, rate in zip("ab", rates, strict=True)
    }  # fmt: skip
    for alone, grouped in zip(effects_of(rows), effects_of(rows, groups={"harmful": groups}), strict=True):
        assert alone.effect == grouped.effect
        assert grouped.ci95[0] <= alone.ci95[0] <= alone.ci95[1] <= grouped.ci95[1]
        if alone.factor == "weights":
            assert grouped.ci95[1] - grouped.ci95[0] > 1.5 * (alone.ci95[1] - alone.ci95[0])


def test_runs_without_two_shared_formats_have_none():
    rows = [True, False]
    assert effects_of({("base", "a"): rows, ("chat", "a"): rows}) == []
    assert effects_of({("base", "a"): rows, ("base", "b"): rows}, lineage=("base",)) == []
    assert effects_of({("base", "a"): rows, ("base", "b"): rows, ("chat", "a"): rows, ("chat", "c"): rows}) == []


def test_only_instructions_with_all_verdicts_count():
    keys = [("base", "a"), ("base", "b"), ("chat", "a"), ("chat", "b")]
    cells = [Cell(key="/".join(key), target=key[0], prompt=key[1], instructions="harmful", intervention="none") for key in keys]
    refusals = {("/".join(key), "prefix"): {0: True, 1: False} for key in keys}
    refusals["chat/b", "prefix"] = {1: True, 2: True}
    judged = judged_cells(cells, refusals, ["prefix"])
    assert {one.n for one in factor_effects(judged, refusals, "prefix", ["base", "chat"])} == {1}


def test_the_interval_is_that_of_agresti_and_min_for_two_verdicts():
    gained, lost, n = 12, 5, 60
    low, high = mean_interval([1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost), 1.0)
    # Agresti and Min 2005: Wald's interval after 1/2 is added to each of the four counts.
    a, b, m = gained + 0.5, lost + 0.5, n + 2
    half = 1.959963984540054 * ((a + b) - (a - b) ** 2 / m) ** 0.5 / m
    assert (low, high) == (pytest.approx((a - b) / m - half), pytest.approx((a - b) / m + half))


@pytest.mark.parametrize(
    ("truth", "shown"),
    [
        ({"ab": (0.2, 0.2, 0.2, 0.2)}, set()),
        ({"ab": (0.1, 0.1, 0.6, 0.6)}, {"weights"}),
        ({"ab": (0.1, 0.6, 0.1, 0.6)}, {"prompt"}),
    ],
    ids=["no effect", "weights only", "prompt only"],
)
def test_planted_effects_are_told_apart(truth, shown):
    """500 simulated studies: an effect that is there is nearly always found, one that is not there in about 5 % of them."""
    draw, found = random.Random(7), {"weights": 0, "prompt": 0, "interaction": 0}
    covered, rates = dict.fromkeys(found, 0), truth["ab"]
    true = {
        "weights": (rates[2] + rates[3] - rates[0] - rates[1]) / 2,
        "prompt": (rates[1] + rates[3] - rates[0] - rates[2]) / 2,
        "interaction": rates[3] - rates[2] - rates[1] + rates[0],
    }
    keys = [("base", "a"), ("base", "b"), ("chat", "a"), ("chat", "b")]
    for _ in range(500):
        # Instructions differ in how readily they are refused, the same in all four cells.
        lean = [draw.uniform(0.5, 1.5) for _ in range(100)]
        rows = {key: [draw.random() < rate * each for each in lean] for key, rate in zip(keys, rates, strict=True)}
        for one in effects_of(rows):
            found[one.factor] += not one.ci95[0] <= 0 <= one.ci95[1]
            covered[one.factor] += one.ci95[0] <= true[one.factor] <= one.ci95[1]
    for factor, count in found.items():
        assert count > 490 if factor in shown else 0.02 <= count / 500 <= 0.08, (factor, count)
    assert all(0.93 <= count / 500 <= 0.97 for count in covered.values()), covered


def test_the_sentence():
    rows = {("base", "a"): [False], ("base", "b"): [False], ("chat", "a"): [True], ("chat", "b"): [True]}
    (sentence,) = factor_answers(effects_of({key: value * 50 for key, value in rows.items()}))
    assert sentence.shown
    assert sentence.text == (
        'Without an edit, changing the weights from "base" to "chat" changes refusals of harmful instructions by +100 [90, 100] '
        'points, and changing the prompt format from "a" to "b" by 0 [-4, 4]; the change of the weights differs by 0 [-8, 8] '
        "between the formats."
    )


def test_a_run_with_two_shared_formats(tmp_path):
    formats = '["user-assistant", "vicuna"]'
    changes = [f"checkpoints.{name}.prompts={formats}" for name in ("base", "chat")]
    changes.append('measurements=["by-layer", "direction-agreement"]')
    with run(load_study(make_study(tmp_path), changes), tmp_path / "run") as finished:
        summary = finished.summary_record()
    assert len(summary.factors) == 2 * 2 * 3, "judges x instruction sets x factors"
    assert any(answer.text.startswith("Without an edit, changing the weights") for answer in summary.answers)
    tables = tmp_path / "run" / "tables"
    assert len((tables / "weights-and-prompt.csv").read_text().splitlines()) == 1 + 6
    kinds = [line.split(",")[0] for line in (tables / "cosines-by-factor.csv").read_text().splitlines()[1:]]
    assert kinds == ["weights", "prompt", "weights and prompt"]
    assert "weights-and-prompt" in (tmp_path / "run" / "report.html").read_text()
