"""Intervals and tests against values computed by hand or published."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from demur.core.errors import InputError
from demur.core.exact_numbers import sign_test
from demur.core.statistics import auroc_interval, cohen_kappa, fisher, holm, kappa_interval, mcnemar, wilson


@pytest.mark.parametrize(("count", "low", "high"), [(47, 0.375, 0.567), (1, 0.002, 0.054), (8, 0.041, 0.150), (86, 0.779, 0.915)])
def test_wilson_gives_the_published_intervals(count, low, high):
    assert wilson(count, 100) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_by_its_formula(case):
    count, n = case
    z, p = 1.959963984540054, count / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = wilson(count, n)
    assert low == pytest.approx(middle - half, abs=1e-9)
    assert high == pytest.approx(middle + half, abs=1e-9)


def test_mcnemar_is_the_binomial_test_of_discordant_pairs():
    first = [True] * 10 + [False] * 10
    second = [False] * 9 + [True] + [False] * 10
    paired = mcnemar(first, second)
    assert (paired.n, paired.gained, paired.lost, paired.difference) == (20, 0, 9, -0.45)
    assert paired.p_value == pytest.approx(2 / 2**9)
    assert mcnemar([True, False], [True, False]).p_value == 1.0


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (99, 88, "0.003"),
        (85, 62, "0.0004"),
        (97, 84, "0.003"),
        (65, 68, "0.8"),
        (47, 41, "0.5"),
        (47, 55, "0.3"),
        (55, 46, "0.3"),
    ],
)
def test_fisher_on_the_published_rates(first, second, p):
    assert f"{fisher(first, 100, second, 100):.1g}" == p
    assert fisher(second, 100, first, 100) == pytest.approx(fisher(first, 100, second, 100))


@given(st.tuples(*[st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))] * 2))
def test_fisher_sums_the_tables_that_are_no_likelier(case):
    (a, n), (b, m) = case
    ways = [math.comb(n, k) * math.comb(m, a + b - k) for k in range(max(0, a + b - m), min(n, a + b) + 1)]
    seen = math.comb(n, a) * math.comb(m, b)
    assert fisher(a, n, b, m) == pytest.approx(sum(way for way in ways if way <= seen) / sum(ways), rel=1e-6)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_refusals():
    for count, n in ((0, 0), (5, 4), (-1, 4)):
        with pytest.raises(InputError):
            wilson(count, n)
        with pytest.raises(InputError):
            fisher(1, 2, count, n)
    with pytest.raises(InputError, match="3 and 2"):
        mcnemar([True] * 3, [True] * 2)


def test_kappa_of_a_known_table():
    # 20 and 15 agreements of 50, chance agreement 0.5: (0.7 - 0.5) / (1 - 0.5).
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(second, first) == pytest.approx(0.4)
    assert cohen_kappa([1, 2, 3], [1, 2, 3]) == 1.0
    assert cohen_kappa([True, False], [False, True]) == -1.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=2, max_size=40))
def test_kappa_by_its_formula(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    chance = sum(first.count(label) * second.count(label) for label in "abcd") / n**2
    if chance == 1:
        with pytest.raises(InputError, match="beyond chance is not defined"):
            cohen_kappa(first, second)
    else:
        assert cohen_kappa(first, second) == pytest.approx((observed - chance) / (1 - chance))


def test_kappa_interval_holds_kappa_and_narrows_with_n():
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    low, high = kappa_interval(first, second)
    assert low < 0.4 < high
    # The large-sample standard error of this table is 0.127 (Fleiss, Cohen and Everitt 1969).
    assert (high - low) / (2 * 1.96) == pytest.approx(0.127, abs=0.01)
    closer = kappa_interval(first * 9, second * 9)
    assert closer[1] - closer[0] == pytest.approx((high - low) / 3, rel=0.1)
    assert kappa_interval(first, second) == (low, high)
    assert kappa_interval(first, first) == (1.0, 1.0)


def test_kappa_refuses():
    with pytest.raises(InputError, match="2 and 1"):
        cohen_kappa(["a", "b"], ["a"])
    with pytest.raises(InputError, match="0 and 0"):
        kappa_interval([], [])
    with pytest.raises(InputError, match="all 2 items 'a'"):
        kappa_interval(["a", "a"], ["a", "a"])


def test_auroc_interval_is_a_score_interval():
    # Newcombe's method 5 has no closed form: its bounds are where the distance is z standard errors of the bound itself.
    def errors(area, bound, n, m):
        inner = (n + m) / 2 - 1
        variance = bound * (1 - bound) / (n * m) * (1 + inner * ((1 - bound) / (2 - bound) + bound / (1 + bound)))
        return abs(area - bound) / variance**0.5

    for area, n, m in ((0.8, 30, 40), (0.5, 10, 10), (0.97, 100, 100)):
        low, high = auroc_interval(area, n, m)
        assert low < area < high
        assert [errors(area, bound, n, m) for bound in (low, high)] == pytest.approx([1.959964] * 2, rel=1e-5)
    assert auroc_interval(1.0, 20, 20)[1] == 1.0
    assert 0.8 < auroc_interval(1.0, 20, 20)[0] < 1.0
    assert auroc_interval(0.0, 20, 30) == pytest.approx(tuple(1 - bound for bound in reversed(auroc_interval(1.0, 20, 30))))
    for bad in ((1.1, 5, 5), (0.5, 0, 5)):
        with pytest.raises(InputError, match="area under the ROC curve"):
            auroc_interval(*bad)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 101, 520])
def test_what_is_computed_without_scipy_equals_scipy(n):
    for count in sorted({0, 1, n // 3, n // 2, n // 2 + 1, n - 1, n}):
        if count > n:
            continue
        expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
        assert wilson(count, n) == pytest.approx((expected.low, expected.high), abs=1e-14)
        assert sign_test(count, n) == pytest.approx(binomtest(count, n, 0.5).pvalue, rel=1e-11)
