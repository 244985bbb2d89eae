"""Five hundred pairs of each known truth: how often any verdict on the named hypotheses is wrong, and how many are shown."""

import pytest

from tests import simulated_pairs as known

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("name", ["NOTHING_ACTS", "NULLS_DO_AS_MUCH", "ONLY_IN_CHAT", "CLUSTERED"])
def test_rarely_is_any_verdict_of_a_pair_wrong(name):
    truth = getattr(known, name)
    wrong = known.any_wrong(truth, known.repeat(truth, 500, seed=7))
    print(f"{name}: {wrong:.3f} of the pairs have a wrong verdict")
    # Two standard errors above the level.
    assert wrong <= 0.07


@pytest.mark.parametrize("name", ["ONLY_IN_CHAT", "EVERYTHING", "CLUSTERED_EVERYTHING"])
def test_what_is_true_of_a_pair_is_shown(name):
    truth = getattr(known, name)
    shown = known.power(truth, known.repeat(truth, 100, seed=8))
    print(f"{name}: {shown:.3f} of the true hypotheses are supported")
    assert shown >= 0.8
