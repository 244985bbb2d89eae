"""The hypotheses of the post: which cells they need, their verdicts, and one correction for all of them."""

import pytest
from scipy.stats import fisher_exact

from demur.analysis.claims import claims
from demur.analysis.edit_tests import edit_tests
from demur.analysis.hypotheses.evidence import with_spreads
from demur.analysis.hypotheses.hypothesis_claims import Sets, hypothesis_claims
from demur.analysis.hypotheses.post_hypotheses import Lineage
from demur.analysis.rates import comparisons, judged_cells
from demur.analysis.spreads.pairs_spread import PairsSpread
from demur.core.effects.independent_rates import IndependentScores, independent_difference
from demur.core.statistics import holm
from demur.interventions.edit_kind import edit_kind, words_of
from demur.runs.stored_records import cell_of
from tests.test_summary import cell, edited, fivefold

WORDS = words_of({name: edit_kind(name) for name in ("ablate", "add", "affine")})
PAIR = Lineage.of({"base": "base", "chat": "chat"})
ADD = {"intervention": "add", "coefficient": 2.0, "unit": "unit"}


def study(targets=("base", "chat"), sources=("base", "chat"), kinds=("ablate", "add")):
    """Cells of a pair with one null direction a setting; edits on the instructions on which a change is expected."""
    cells = []
    for target in targets:
        for label in ("harmful", "harmless"):
            cells.append(cell(f"{target} {label}", target=target, instructions=label))
            for kind in kinds:
                if (label == "harmless") != (kind == "add"):
                    continue
                for source in (*sources, "random-1"):
                    facts = {"target": target, "instructions": label, "control": source == "random-1", "intervention": kind}
                    cells.append(edited(f"{target} {kind} {source}", source, **facts | (ADD if kind == "add" else {})))
    return cells


def verdicts_of(cells, counts, lineage=PAIR, declared=None, matched=False, groups=None, n=50, broken=None, **more):
    """Claims by id and tests by key, where `counts` instructions of each cell are refused, the first ones."""
    refusals = {(each["key"], "prefix"): {i: i < counts.get(each["key"], 20) for i in range(n)} for each in cells}
    facts, refusals = fivefold(cells, refusals, 20)
    found = [cell_of(each) for each in facts]
    judged, compared = judged_cells(found, refusals, ["prefix"]), comparisons(found, refusals, ["prefix"], groups, declared)
    tests = edit_tests(judged, compared, refusals, "prefix", groups, broken=broken)
    result = hypothesis_claims(lineage, judged, tests, refusals, "prefix", WORDS, Sets(groups, matched), **more)
    return {claim.id: claim for claim in result.claims}, {test.cell.key: test for test in result.tests}, judged


BASELINES = {"base harmful": 30, "base harmless": 2, "chat harmful": 45, "chat harmless": 2}
NULLS = {"base ablate random-1": 29, "chat ablate random-1": 44, "base add random-1": 3, "chat add random-1": 3}
WORKS = {
    f"{target} {kind} {source}": rate
    for kind, rate in (("ablate", 4), ("add", 40)) for target in ("base", "chat") for source in ("base", "chat")
}  # fmt: skip


def test_everything_the_post_claims_is_supported_where_it_is_true():
    found, _, _ = verdicts_of(study(), BASELINES | NULLS | WORKS)
    assert list(found) == [
        "base-refuses",
        "base-direction-induces-in-base", "base-direction-induces-in-chat",
        "chat-direction-induces-in-base", "chat-direction-induces-in-chat",
        "base-direction-suppresses-in-base", "base-direction-suppresses-in-chat",
        "chat-direction-suppresses-in-base", "chat-direction-suppresses-in-chat",
        "mechanisms-shared",
    ]  # fmt: skip
    assert {claim.verdict for claim in found.values()} == {"supported"}
    claim = found["base-direction-induces-in-chat"]
    assert claim.text == 'Adding "base"\'s direction to "chat" makes it refuse harmless instructions.'
    assert (claim.effect, claim.rates, claim.n, claim.null.kind) == (0.76, (0.04, 0.8), 50, "random")
    assert claim.cells[:2] == ("chat harmless", "chat add base")
    assert (claim.about, claim.family, claim.reason, claim.because) == ("hypothesis", "confirmatory", "", "")
    # A conjunction has the largest p of its parts, and the numbers of that part.
    shared = found["mechanisms-shared"]
    parts = [found[part] for part in shared.parts]
    assert {part.id for part in parts} == {
        "base-direction-induces-in-chat", "base-direction-suppresses-in-chat",
        "chat-direction-induces-in-base", "chat-direction-suppresses-in-base",
    }  # fmt: skip
    assert shared.p == max(part.p for part in parts)


