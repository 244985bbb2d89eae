"""Five hundred studies of each known truth: error rates of verdicts, and coverage of intervals."""

import pytest

from tests import simulated_studies as known

pytestmark = pytest.mark.soak
STUDIES = 500


@pytest.mark.parametrize(
    ("name", "wrong", "verdicts"),
    [
        ("NO_EFFECT", 0.05, ("supported", "contradicted")),
        ("SHARED", 0.05, ("supported",)),
        ("CLUSTERED", 0.05, ("supported", "contradicted")),
        ("FEW_GROUPS", 0.05, ("supported", "contradicted")),
    ],
)
def test_what_is_not_there_is_not_shown(name, wrong, verdicts):
    found = known.repeat(getattr(known, name), STUDIES, seed=11)
    share = known.share(found, *verdicts)
    print(f"{name}: {share:.3f} wrong verdicts")
    # Two standard errors above the level.
    assert share <= wrong + 0.02


@pytest.mark.parametrize(("name", "power"), [("TRUE_EFFECT", 0.9), ("CLUSTERED_EFFECT", 0.8)])
def test_what_is_there_is_shown(name, power):
    share = known.share(known.repeat(getattr(known, name), STUDIES, seed=12), "supported")
    print(f"{name}: {share:.3f} shown")
    assert share >= power


@pytest.mark.parametrize("name", ["NO_EFFECT", "SHARED", "TRUE_EFFECT", "CLUSTERED", "CLUSTERED_EFFECT"])
def test_intervals_cover(name):
    covered = known.coverage(known.repeat(getattr(known, name), STUDIES, seed=13))
    print(f"{name}: {covered:.3f} covered")
    assert 0.93 <= covered <= 0.97
