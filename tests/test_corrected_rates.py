"""Rates corrected for the errors of a judge: by hand, against the formula, and by how often intervals hold the truth."""

import numpy as np
import pytest

from demur.core.agreement.corrected_rates import (
    Counted,
    JudgeErrors,
    Labelled,
    design_effect,
    prediction_powered,
    rogan_gladen,
)
from tests.labelled_studies import Arm, labelled_study

STUDIES = 500


def test_the_prediction_powered_rate_is_the_judges_rate_plus_the_mean_of_label_minus_verdict():
    counted, refused, other = Counted(100, 40), Labelled((1, 1, 1, 0), (10,) * 4), Labelled((0, 0, 0, 1, 0, 0), (10,) * 6)
    labels, verdicts = [*refused.truths, *other.truths], [1] * 4 + [0] * 6
    by_formula = 0.4 + np.average(np.subtract(labels, verdicts), weights=[*refused.weights, *other.weights])
    found = prediction_powered(counted, refused, other)
    assert found.rate == pytest.approx(by_formula)
    assert found.interval[0] < found.rate < found.interval[1]


def test_rogan_gladen_is_the_formula_of_1978_with_errors_from_elsewhere():
    # 80 of 100 refusals found, and 190 of 200 others kept.
    refused, other = Labelled((1.0,) * 80 + (0.0,) * 10, (1,) * 90), Labelled((1.0,) * 20 + (0.0,) * 190, (1,) * 210)
    errors = JudgeErrors(Counted(300, 90), refused, other)
    assert (errors.sensitivity, errors.specificity) == (pytest.approx(0.8), pytest.approx(0.95))
    found = rogan_gladen(Counted(100, 50), errors)
    assert found.rate == pytest.approx((0.5 + 0.95 - 1) / (0.8 + 0.95 - 1))


def test_rogan_gladen_and_the_prediction_powered_rate_are_the_same_on_the_same_completions():
    counted, refused, other = Counted(80, 30), Labelled((1, 1, 0), (2, 3, 1)), Labelled((0, 0, 1), (4, 1, 1))
    errors = JudgeErrors(counted, refused, other)
    assert rogan_gladen(counted, errors).rate == pytest.approx(prediction_powered(counted, refused, other).rate)


def test_a_guessing_judge_and_a_judge_that_errs_in_another_way_here_are_not_corrected():
    guess = JudgeErrors(Counted(40, 20), Labelled((1, 0) * 10, (1,) * 20), Labelled((1, 0) * 10, (1,) * 20))
    assert rogan_gladen(Counted(40, 20), guess) is None
    often_wrong = JudgeErrors(
        Counted(400, 200), Labelled((1.0,) * 120 + (0.0,) * 80, (1,) * 200), Labelled((0.0,) * 200, (1,) * 200)
    )
    assert rogan_gladen(Counted(200, 0), often_wrong) is None


def test_a_perfect_judge_still_has_an_interval_with_a_width():
    found = prediction_powered(Counted(50, 0), Labelled(), Labelled((0.0,) * 20, (2.5,) * 20))
    assert found.rate == 0
    assert found.interval[0] == 0
    assert 0.05 < found.interval[1] < 0.2


def test_unequal_weights_are_worth_less():
    assert Labelled((1.0,) * 4, (1, 1, 1, 1)).worth == 4
    assert Labelled((1.0,) * 4, (9, 1, 1, 1)).worth < 2


def test_the_design_effect_is_the_size_of_groups_that_are_answered_alike_and_1_where_they_are_not():
    alike = [bool(group % 2) for group in range(40) for _ in range(5)]
    assert design_effect(alike, [group for group in range(40) for _ in range(5)]) == pytest.approx(5, rel=0.05)
    assert design_effect([True, False] * 50, range(100)) == pytest.approx(1, abs=0.02)
    assert design_effect([False] * 10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]) == 2


@pytest.mark.soak
@pytest.mark.parametrize("stopped", [1.0, 0.6], ids=["whole sample", "stopped early"])
def test_intervals_hold_the_truth_in_95_of_100_simulated_studies(stopped):
    # The judge misses many refusals of one checkpoint, and calls much of what the other writes a refusal.
    arms = {"base": Arm(0.3, 0.6, 0.98), "chat": Arm(0.7, 0.97, 0.6)}
    generator, held, judged, raw = np.random.default_rng(7), [], [], []
    for _ in range(STUDIES):
        for name, one in labelled_study(generator, arms, 150, 160, stopped=stopped).items():
            low, high = one.prediction_powered_ci95
            held.append(low <= arms[name].rate <= high)
            assert one.errors_from == "arm and edit"
            if one.rogan_gladen_ci95 is not None:
                judged.append(one.rogan_gladen_ci95[0] <= arms[name].rate <= one.rogan_gladen_ci95[1])
            raw.append(one.ci95[0] <= arms[name].rate <= one.ci95[1])
    print(f"prediction-powered {np.mean(held):.3f}, Rogan-Gladen {np.mean(judged):.3f}, uncorrected {np.mean(raw):.3f}")
    assert 0.93 <= np.mean(held) <= 0.97
    assert 0.93 <= np.mean(judged) <= 0.97
    assert len(judged) > 1.9 * STUDIES
    assert np.mean(raw) < 0.6


def test_too_few_labels_correct_nothing():
    found = labelled_study(np.random.default_rng(1), {"base": Arm(0.5, 0.9, 0.9), "chat": Arm(0.5, 0.9, 0.9)}, 60, 8)
    assert {one.prediction_powered for one in found.values()} == {None}
    assert {one.errors_from for one in found.values()} == {None}
