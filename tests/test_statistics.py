"""Intervals and tests against values computed by hand or published."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.errors import InputError
from demur.statistics import fisher, holm, mcnemar, wilson


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
