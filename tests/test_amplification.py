"""`amplification`: the ends are the two checkpoints, what lies between and beyond, and the null."""

import numpy
import pytest
import torch

from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import pair_results
from demur.measurements.diffing.amplification import Amplification, AmplificationSettings, mixed
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.rows import StoredMeasurement
from tests.pairs import mlp_of, nothing, taught_pair
from tests.test_patching import QUICK, pair_subject

SETTINGS = AmplificationSettings(**{**QUICK, "completions": 1}, coefficients=(-0.5, 2.0))


def amplified(weights):
    record = Amplification().measure(pair_subject(*taught_pair(weights)), SETTINGS)
    (result,) = pair_results(measured_pairs([StoredMeasurement("amplification", "base with chat", "{}", 1, record)]))
    return record, result


@pytest.fixture(scope="module")
def taught():
    return amplified(mlp_of(2))


def test_the_ends_are_exactly_the_two_checkpoints(taught):
    record, result = taught
    assert SETTINGS.coefficients == (-1.0, -0.5, 0.0, 2.0)
    kinds, places = record.facts["kind"], record.facts["place"]
    rows = dict(zip(zip(kinds, places, strict=True), record.arrays["probability"], strict=True))
    later, earlier = record.arrays["probability"][:2]
    numpy.testing.assert_array_equal(rows["amplified", -1.0], earlier)
    numpy.testing.assert_array_equal(rows["amplified", 0.0], later)
    runs = {run.place: run.recovery for run in result.curves[0].runs}
    assert (runs[-1.0], runs[0.0]) == (0.0, 1.0)
    assert 0 < runs[-0.5] < 1 < runs[2.0]
    assert record.facts["written_place"] == list(SETTINGS.coefficients)


def test_the_argument_says_how_much_it_takes_and_whether_more_would_do_more(taught):
    _, half, more = findings([taught[1]])
    assert half.answer.startswith("Half of the difference in refusals appears between")
    assert more.answer == "Yes: with coefficient 2 it would refuse still more."
    assert more.shown
    assert "with a permuted difference" in more.evidence


def test_nothing_is_said_of_equal_checkpoints():
    record, result = amplified(nothing)
    assert (record.arrays["probability"] == record.arrays["probability"][0]).all()
    assert len(findings([result])) == 1


def test_a_mixture_adds_the_normalised_difference():
    later, earlier = (torch.randn(2, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    expected = later.softmax(-1) ** 3 / earlier.softmax(-1) ** 2
    torch.testing.assert_close(mixed(later, earlier, 2.0).softmax(-1), expected / expected.sum(-1, keepdim=True))
    torch.testing.assert_close(mixed(later + 7, earlier - 3, 2.0), mixed(later, earlier, 2.0))
    order = torch.tensor([1, 0, 2, 4, 3])
    one, other = later.log_softmax(-1), earlier.log_softmax(-1)
    torch.testing.assert_close(mixed(later, earlier, 1.0, order), one + (one - other)[:, order])
