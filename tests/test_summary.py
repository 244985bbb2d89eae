"""Numbers and claims from stored verdicts: what is shown holds after correction and against null directions; nothing else is."""

import pytest

from demur.analysis.claims import claims
from demur.analysis.edit_tests import edit_tests
from demur.analysis.rates import comparisons, judged_cells
from demur.core.edit_words import EditWords
from demur.core.effects.paired_scores import paired_interval
from demur.core.number_format import MINUS
from demur.interventions.edit_kind import edit_kind, words_of
from demur.runs.stored_records import cell_of

WORDS = words_of({name: edit_kind(name) for name in ("ablate", "add")})


def cell(key, intervention="none", instructions="harmful", **facts):
    base = {"key": key, "target": "after", "prompt": "chatml", "instructions": instructions, "intervention": intervention,
            "direction": None, "source": None, "control": False, "layer": None, "sites": None, "coefficient": None, "unit": None,
            "positions": None, "stands_beside": None}  # fmt: skip
    return {**base, **facts}


def edited(key, source, control=False, **facts):
    edit = {"intervention": "ablate", "direction": source, "source": source, "control": control, "layer": 16, "sites": ["all"],
            "positions": "all", **facts}  # fmt: skip
    return cell(key, **edit)


def verdicts(**counts):
    return {(key, "prefix"): {i: i < refusals for i in range(50)} for key, refusals in counts.items()}


def fivefold(facts, refusals, number=5):
    """Each null direction `number` times, with the same verdicts, because fewer than five show nothing."""
    cells, verdicts = [], dict(refusals)
    for each in facts:
        cells.append(each)
        for copy in range(2, number + 1) if each["control"] else ():
            cells.append(each | {"key": f"{each['key']} #{copy}"})
            verdicts |= {(f"{key} #{copy}", judge): found for (key, judge), found in refusals.items() if key == each["key"]}
    return cells, verdicts


def said(facts, refusals, words=WORDS, nulls=5, groups=None, declared=None):
    facts, refusals = fivefold(facts, refusals, nulls)
    cells = [cell_of(each) for each in facts]
    judged, compared = judged_cells(cells, refusals, ["prefix"]), comparisons(cells, refusals, ["prefix"], groups, declared)
    return judged, compared, claims(judged, edit_tests(judged, compared, refusals, "prefix", groups), "prefix", words)


CELLS = [cell("none"), edited("own", "after"), edited("null", "random-1", control=True)]


def test_rates_intervals_and_paired_tests():
    rows, compared, _ = said(CELLS, verdicts(none=40, own=2, null=39), nulls=1)
    assert [(row.n, row.refusals, row.rate) for row in rows] == [(50, 40, 0.8), (50, 2, 0.04), (50, 39, 0.78)]
    own, null = compared
    assert (own.gained, own.lost, own.difference, own.test, own.groups) == (0, 38, -0.76, "exact McNemar", None)
    assert own.ci95 == paired_interval(both=2, gained=0, lost=38, neither=10)
    # It is the only test of its family. Null directions are in none.
    assert own.p_holm == own.p_value == pytest.approx(2 / 2**38)
    assert (own.family, null.family, null.p_holm) == ("confirmatory", "control", None)


def test_a_direction_that_works_is_shown():
    *_, found = said(CELLS, verdicts(none=40, own=2, null=39))
    assert [claim.shown for claim in found] == [True, True]
    assert '"after" refuses 80 % [67, 89] of 50 harmful instructions' in found[0].text
    assert 'Ablating its own direction (layer 16) in "after"' in found[1].text
    assert found[1].text.endswith(
        f"from 80 % to 4 %, {MINUS}76 points [{MINUS}86, {MINUS}63] (p < 0.001, Holm; 5 random directions give 78 %, "
        "p < 0.001 against them)."
    )


@pytest.mark.parametrize(
    ("own", "null", "reason"),
    [
        (38, 40, "p = "),  # no significant change
        (2, 3, "The effect is inside the null distribution of random directions (p = 0.16)."),  # any direction would do
        (50, 40, "to 100 %"),  # the other way round
    ],
)
def test_what_the_data_do_not_show_is_not_claimed(own, null, reason):
    *_, found = said(CELLS, verdicts(none=40, own=own, null=null))
    assert found[1].shown is False
    assert reason in found[1].text


