"""The named hypotheses of pairs with known truth get the right verdicts. The same with 500 pairs each: `tests/soak`."""

import pytest

from tests import simulated_pairs as known


@pytest.mark.parametrize("name", ["NOTHING_ACTS", "NULLS_DO_AS_MUCH", "ONLY_IN_CHAT", "CLUSTERED"])
def test_few_pairs_have_a_wrong_verdict(name):
    truth = getattr(known, name)
    # The chance of five in thirty is 0.004 at the level of 5 %.
    assert known.any_wrong(truth, known.repeat(truth, 30, seed=1)) < 5 / 30


def test_true_hypotheses_of_a_pair_are_supported():
    found = known.repeat(known.EVERYTHING, 10, seed=2)
    assert known.power(known.EVERYTHING, found) >= 0.8
    shared = [claims["mechanisms-shared"].verdict for claims in found]
    assert shared.count("supported") >= 6
