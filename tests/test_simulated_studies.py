"""Studies with known truth get the right verdict, and intervals cover. The same with 500 studies each: `tests/soak`."""

from tests import simulated_studies as known

STUDIES = 60


def test_without_an_effect_none_is_shown():
    found = known.repeat(known.NO_EFFECT, STUDIES, seed=1)
    assert known.share(found, "supported") <= 0.10
    assert known.coverage(found) >= 0.88


def test_an_effect_that_null_directions_share_is_not_shown():
    found = known.repeat(known.SHARED, STUDIES, seed=2)
    assert known.share(found, "supported") <= 0.13
    changed = [one for one in found if one.claim.p_change < 0.05 and one.claim.effect < 0]
    assert len(changed) > 10, "McNemar's test alone would show many of them"
    assert {one.claim.reason for one in changed if one.claim.verdict == "not shown"} == {"inside the null distribution"}


def test_a_true_effect_is_shown():
    found = known.repeat(known.TRUE_EFFECT, STUDIES, seed=3)
    assert known.share(found, "supported") >= 0.8


def test_two_null_directions_show_nothing():
    found = known.repeat(known.TWO_NULLS, 20, seed=3)
    assert known.share(found, "supported") == 0
    assert {one.claim.because for one in found} == {"there are only 2 topics directions, and 5 are needed"}


def test_clustered_instructions_do_not_make_an_effect():
    found = known.repeat(known.CLUSTERED, STUDIES, seed=4)
    assert known.share(found, "supported", "contradicted") <= 0.12
    assert known.coverage(found) >= 0.88
    effect = known.repeat(known.CLUSTERED_EFFECT, STUDIES, seed=5)
    assert known.share(effect, "supported") >= 0.7