def test_one_correction_for_all_hypotheses():
    counts = BASELINES | NULLS | WORKS | {"base ablate base": 24, "base add chat": 9}
    found, tests, _ = verdicts_of(study(), counts)
    names = [name for name in found if name != "mechanisms-shared"]
    alone = {"base-refuses": fisher_exact([[30, 20], [2, 48]]).pvalue}
    for test in tests.values():
        kind = "induces" if test.cell.intervention == "add" else "suppresses"
        alone[f"{test.cell.source}-direction-{kind}-in-{test.cell.target}"] = test.p_alone
    assert [found[name].p for name in names] == [pytest.approx(p) for p in holm([alone[name] for name in names])]
    # The tests of the edits have the same p values as the hypotheses that rest on them.
    assert tests["base add chat"].p == found["chat-direction-induces-in-base"].p
    assert tests["base add chat"].claims == 9


def test_no_correction_for_what_no_result_could_have_shown():
    counts = (
        BASELINES | NULLS | WORKS | {"base harmful": 2, "base ablate random-1": 2, "base ablate base": 0, "base ablate chat": 0}
    )
    found, tests, _ = verdicts_of(study(), counts)
    assert {test.claims for test in tests.values()} == {7}
    for name in ("base-direction-suppresses-in-base", "chat-direction-suppresses-in-base"):
        assert (found[name].verdict, found[name].reason) == ("not shown", "could not be shown")
    assert (found["mechanisms-shared"].verdict, found["mechanisms-shared"].reason) == ("not shown", "a part is not shown")
    assert 'it is not shown that without "chat"\'s direction, "base" refuses fewer' in found["mechanisms-shared"].because


@pytest.mark.parametrize(
    ("counts", "n", "verdict", "reason"),
    [
        ({"base add chat": 10}, 200, "contradicted", "no effect beyond delta"),
        ({"base harmless": 60, "base add chat": 10}, 200, "contradicted", "opposite change"),
        ({"base add random-1": 40, "base add chat": 40}, 200, "not shown", "inside the null distribution"),
        ({"base harmless": 2, "base add chat": 6}, 50, "not shown", "inconclusive"),
    ],
)
def test_what_is_not_supported_says_why(counts, n, verdict, reason):
    found, _, _ = verdicts_of(
        study(), {**BASELINES, **NULLS, **WORKS, "base harmless": 10, "base add random-1": 10} | counts, n=n
    )
    claim = found["chat-direction-induces-in-base"]
    assert (claim.verdict, claim.reason) == (verdict, reason)
    assert claim.because
    assert claim.shown is False
    if verdict == "contradicted":
        assert claim.p < 0.05
        assert (found["mechanisms-shared"].verdict, found["mechanisms-shared"].reason) == (verdict, reason)
        assert found["mechanisms-shared"].because.startswith('it does not hold that adding "chat"\'s direction to "base"')


def test_what_a_study_has_no_cells_for_is_not_tested():
    found, _, _ = verdicts_of(study(targets=("chat",), sources=("base",)), BASELINES | NULLS | WORKS)
    assert {name for name, claim in found.items() if claim.verdict == "supported"} == {
        "base-direction-induces-in-chat",
        "base-direction-suppresses-in-chat",
    }
    rest = {name: claim for name, claim in found.items() if claim.verdict != "supported"}
    assert {(claim.verdict, claim.reason, claim.p, claim.effect) for claim in rest.values()} == {
        ("not tested", "no such cell", None, None)
    }
    assert rest["chat-direction-induces-in-base"].because == (
        'no cell has "chat"\'s direction added to "base" on harmless instructions'
    )
    assert rest["base-refuses"].because == 'no prompt format of "base" has verdicts on both harmful and harmless instructions'
    assert "has to be tested" in rest["mechanisms-shared"].because
    only = verdicts_of([], {}, Lineage.of({"only": "chat"}))[0]
    assert list(only) == [
        "base-refuses",
        "chat-direction-induces-in-chat",
        "chat-direction-suppresses-in-chat",
        "mechanisms-shared",
    ]
    assert only["base-refuses"].because == "the study has no base checkpoint"


