"""Kappa with weights and groups, between all pairs of judges and labellers."""

import numpy as np
import pytest

from demur.analysis.cell import Cell
from demur.analysis.judging.judge_agreement import agreements, little_agreement
from demur.analysis.judging.raters import Rater, Sampled
from demur.core.agreement.weighted_kappa import agreement
from demur.core.errors import InputError
from demur.core.statistics import cohen_kappa


def raters(n, differing):
    first = ["yes" if place % 3 else "no" for place in range(n)]
    return first, [("no" if said == "yes" else "yes") if place in differing else said for place, said in enumerate(first)]


def test_without_weights_it_is_cohens_kappa():
    first, second = raters(60, {0, 1, 2, 30, 31})
    found = agreement(first, second, ["yes", "no"], range(60))
    assert found.kappa == pytest.approx(cohen_kappa(first, second))
    assert found.observed == pytest.approx(55 / 60)
    assert sum(map(sum, found.table)) == found.n == 60
    assert found.interval[0] < found.kappa < found.interval[1]


def test_a_weight_of_two_is_two_items():
    first, second = raters(30, {0, 4})
    doubled = agreement([*first, *first[:10]], [*second, *second[:10]], ["yes", "no"], range(40))
    weighted = agreement(first, second, ["yes", "no"], range(30), [2.0] * 10 + [1.0] * 20)
    assert weighted.kappa == pytest.approx(doubled.kappa)


def test_groups_widen_the_interval():
    first, second = raters(120, set(range(0, 24)))
    alone = agreement(first, second, ["yes", "no"], range(120))
    grouped = agreement(first, second, ["yes", "no"], [place // 12 for place in range(120)])
    assert grouped.kappa == alone.kappa
    assert grouped.interval[1] - grouped.interval[0] > 1.5 * (alone.interval[1] - alone.interval[0])


def test_full_agreement_has_a_lower_bound_and_constant_raters_have_no_interval():
    first, _ = raters(30, set())
    full = agreement(first, first, ["yes", "no"], range(30))
    assert full.kappa == 1
    assert 0.6 < full.interval[0] < 0.9
    assert full.interval[1] == 1
    constant = agreement(["no"] * 30, first, ["yes", "no"], range(30))
    assert (constant.kappa, constant.interval) == (0, None)
    same = agreement(["no"] * 30, ["no"] * 30, ["yes", "no"], range(30))
    assert (same.kappa, same.interval, same.observed) == (None, None, 1)
    assert agreement(first[:4], first[:4], ["yes", "no"], range(4)).interval is None


@pytest.mark.soak
def test_the_interval_holds_the_true_kappa_about_95_times_in_100():
    generator, held = np.random.default_rng(3), 0
    for seed in range(300):
        first = generator.random(200) < 0.4
        second = np.where(generator.random(200) < 0.1, ~first, first)
        low, high = agreement(
            [str(each) for each in first], [str(each) for each in second], ["True", "False"], range(200), seed=seed
        ).interval
        # Agreement 0.9; the second says yes in 0.4 * 0.9 + 0.6 * 0.1 = 0.42 of items.
        chance = 0.4 * 0.42 + 0.6 * 0.58
        held += low <= (0.9 - chance) / (1 - chance) <= high
    assert 0.92 <= held / 300 <= 0.97


@pytest.mark.parametrize("second", [[], ["yes"], ["yes", "maybe"]])
def test_bad_lists_are_refused(second):
    with pytest.raises(InputError):
        agreement(["yes", "no"], second, ["yes", "no"], range(2))


CELLS = [
    Cell(key=f"{target}-{edit}", target=target, prompt="p", instructions="harmful", intervention=edit, action=edit)
    for target in ("base", "chat")
    for edit in ("none", "ablate")
]


def judge(name, refuses, person=False, labels=("refusal", "other"), n=50):
    given = {(cell.key, place): labels[not refuses(cell, place)] for cell in CELLS for place in range(n)}
    return Rater(name, person, labels, ("refusal",), given)


def test_every_pair_is_compared_over_the_run_in_each_arm_and_with_each_edit():
    many = ("refusal", "deflection", "compliance")
    three = [
        judge("a", lambda _, place: place % 2),
        judge("b", lambda _, place: place % 3, labels=many),
        judge("ann", lambda _, place: place % 3, person=True, labels=many, n=20),
    ]
    sampled = Sampled({(cell.key, place): cell.key for cell in CELLS for place in range(50)}, dict.fromkeys("x", 1))
    sampled = Sampled(sampled.stratum, {cell.key: 50 for cell in CELLS})
    found = agreements(three, CELLS, {"harmful": list(range(50))}, sampled)
    scopes = [(one.target, one.edit) for one in found if (one.first, one.second, one.of) == ("a", "b", "refusal")]
    assert scopes == [
        (None, None),
        ("base", None),
        ("chat", None),
        *((t, e) for t in ("base", "chat") for e in ("none", "ablate")),
    ]
    assert {(one.first, one.second) for one in found if one.of == "labels"} == {("b", "ann")}
    mine = next(one for one in found if one.second == "ann" and one.first == "b")
    assert (mine.n, mine.kappa, mine.labellers) == (80, 1, ("ann",))


def test_a_warning_names_the_arm_in_which_judges_disagree():
    two = [
        judge("a", lambda _, place: place % 2),
        judge("b", lambda cell, place: place % 2 and (cell.target == "chat" or place > 30)),
    ]
    found = agreements(two, CELLS, {"harmful": list(range(50))}, Sampled())
    (text,) = little_agreement(found)
    assert text.startswith("The judges a and b agree little on which completions are refusals: base with the prompt p (kappa 0.")
    assert "chat" not in text
    assert "50 and 20 of 100 are refusals" in text
    assert little_agreement([one.model_copy(update={"agreement": 0.99}) for one in found]) == []
    assert little_agreement([one.model_copy(update={"n": 10}) for one in found]) == []
    (both,) = little_agreement([*found, *(one.model_copy(update={"first": "c"}) for one in found)])
    assert both.startswith("The judges a and b, and c and b agree little on")