def test_nulls_are_those_of_the_same_dose():
    one = edited("add4", "after", intervention="add", instructions="harmless", coefficient=4.0, unit="unit")
    other = edited("null12", "random-1", control=True, intervention="add", instructions="harmless", coefficient=12.0, unit="unit")
    *_, found = said([cell("none", instructions="harmless"), one, other], verdicts(none=0, add4=30, null12=30))
    assert "random" not in found[0].text
    assert found[0].shown is False
    assert found[0].text.endswith("No null direction was tested at this setting.")


def test_nothing_is_shown_without_a_null_direction():
    *_, found = said(CELLS[:2], verdicts(none=40, own=2))
    assert [claim.shown for claim in found] == [True, False]
    assert found[1].text.endswith("(p < 0.001, Holm). No null direction was tested at this setting.")


@pytest.mark.parametrize(
    ("unit", "beside", "shown"), [("raw", "after", True), ("raw", "before", False), ("unit", "before", True)]
)
def test_a_raw_dose_is_held_against_a_null_direction_of_its_own_norm(unit, beside, shown):
    dose = {"intervention": "add", "instructions": "harmless", "coefficient": 2.0, "unit": unit}
    null = edited("null", "random-1", control=True, stands_beside=beside, **dose)
    *_, found = said(
        [cell("none", instructions="harmless"), edited("own", "after", **dose), null], verdicts(none=0, own=30, null=1)
    )
    assert found[0].shown is shown
    assert ("No null direction of the same norm was tested at this setting." in found[0].text) is not shown


def test_only_null_directions_of_the_same_norm_are_counted():
    dose = {"intervention": "add", "instructions": "harmless", "coefficient": 2.0, "unit": "raw"}
    nulls = [edited(f"null {place}", f"random-{place}", control=True, stands_beside=beside, **dose)
             for place, beside in enumerate(("after", "before", "after", "before", "before", "before"))]  # fmt: skip
    cells = [cell("none", instructions="harmless"), edited("own", "after", **dose), *nulls]
    counts = {"none": 0, "own": 30} | {null["key"]: 1 for null in nulls}
    (claim,) = said(cells, verdicts(**counts), nulls=1)[2]
    assert (claim.verdict, claim.reason, claim.null.n) == ("not shown", "could not be shown", 2)
    assert claim.text.endswith("There are only 2 random directions of the same norm, and 5 are needed.")


def test_of_several_arms_the_null_direction_stands_beside_one():
    dose = {"intervention": "add", "instructions": "harmless", "coefficient": 2.0, "unit": "raw"}
    own = edited("own", "after", **dose) | {"direction": "after.native"}
    cells = [
        cell("none", instructions="harmless"),
        own,
        edited("null", "random-1", control=True, stands_beside="after.chatml", **dose),
    ]
    *_, found = said(cells, verdicts(none=0, own=30, null=1))
    assert found[0].shown is False


def test_cells_without_completions_are_left_out():
    rows, compared, found = said([*CELLS, edited("pending", "before")], verdicts(none=40, own=2, null=39), nulls=1)
    assert len(rows) == 3
    assert {row.key for row in compared} == {"own", "null"}
    assert len(found) == 2


def test_edits_at_other_layers_are_other_edits_with_null_directions_of_their_own():
    cells = [
        cell("none"),
        edited("all", "after"),
        edited("one", "after", layers=[16]),
        edited("null all", "random-1", control=True),
        edited("null one", "random-1", control=True, layers=[16]),
    ]
    *_, found = said(cells, verdicts(none=45, all=5, one=5) | verdicts(**{"null all": 6, "null one": 44}))
    texts = {claim.text: claim.shown for claim in found}
    one = next(text for text in texts if '(layer 16, ablated at layer 16) in "after"' in text)
    every = next(text for text in texts if '(layer 16, ablated at every layer) in "after"' in text)
    assert texts[one] is True
    assert "5 random directions give 88 %, p" in one
    assert texts[every] is False
    assert "5 random directions give 12 %, p" in every