def test_the_affine_edit_decides_and_ablation_to_zero_stands_beside_it():
    counts = BASELINES | NULLS | WORKS | {
        f"{target} affine {source}": 5 for target in ("base", "chat") for source in ("base", "chat")
    } | {"base affine random-1": 30, "chat affine random-1": 44}  # fmt: skip
    found, tests, _ = verdicts_of(study(kinds=("ablate", "add", "affine")), counts)
    claim = found["base-direction-suppresses-in-chat"]
    assert claim.cells[1] == "chat affine base"
    assert claim.settings == 1
    (beside,) = claim.evidence
    assert beside.startswith("Ablating the direction changes the rate from 90 % to 8 %")
    assert beside.endswith("shown. This is exploratory.")
    assert tests["chat ablate base"].comparison.family == "exploratory"


def test_of_several_doses_the_strongest_counts_and_pays_for_the_others():
    cells = study(targets=("chat",), sources=("base",), kinds=("add",))
    more = [
        {**each, "key": f"{each['key']} x{dose}", "coefficient": float(dose)}
        for dose in (4, 8) for each in cells if each["intervention"] == "add"
    ]  # fmt: skip
    counts = BASELINES | {"chat add base": 3, "chat add base x4": 9, "chat add base x8": 12}
    counts |= {f"chat add random-1{end}": 3 for end in ("", " x4", " x8")}
    found, tests, _ = verdicts_of([*cells, *more], counts)
    claim = found["base-direction-induces-in-chat"]
    assert (claim.settings, claim.cells[1]) == (3, "chat add base x8")
    assert claim.p == pytest.approx(3 * tests["chat add base x8"].p_alone)
    assert tests["chat add base x4"].p == pytest.approx(3 * tests["chat add base x4"].p_alone)
    assert "in 3 settings" in claim.evidence[0]
    assert "8 unit vectors" in claim.evidence[0]


def test_a_lineage_has_every_ordered_pair_that_was_tried():
    lineage = Lineage.of({"start": "", "sft": "", "end": ""})
    assert (lineage.base, lineage.chat) == ("start", "end")
    names = ("start", "sft", "end")
    counts = {f"{target} add {source}": 40 for target in names for source in names}
    counts |= {f"{name} {label}": count for name in names for label, count in (("harmful", 40), ("harmless", 2))}
    counts |= {f"{name} add random-1": 3 for name in names}
    found, _, _ = verdicts_of(study(targets=names, sources=names, kinds=("add",)), counts, lineage)
    acts = [name for name in found if "induces" in name]
    assert len(acts) == 9
    assert {"sft-direction-induces-in-base", "chat-direction-induces-in-sft"} <= set(acts)
    assert found["mechanisms-shared-by-sft-and-chat"].verdict == "supported"
    assert len([name for name in found if "shared" in name]) == 3


@pytest.mark.parametrize(
    ("roles", "base", "chat"),
    [
        ({"a": "chat", "b": "base"}, "b", "a"),
        ({"a": "", "b": "Base", "c": "sft", "d": "chat", "e": "chat"}, "b", "e"),
        ({"a": "chat, hardly refuses", "b": "safety-tuned"}, "a", "b"),
        ({"a": "chat", "b": ""}, "b", "a"),
        ({"a": "base"}, "a", None),
        ({"a": "chat"}, None, "a"),
        ({"a": ""}, "a", None),
    ],
)
def test_roles_decide_and_otherwise_the_order(roles, base, chat):
    lineage = Lineage.of(roles)
    assert (lineage.base, lineage.chat) == (base, chat)


