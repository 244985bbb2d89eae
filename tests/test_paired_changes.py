"""Changes of a rate on the same instructions: Tango's interval, groups of instructions, equivalence, and what could be shown."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from demur.core.effects.detectable_change import least_attainable_p, least_detectable_change, power
from demur.core.effects.grouped_differences import ClusterT, GroupedChanges, SubsetMeans
from demur.core.effects.paired_change import CLUSTER_T, MCNEMAR, SIGN_FLIPS, paired_change
from demur.core.effects.paired_scores import PairedScores, paired_interval
from demur.core.errors import InputError


def test_paired_interval_gives_the_published_one():
    # Airway hyper-responsiveness before and after transplantation (Bentur et al. 2009), Tango's interval in Fagerland,
    # Lydersen and Laake 2017, chapter 8, with the sign of a second rate minus a first.
    assert paired_interval(both=1, gained=7, lost=1, neither=12) == (
        pytest.approx(0.026, abs=6e-4),
        pytest.approx(0.517, abs=6e-4),
    )
    # Complete response before and after therapy (Cavo et al. 2012), the same chapter; R's contingencytables gives four digits.
    assert paired_interval(59, 6, 16, 80) == (pytest.approx(-0.1240, abs=6e-5), pytest.approx(-0.0054, abs=6e-5))


@given(st.tuples(*[st.integers(0, 25)] * 3).filter(any))
def test_paired_interval_by_the_greatest_likelihood_on_a_grid(table):
    """The bounds are where the statistic with the most likely share of lost pairs, found by trying all, reaches 1.96."""
    gained, lost, rest = table
    n = sum(table)

    def score(difference):
        shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 4001)[1:-1]
        with np.errstate(divide="ignore"):
            likely = (
                gained * np.log(shares + difference) + lost * np.log(shares) + rest * np.log(1 - 2 * shares - difference)
                if rest
                else gained * np.log(shares + difference) + lost * np.log(shares)
            )
        share = shares[likely.argmax()]
        return (gained - lost - n * difference) / math.sqrt(n * (2 * share + difference * (1 - difference)))

    low, high = paired_interval(rest, gained, lost, 0)
    if low > -0.98:
        assert score(low) == pytest.approx(1.96, abs=0.02)
    if high < 0.98:
        assert score(high) == pytest.approx(-1.96, abs=0.02)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert paired_interval(0, lost, gained, rest) == (pytest.approx(-high), pytest.approx(-low))


@pytest.mark.parametrize("table", [(0, 0, 0, 50), (50, 0, 0, 0)])
def test_paired_interval_has_a_width_where_no_pair_differs(table):
    low, high = paired_interval(*table)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1.959964**2 / (50 + 1.959964**2), abs=1e-6)


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (3, -1, 0, 2)])
def test_paired_interval_refuses_what_are_no_counts(table):
    with pytest.raises(InputError, match="at least one pair"):
        paired_interval(*table)


def test_without_groups_the_test_is_mcnemars_and_the_interval_tangos():
    first, second = [True] * 40 + [False] * 60, [True] * 22 + [False] * 18 + [True] * 3 + [False] * 57
    for groups in (None, list(range(100))):
        change = paired_change(first, second, groups)
        assert (change.test, change.groups, change.before, change.gained, change.lost) == (MCNEMAR, None, 40, 3, 18)
        assert change.p_value == pytest.approx(binomtest(3, 21).pvalue)
        assert change.interval() == paired_interval(22, 3, 18, 57)
    with pytest.raises(InputError, match="each of 100 instructions needs a group, but 3"):
        paired_change(first, second, [1, 2, 2])


def test_ten_groups_get_a_t_test_between_groups():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 100).tolist()
    first, second = (rng.random(100) < 0.6).tolist(), (rng.random(100) < 0.4).tolist()
    change = paired_change(first, second, groups)
    assert (change.test, change.groups) == (CLUSTER_T, 12)
    # The same by matrices: residuals of a regression on a constant, added up by group.
    differences = np.array(second, float) - np.array(first, float)
    by_group = np.array([(differences - differences.mean())[np.array(groups) == one].sum() for one in range(12)])
    error = math.sqrt(12 / 11 * (by_group**2).sum()) / 100
    reach = t.ppf(0.975, 11) * error
    between = ClusterT(GroupedChanges.of(first, second, groups))
    assert between.interval() == (pytest.approx(differences.mean() - reach), pytest.approx(differences.mean() + reach))
    assert between.p_at_most(0.0) == pytest.approx(t.sf(differences.mean() / error, 11))
    assert between.p_at_least(0.1) == pytest.approx(t.cdf((differences.mean() - 0.1) / error, 11))
    tango = paired_interval(0, change.gained, change.lost, 100 - change.gained - change.lost)
    low, high = between.interval()
    assert change.interval() == (min(low, tango[0]), max(high, tango[1]))
    assert change.p_value >= binomtest(change.gained, change.gained + change.lost).pvalue


def test_few_groups_are_turned_in_all_ways():
    sums, sizes = (-5, -2, -4, 1, -3, -6, -2), (8, 4, 9, 5, 7, 10, 6)
    between = SubsetMeans(GroupedChanges(sums, sizes))
    for supposed in (-0.5, -0.31, 0.0, 0.11):
        residuals = [total - supposed * size for total, size in zip(sums, sizes, strict=True)]
        turned = [sum(s * r for s, r in zip(signs, residuals, strict=True)) for signs in itertools.product((1, -1), repeat=7)]
        # Rounding must not decide about patterns that are exactly as extreme.
        assert between.p_at_most(supposed) == pytest.approx(np.mean(np.array(turned) >= sum(residuals) - 1e-9))
        assert between.p_at_least(supposed) == pytest.approx(np.mean(np.array(turned) <= sum(residuals) + 1e-9))
    low, high = between.interval()
    assert between.p_at_most(low - 1e-9) <= 0.025 < between.p_at_most(low + 1e-9)
    assert between.p_at_least(high + 1e-9) <= 0.025 < between.p_at_least(high - 1e-9)
    assert low < between.changes.difference < high


@pytest.mark.parametrize(("count", "p"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_fewer_than_six_groups_show_nothing(count, p):
    groups = [number % count for number in range(60)]
    change = paired_change([True] * 60, [False] * 60, groups)
    assert (change.test, change.p_value) == (SIGN_FLIPS, pytest.approx(p))
    assert least_attainable_p([True] * 60, -1, groups) == pytest.approx(p)
    assert change.interval()[0] == -1.0
    assert (change.interval()[1] == 1.0) is (count < 6)


def test_equivalence_is_two_one_sided_tests():
    change = paired_change([True] * 90 + [False] * 210, [True] * 86 + [False] * 4 + [True] * 3 + [False] * 207)
    low, high = change.interval(0.90)
    for delta in (-low, high):
        assert change.p_no_effect(abs(delta)) >= 0.05 - 1e-9
    assert change.p_no_effect(max(-low, high) + 1e-6) < 0.05 < change.p_no_effect(max(-low, high) - 1e-6)
    assert change.p_no_effect() < 0.001
    assert paired_change([True] * 5, [True] * 5).p_no_effect() > 0.05, "five instructions cannot tell that nothing changes"
    clustered = paired_change(
        [True] * 90 + [False] * 210, [True] * 86 + [False] * 4 + [True] * 3 + [False] * 207, list(range(20)) * 15
    )
    assert clustered.p_no_effect() >= change.p_no_effect()


@pytest.mark.parametrize(("refused", "sense", "attainable"), [(5, -1, 0.0625), (6, -1, 0.03125), (0, -1, 1.0), (94, 1, 0.03125)])
def test_what_could_have_been_shown_at_best(refused, sense, attainable):
    assert least_attainable_p([True] * refused + [False] * (100 - refused), sense) == pytest.approx(attainable)


def test_power_by_simulation():
    rng = np.random.default_rng(3)
    draws = rng.multinomial(80, (0.15, 0.04, 0.81), size=4000)
    shown = np.mean([binomtest(int(g), int(g + k)).pvalue < 0.05 and g > k for g, k, _ in draws if g + k])
    assert power(80, 0.15, 0.04) == pytest.approx(shown, abs=0.025)
    assert power(80, 0.0, 0.0) == 0.0


def test_the_least_detectable_change_has_the_power_that_it_names():
    first, second = [True] * 50 + [False] * 50, [True] * 47 + [False] * 3 + [True] * 2 + [False] * 48
    least = least_detectable_change(first, second, -1)
    assert power(100, 0.02 + least, 0.02) == pytest.approx(0.8, abs=0.01)
    assert power(100, 0.02 + least - 0.01, 0.02) < 0.8
    assert least_detectable_change(first * 4, second * 4, -1) < least
    # The rate is 3 %, so there is no room for a fall that could be seen.
    assert least_detectable_change([True] * 3 + [False] * 97, [False] * 100, -1) is None


def test_groups_make_less_detectable():
    rng = np.random.default_rng(5)
    flips = rng.random(20) < 0.3
    first = [True] * 100
    second = [not flips[number // 5] for number in range(100)]
    alone = least_detectable_change(first, second, -1)
    assert least_detectable_change(first, second, -1, [number // 5 for number in range(100)]) > 1.5 * alone


def test_a_supposed_difference_at_its_bounds_has_a_p_value():
    assert PairedScores(10, 0, 10).p_at_least(1.0) == pytest.approx(0.5)
    assert PairedScores(5, 0, 10).p_at_least(1.0) == 0.0
    assert PairedScores(0, 5, 10).p_at_most(-1.0) == 0.0