def test_where_an_edit_acts_is_said_also_of_a_single_one():
    dose = {"intervention": "add", "instructions": "harmless", "coefficient": 2.0, "unit": "unit", "layers": [10, 11]}
    *_, found = said([cell("none", instructions="harmless"), edited("own", "after", **dose)], verdicts(none=0, own=30))
    assert 'Adding its own direction (layer 16, added at layers 10, 11, 2 unit vectors) to "after"' in found[0].text


def claim_on(key, found):
    return next(claim for claim in found if key in claim.id)


def test_a_claim_has_its_effect_with_a_paired_interval_and_its_null():
    cells = [*CELLS, edited("other null", "random-2", control=True), edited("before", "before")]
    counts = {"none": 40, "own": 2, "null": 39, "other null": 1, "before": 20}
    *_, found = said(cells, verdicts(**counts), nulls=1)
    own = claim_on("own", found)
    assert (own.effect, own.null.kind, own.null.n, own.null.place) == (-0.76, "random", 2, 1)
    assert (own.null.p, own.null.p_rank, own.null.reach) == (None, pytest.approx(2 / 3), (0.02, 0.78))
    # The first 2 of 50 are refusals in both conditions, the next 38 in the first only.
    assert own.ci95 == paired_interval(both=2, gained=0, lost=38, neither=10)
    assert own.cells == ("none", "own", "null", "other null")
    assert claim_on("before", found).null.place == 1
    (rate,) = [claim for claim in found if claim.id.startswith("rate")]
    assert (rate.verdict, rate.shown, rate.effect, rate.ci95, rate.p, rate.null) == ("not tested", True, None, None, None, None)
    assert rate.cells == ("none",)
    assert len({claim.id for claim in found}) == len(found)


@pytest.mark.parametrize(
    ("own", "null", "verdict", "reason"),
    [
        (2, 39, "supported", ""),
        (2, 3, "not shown", "inside the null distribution"),
        (38, 40, "not shown", "inconclusive"),
        (50, 40, "contradicted", ""),
        (50, 50, "contradicted", ""),
    ],
)
def test_the_verdict_follows_sense_chance_and_null(own, null, verdict, reason):
    *_, found = said(CELLS, verdicts(none=40, own=own, null=null))
    claim = claim_on("own", found)
    assert (claim.verdict, claim.reason, bool(claim.because)) == (verdict, reason, bool(reason))
    assert claim.shown is (verdict == "supported")
    assert (claim.p < 0.05) is (verdict in ("contradicted", "supported"))
    assert (claim.p_change < 0.05) is (own != 38)
    assert (claim.least_detectable is not None) is (claim.p_no_effect is not None) is bool(reason)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_too_few_null_directions_cannot_show_an_effect(number):
    *_, found = said(CELLS, verdicts(none=40, own=2, null=39), nulls=number)
    claim = claim_on("own", found)
    assert (claim.verdict, claim.reason, claim.null.p) == ("not shown", "could not be shown", None)
    assert (claim.p, claim.p_change) == (pytest.approx(1 / (number + 1)), pytest.approx(2 / 2**38))
    count = "is only 1 random direction" if number == 1 else f"are only {number} random directions"
    assert claim.text.endswith(f"There {count}, and 5 are needed.")