def test_a_checkpoint_called_chat_with_another_role_does_not_take_its_id():
    lineage = Lineage.of({"start": "base", "chat": "sft", "end": "chat"})
    assert [lineage.word(name) for name in ("start", "chat", "end")] == ["base", "checkpoint-chat", "chat"]


def test_twins_are_compared_in_pairs():
    paired, _, _ = verdicts_of(study(), BASELINES | NULLS | WORKS, matched=True)
    free, _, _ = verdicts_of(study(), BASELINES | NULLS | WORKS)
    assert paired["base-refuses"].p_change == pytest.approx(2 / 2**28)
    assert free["base-refuses"].p_change == pytest.approx(fisher_exact([[30, 20], [2, 48]]).pvalue)
    assert paired["base-refuses"].cells == ("base harmless", "base harmful")


def test_the_interval_of_independent_rates_is_the_published_one():
    # Newcombe 1998, "Interval estimation for the difference between independent proportions", method 6.
    for counts, published in (((48, 80, 56, 70), (0.0528, 0.3382)), ((0, 29, 5, 56), (-0.0326, 0.1933))):
        assert IndependentScores(*counts).interval() == pytest.approx(published, abs=6e-5)


def test_groups_never_make_independent_rates_look_surer():
    first, second = [False] * 40 + [True] * 10, [True] * 30 + [False] * 20
    alone = independent_difference(first, second)
    grouped = independent_difference(first, second, ([i // 4 for i in range(50)], [i // 4 for i in range(50)]))
    few = independent_difference(first, second, ([i // 10 for i in range(50)], [i // 10 for i in range(50)]))
    assert (alone.groups, grouped.groups, few.groups) == (None, 13, 5)
    assert alone.p_value < grouped.p_value < few.p_value == few.least_p == 1
    assert grouped.interval()[0] < alone.interval()[0]
    assert few.interval() == (-1, 1)


def test_resamples_of_the_training_pairs_stand_beside_a_claim_and_change_no_verdict():
    found, _, _ = verdicts_of(study(), BASELINES | NULLS | WORKS)
    spread = PairsSpread(
        key="chat ablate base", judge="prefix", outcome="verdict", n=50, resamples=5, baseline_rate=0.9, rate=0.08,
        rates=(0.04, 0.3, 0.1, 0.6, 0.2), sd=0.2, cosines=None, difference=-0.82, ci95=(-0.9, -0.7), ci95_pairs=(-0.95, -0.2),
    )  # fmt: skip
    claims = {claim.id: claim for claim in with_spreads(list(found.values()), [spread], "prefix")}
    claim = claims["base-direction-suppresses-in-chat"]
    assert (claim.verdict, claim.ci95_pairs) == ("supported", (-0.95, -0.2))
    assert "ver 5 resamples of the training pairs refusals run from 4 to 60 %" in claim.evidence[-1]
    assert claims["base-direction-suppresses-in-base"] == found["base-direction-suppresses-in-base"]


def test_effects_say_what_hypotheses_say():
    cells = study()
    found, tests, judged = verdicts_of(cells, BASELINES | NULLS | WORKS | {"base ablate base": 24})
    effects = {claim.id: claim for claim in claims(judged, list(tests.values()), "prefix", WORDS) if claim.about == "effect"}
    for name, claim in found.items():
        if "direction" in name:
            assert (effects[f"effect: {claim.cells[1]}"].verdict == "supported") == (claim.verdict == "supported")


def test_a_broken_text_supports_nothing():
    why = "the completions are no text any more"
    found, tests, _ = verdicts_of(study(), BASELINES | NULLS | WORKS, broken={"chat ablate base": why, "chat add base": why})
    claim = found["base-direction-suppresses-in-chat"]
    assert (claim.verdict, claim.reason, claim.because) == ("not shown", "broken text", why)
    assert claim.p == tests["chat ablate base"].p < 0.05  # the change itself is the same
    assert not tests["chat ablate base"].shown
    # A broken text is no reason to doubt a gain of refusals.
    assert found["base-direction-induces-in-chat"].verdict == "supported"
    assert found["mechanisms-shared"].verdict == "not shown"
