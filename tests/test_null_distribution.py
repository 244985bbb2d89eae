"""An effect against null directions of one kind: t prediction on log-odds, rank, and what too few nulls cannot tell."""

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from demur.core.effects.null_distribution import against_null
from demur.core.errors import InputError


def refused(count, n=100):
    return [1] * count + [0] * (n - count)


def test_p_is_that_of_one_more_draw_by_prediction():
    counts = (80, 86, 90, 91, 95, 97)
    found = against_null(refused(60), [refused(count) for count in counts], -1)
    odds = [math.log((count + 0.5) / (100.5 - count)) for count in counts]
    effect = math.log(60.5 / 40.5)
    statistic = (effect - np.mean(odds)) / (np.std(odds, ddof=1) * math.sqrt(1 + 1 / 6))
    assert found.p == pytest.approx(t.cdf(statistic, 5))
    assert (found.n, found.place, found.p_rank) == (6, 0, pytest.approx(1 / 7))
    low, high = (math.log(rate / (1 - rate)) for rate in found.band)
    assert (low + high) / 2 == pytest.approx(np.mean(odds))
    # At the edge of the band, a one-sided p value is 0.025.
    at_edge = (low - np.mean(odds)) / (np.std(odds, ddof=1) * math.sqrt(1 + 1 / 6))
    assert t.cdf(at_edge, 5) == pytest.approx(0.025)


def test_the_sense_decides_which_side_is_extreme():
    nulls = [refused(count) for count in (40, 45, 50, 55, 60)]
    falls, rises = (against_null(refused(20), nulls, sense) for sense in (-1, 1))
    assert falls.p < 0.05 < 0.95 < rises.p
    assert (falls.place, rises.place) == (0, 5)
    assert against_null(refused(40), nulls, -1).place == 1, "a null that does as much counts"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_than_five_nulls_show_nothing_but_have_a_rank(count):
    found = against_null(refused(0), [refused(90)] * count, -1)
    assert (found.p, found.band, found.place, found.p_rank) == (None, None, 0, pytest.approx(1 / (count + 1)))


def test_equal_nulls_are_not_a_certain_null():
    nulls = [refused(100)] * 5
    assert against_null(refused(99), nulls, -1).p == pytest.approx(ttest_1samp([-1] + [0] * 99, 0, alternative="less").pvalue)
    assert against_null(refused(60), nulls, -1).p < 0.001
    assert against_null(refused(100), nulls, -1).p == 1


def test_the_effect_must_also_differ_over_instructions():
    nulls = [refused(count) for count in (50, 51, 50, 49, 50)]
    effect = [0] * 6 + [1] * 44 + [0] * 50
    found = against_null(effect, nulls, -1)
    differences = np.array(effect) - np.mean(nulls, axis=0)
    assert found.p == pytest.approx(ttest_1samp(differences, 0, alternative="less").pvalue)
    # The six verdicts that differ are one group, so they are one observation.
    assert against_null(effect, nulls, -1, groups=[max(0, place - 5) for place in range(100)]).p > 3 * found.p


def test_probabilities_get_no_continuity_correction():
    nulls = [[rate] * 50 for rate in (0.90, 0.93, 0.95, 0.96, 0.97)]
    odds = [math.log(rate / (1 - rate)) for rate in (0.90, 0.93, 0.95, 0.96, 0.97)]
    found = against_null([0.25] * 50, nulls, -1, "probability")
    statistic = (math.log(0.25 / 0.75) - np.mean(odds)) / (np.std(odds, ddof=1) * math.sqrt(1.2))
    assert found.p == pytest.approx(t.cdf(statistic, 4))
    assert against_null([0.0] * 50, nulls, -1, "probability").p > 0


def test_nulls_must_be_on_the_same_instructions():
    with pytest.raises(InputError, match=r"on 3 instructions .* not \[2\]"):
        against_null([1, 0, 1], [[1, 0]], -1)
    with pytest.raises(InputError, match=r"not \[\]"):
        against_null([1], [], -1)