def test_every_kind_of_null_directions_is_passed():
    cells = [*CELLS, edited("topic", "topics-1", control=True, control_kind="topics")]
    *_, found = said(cells, verdicts(none=40, own=2, null=39, topic=3))
    claim = claim_on("own", found)
    assert (claim.reason, claim.null.kind, [null.kind for null in claim.nulls]) == (
        "inside the null distribution", "topics", ["random", "topics"],
    )  # fmt: skip
    assert claim.p == claim.null.p == max(null.p for null in claim.nulls)
    assert "5 random directions give 78 %, p < 0.001 against them; 5 topics directions give 6 %, p = " in claim.text
    # A kind with one null direction tells nothing, unless this one does as much as the edit.
    single = [*CELLS, *(edited(f"null {copy}", "random-1", control=True) for copy in range(4)), cells[-1]]
    counts = {"none": 40, "own": 2, "null": 39, **{f"null {copy}": 39 for copy in range(4)}}
    alone, as_much = (claim_on("own", said(single, verdicts(**counts, topic=topic), nulls=1)[2]) for topic in (30, 2))
    assert (alone.verdict, alone.null.kind) == ("supported", "random")
    assert (as_much.verdict, as_much.reason) == ("not shown", "inside the null distribution")
    assert as_much.because == "the effect is inside the null distribution of topics directions (1 of 1 do as much)"


def test_a_null_that_is_orthogonal_to_another_direction_is_not_counted():
    twins = [edited(f"twin {beside}", "topics-orthogonal-1", control=True, control_kind="topics-orthogonal", stands_beside=beside)
             for beside in ("after", "before")]  # fmt: skip
    *_, found = said([*CELLS, *twins], verdicts(none=40, own=2, null=39, **{"twin after": 39, "twin before": 0}))
    claim = claim_on("own", found)
    assert (claim.verdict, claim.nulls[1].n, claim.nulls[1].reach) == ("supported", 5, (0.78, 0.78))


def test_null_directions_may_be_compared_by_the_probability_of_a_refusal():
    cells = [cell_of(each) for each in CELLS]
    refusals = verdicts(none=40, own=2, null=39)
    more = [cell_of(edited(f"measured {place}", "random-9", control=True)) for place in range(20)]
    by_cell = {one.key: dict.fromkeys(range(50), 0.7 + place / 100) for place, one in enumerate([*more, cells[2]])}
    judged, compared = judged_cells(cells, refusals, ["prefix"]), comparisons(cells, refusals, ["prefix"])
    for rate, verdict in ((0.2, "supported"), (0.75, "not shown")):
        known = by_cell | {"own": dict.fromkeys(range(50), rate)}
        tests = edit_tests(judged, compared, refusals, "prefix", probabilities=known, null_cells=more)
        claim = claim_on("own", claims(judged, tests, "prefix", WORDS))
        assert (claim.verdict, claim.null.n, claim.null.outcome) == (verdict, 21, "probability")
        assert "21 random directions give 70 to 90 % in probability" in claim.text
    # Without a probability of the edit, only verdicts can be compared.
    (test,) = edit_tests(judged, compared, refusals, "prefix", probabilities=by_cell, null_cells=more)
    assert (test.against[0].n, test.against[0].outcome) == (1, "verdict")


def test_of_a_rate_near_zero_no_fall_could_be_shown():
    claim = claim_on("own", said(CELLS, verdicts(none=4, own=0, null=4))[2])
    assert (claim.reason, claim.least_p, claim.least_detectable) == ("could not be shown", 0.125, None)
    assert claim.text.endswith(
        "It could not be shown, because the rate is 8 % without the edit, and too few verdicts can change."
    )


def test_where_hardly_anything_changes_the_effect_is_bounded():
    refusals = {
        (key, "prefix"): {i: i < count for i in range(200)} for key, count in {"none": 100, "own": 99, "null": 100}.items()
    }
    claim = claim_on("own", said(CELLS, refusals)[2])
    assert (claim.reason, claim.delta) == ("no effect beyond delta", 0.1)
    assert claim.text.endswith("The change is smaller than 10 points (p < 0.001).")


def test_instructions_that_are_alike_count_as_a_group():
    counts = {"none": 40, "own": 20, "null": 39}
    alone, grouped = (
        claim_on("own", said(CELLS, verdicts(**counts), groups=groups)[2])
        for groups in (None, {"harmful": [place // 10 for place in range(50)]})
    )
    assert (alone.verdict, grouped.verdict, grouped.reason) == ("supported", "not shown", "could not be shown")
    assert grouped.ci95[0] < alone.ci95[0]
    assert grouped.text.endswith("It could not be shown, because the instructions are only 5 groups of near-duplicates.")
    *_, compared, _ = said(CELLS, verdicts(**counts), groups={"harmful": [place // 10 for place in range(50)]})
    assert (compared[0].groups, compared[0].test) == (5, "exact McNemar and sign flips of groups")


def test_without_a_null_direction_a_claim_says_so():
    *_, found = said(CELLS[:2], verdicts(none=40, own=2))
    claim = claim_on("own", found)
    assert (claim.verdict, claim.null, claim.cells) == ("not shown", None, ("none", "own"))


def test_claims_of_a_negative_dose_give_its_sign_and_no_more():
    dose = {"intervention": "add", "coefficient": -1.5, "unit": "unit"}
    cells = [cell("none"), edited("own", "after", **dose), edited("null", "random-1", control=True, **dose)]
    *_, found = said(cells, verdicts(none=40, own=2, null=39))
    claim = claim_on("own", found)
    assert claim.text.startswith('Adding its own direction (layer 16, -1.5 unit vectors) to "after" changes the refusal rate')
    assert claim.verdict == "supported"


def test_cells_of_earlier_versions_get_what_was_not_stored_then():
    old = {name: value for name, value in CELLS[2].items() if name not in ("stands_beside",)}
    assert (cell_of(old).action, cell_of(old).expected, cell_of(old).control_kind) == ("ablate", -1, "random")
    added = cell_of(edited("x", "after", intervention="add", coefficient=-2.0, unit="raw"))
    assert (added.action, added.expected, added.control_kind) == ("subtract", -1, "")
    assert cell_of(CELLS[0]).action == ""
    stored = cell_of({**CELLS[1], "action": "ablate", "expected": 1, "intervention": "gone"})
    assert (stored.intervention, stored.expected) == ("gone", 1)


ROTATE = EditWords(
    action="rotate",
    kind="turn",
    doing="rotating towards",
    into="in",
    done="rotated",
    moved="rotated in",
    figure="rotated",
    title="Refusal rates with the stream rotated",
)
NOISE = EditWords(
    action="noise",
    kind="noise",
    doing="adding noise",
    noun="",
    into="to",
    done="added",
    moved="added to",
    figure="noise",
    title="Refusal rates with noise",
)
INVENTED = {"rotate": ROTATE, "noise": NOISE}


def turned(key, source, control=False, **facts):
    more = {"intervention": "turn", "action": "rotate", "expected": 1, "settings": {"angle": 30}, **facts}
    return edited(key, source, control, **more) | ({"control_kind": "shuffled"} if control else {})


def test_a_new_kind_of_edit_has_claims_from_its_words_alone():
    cells = [
        cell("none"),
        turned("own", "after"),
        turned("wide", "after", settings={"angle": 60}),
        turned("null", "shuffled-1", control=True),
        turned("wide null", "shuffled-1", control=True, settings={"angle": 60}),
        cell("noisy", intervention="noise", action="noise", expected=1, coefficient=3.0),
    ]
    counts = {"none": 10, "own": 40, "wide": 45, "null": 11, "wide null": 44, "noisy": 12}
    *_, found = said(cells, {(key, "prefix"): {i: i < n for i in range(50)} for key, n in counts.items()}, INVENTED)
    own = next(claim for claim in found if claim.id == "effect: own")
    assert own.text == (
        'Rotating towards its own direction (layer 16, angle 30) in "after" changes the refusal rate on harmful instructions '
        "from 20 % to 80 %, +60 points [+46, +72] (p < 0.001, Holm; 5 shuffled directions give 22 %, p < 0.001 against them). "
        "Exploratory."
    )
    assert (own.verdict, own.null.kind, own.cells[:3]) == ("supported", "shuffled", ("none", "own", "null"))
    wide = next(claim for claim in found if claim.id == "effect: wide")
    assert (wide.verdict, wide.cells[:3]) == ("not shown", ("none", "wide", "wide null"))
    noisy = next(claim for claim in found if claim.id == "effect: noisy")
    assert noisy.text.startswith(
        'Adding noise (coefficient 3) to "after" changes the refusal rate on harmful instructions from 20 % to 24 %'
    )
