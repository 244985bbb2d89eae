"""Three sentences from cells: what is shown names its rates and what stands beside it, what is not shown says so."""

from demur.analysis.edit_tests import edit_tests
from demur.analysis.headline import answers
from demur.analysis.rates import comparisons, judged_cells
from demur.core.number_format import MINUS
from demur.runs.stored_records import cell_of
from tests.test_summary import INVENTED, NOISE, WORDS, cell, edited, fivefold, turned

LINEAGE = ["before", "after"]
N = 50


def told(counts, facts, words=WORDS, matched=False):
    refusals = {(each["key"], "prefix"): {i: i < counts[each["key"]] for i in range(N)} for each in facts}
    facts, refusals = fivefold(facts, refusals)
    cells = [cell_of(each) for each in facts]
    judged, compared = judged_cells(cells, refusals, ["prefix"]), comparisons(cells, refusals, ["prefix"])
    tests = edit_tests(judged, compared, refusals, "prefix")
    found = answers(judged, tests, refusals, "prefix", LINEAGE, words, matched=matched)
    return [each.model_copy(update={"text": each.text.replace(MINUS, "-")}) for each in found]


def study(edits=("ablate", "add")):
    cells = []
    for target in LINEAGE:
        for kind in ("harmful", "harmless"):
            cells.append(cell(f"{target} {kind}", target=target, instructions=kind))
            for edit in edits:
                if (edit, kind) in (("ablate", "harmful"), ("add", "harmless")):
                    for source in (*LINEAGE, "random-1"):
                        more = {"coefficient": 2.0, "unit": "unit"} if edit == "add" else {}
                        key = f"{target} {kind} {edit} {source}"
                        facts = {"control": source == "random-1", "intervention": edit, **more}
                        cells.append(edited(key, source, target=target, instructions=kind, **facts))
    return cells


EFFECT = {
    "before harmful": 2, "after harmful": 45, "before harmless": 1, "after harmless": 5,
    "after harmful ablate before": 8, "after harmful ablate after": 3, "after harmful ablate random-1": 44,
    "before harmful ablate before": 1, "before harmful ablate after": 1, "before harmful ablate random-1": 2,
    "after harmless add before": 40, "after harmless add after": 48, "after harmless add random-1": 6,
    "before harmless add before": 1, "before harmless add after": 2, "before harmless add random-1": 1,
}  # fmt: skip


def test_what_is_shown_is_said_with_intervals_nulls_and_what_is_not():
    alone, ablated, added = told(EFFECT, study())
    assert alone.shown is ablated.shown is added.shown is True
    assert alone.text == (
        'Without an edit, "before" refuses 4 % [1, 13] of harmful and 2 % [0, 10] of harmless instructions, "after" '
        '90 % [79, 96] and 10 % [4, 21]; "after" refuses 86 points [73, 93] more of the harmful ones than "before" (p < 0.001).'
    )
    assert ablated.text.startswith(
        'Ablating "before"\'s direction in "after" changes the refusal rate on harmful instructions from 90 % to 16 %, '
        '-74 points [-84, -60] (p < 0.001, Holm; "after"\'s own direction gives 6 % [2, 16]; 5 random directions give 88 %, '
        "p < 0.001 against them)"
    )
    assert (
        'not shown for "after"\'s direction in "before" (from 4 % to 2 %, -2 points [-10, +5], it could not be shown'
        in ablated.text
    )
    assert (
        'Adding "before"\'s direction to "after" changes the refusal rate on harmless instructions from 10 % to 80 %'
        in added.text
    )


def test_what_a_null_direction_does_too_is_not_shown():
    _, ablated, added = told(EFFECT | {"after harmful ablate random-1": 8, "after harmless add random-1": 40}, study())
    assert ablated.shown is added.shown is False
    assert ablated.text.startswith(
        "It is not shown that ablating another checkpoint's direction lowers refusals of harmful instructions: "
    )
    assert (
        '"before"\'s direction in "after" (from 90 % to 16 %, -74 points [-84, -60], the effect is inside the null '
        "distribution of random directions (p = 1))" in ablated.text
    )


def test_without_null_directions_no_edit_is_shown_to_act():
    _, ablated, added = told(EFFECT, [each for each in study() if not each["control"]])
    assert ablated.shown is added.shown is False
    assert (
        '"before"\'s direction in "after" (from 90 % to 16 %, -74 points [-84, -60], no null direction was tested at this '
        "setting)" in ablated.text
    )


def test_no_difference_and_no_cells_are_said_not_to_be_shown():
    alone, ablated, added = told(EFFECT | {"after harmful": 3}, study(edits=()))
    assert alone.shown is False
    assert 'it is not shown that "after" refuses 2 points [-5, 10] more of the harmful ones than "before" (p = 1)' in alone.text
    assert ablated.text == "The effect of ablating a direction is not shown: this run has no completions with such an edit."
    assert added.shown is False


def test_one_checkpoint_answers_for_its_own_direction():
    cells = [each for each in study() if each["target"] == "after" and each["source"] in (None, "after", "random-1")]
    alone, ablated, _ = told(EFFECT, cells)
    assert "harmful ones are refused more often, +80 points [+65, +89] (p < 0.001)" in alone.text
    assert ablated.text.startswith('Ablating "after"\'s direction in "after" changes the refusal rate')


def test_harmless_twins_are_compared_in_pairs():
    cells = [each for each in study() if each["target"] == "after" and each["source"] in (None, "after", "random-1")]
    alone, *_ = told(EFFECT, cells, matched=True)
    assert alone.text.endswith(
        "harmful ones are refused more often than their harmless twins, +80 points [+67, +89] (p < 0.001)."
    )


def arm(target, prompt, harmful, harmless):
    """Two cells without an edit, with their counts."""
    keys = [f"{target}/{prompt} {kind}" for kind in ("harmful", "harmless")]
    cells = [
        cell(key, target=target, prompt=prompt, instructions=kind)
        for key, kind in zip(keys, ("harmful", "harmless"), strict=True)
    ]
    return cells, dict(zip(keys, (harmful, harmless), strict=True))


def alone(*arms):
    cells = [each for found, _ in arms for each in found]
    return told({key: count for _, counts in arms for key, count in counts.items()}, cells)[0]


def test_of_many_arms_the_lowest_and_the_highest_rate_are_named():
    said = alone(*(arm("before", prompt, count, 1) for prompt, count in zip("abcd", (9, 2, 48, 20), strict=True)))
    assert said.text.startswith(
        'Without an edit, refusal rates of the 4 arms range from "before" under "b" (4 % [1, 13] of harmful and 2 % [0, 10] of '
        'harmless instructions) to "before" under "c" (96 % [87, 99] and 2 % [0, 10]); '
    )


def test_each_prompt_of_a_single_checkpoint_is_tested_and_named():
    said = alone(arm("before", "pythia", 2, 1), arm("before", "vicuna", 48, 1))
    assert said.shown is True
    assert said.text.endswith(
        '; it is not shown that harmful ones are refused more often by "before" under "pythia", +2 points [-7, +12] '
        '(p = 1, Holm); harmful ones are refused more often by "before" under "vicuna", +94 points [+83, +98] (p < 0.001, Holm).'
    )


def test_checkpoints_are_compared_under_the_prompts_that_they_share():
    said = alone(
        arm("before", "plain", 2, 1), arm("before", "vicuna", 30, 1), arm("after", "vicuna", 30, 1), arm("after", "plain", 2, 1)
    )
    assert said.shown is False
    assert (
        'it is not shown that "after" under "plain" refuses more or fewer of the harmful ones than "before" under "plain"'
        in said.text
    )
    assert 'that "after" under "vicuna" refuses more or fewer' in said.text
    assert 'than "before" under "vicuna"' in said.text


def test_checkpoints_that_share_no_prompt_are_said_to_have_their_own():
    said = alone(arm("before", "base", 2, 1), arm("after", "chat", 45, 1))
    assert (
        '"after" refuses 86 points [73, 93] more of the harmful ones than "before", each under its own prompt (p < 0.001).'
        in said.text
    )


def prompts_of_one(direction, prompt, refusals):
    key = f"{direction} in {prompt}"
    return edited(key, "before", target="before", prompt=prompt) | {"direction": f"before.{direction}"}, {key: refusals}


def test_a_direction_of_another_prompt_is_not_called_its_own():
    cells, counts = [], {}
    for prompt, harmful in (("pythia", 2), ("vicuna", 48)):
        made, found = arm("before", prompt, harmful, 1)
        cells, counts = cells + made, counts | found
        for direction, refusals in (("pythia", harmful * 3 // 4), ("vicuna", harmful // 20)):
            made, found = prompts_of_one(direction, prompt, refusals)
            cells, counts = [*cells, made], counts | found
        null = edited(f"null in {prompt}", "random-1", control=True, target="before", prompt=prompt)
        cells, counts = [*cells, null], counts | {null["key"]: harmful}
    _, ablated, _ = told(counts, cells)
    assert 'largest change: ablating "before" under "vicuna"\'s direction in "before" under "vicuna" changes' in ablated.text
    assert "own direction gives" not in ablated.text


def test_a_negative_coefficient_is_held_to_lower_refusals_of_harmful_instructions():
    cells = []
    for kind in ("harmful", "harmless"):
        cells.append(cell(f"after {kind}", instructions=kind))
        for source in ("before", "random-1"):
            dose = {"intervention": "add", "coefficient": -1.0, "unit": "unit", "instructions": kind}
            cells.append(edited(f"{source} {kind}", source, control=source == "random-1", **dose))
    counts = {"after harmful": 45, "before harmful": 1, "random-1 harmful": 44}
    counts |= {"after harmless": 30, "before harmless": 1, "random-1 harmless": 30}
    _, ablated, subtracted = told(counts, cells)
    assert ablated.shown is False
    assert subtracted.shown is True
    assert subtracted.text.startswith(
        'Adding a negative multiple of "before"\'s direction to "after" changes the refusal rate on harmful instructions from '
        "90 % to 2 %"
    )
    both = [*cells, *(each | {"key": f"{each['key']} up", "coefficient": 1.0} for each in cells if each["source"])]
    assert len(told(counts | {f"{key} up": count for key, count in counts.items()}, both)) == 4


def test_a_new_kind_of_edit_has_a_sentence_from_its_words_alone():
    cells = [cell("none"), turned("before in after", "before"), turned("null", "shuffled-1", control=True)]
    counts = {"none": 10, "before in after": 40, "null": 11}
    _, *found = told(counts, cells, {**WORDS, **INVENTED})
    assert [each.text for each in found] == [
        "The effect of ablating a direction is not shown: this run has no completions with such an edit.",
        "The effect of adding a direction is not shown: this run has no completions with such an edit.",
        'Rotating towards "before"\'s direction in "after" changes the refusal rate on harmful instructions from 20 % to 80 %, '
        "+60 points [+46, +72] (p < 0.001, Holm; 5 shuffled directions give 22 %, p < 0.001 against them).",
        "The effect of adding noise is not shown: this run has no completions with such an edit.",
    ]
    *_, turned_towards = told(counts | {"null": 42}, cells, {"rotate": INVENTED["rotate"]})
    assert turned_towards.text == (
        "It is not shown that rotating towards another checkpoint's direction raises refusals of harmful instructions: "
        '"before"\'s direction in "after" (from 20 % to 80 %, +60 points [+46, +72], the effect is inside the '
        "null distribution of shuffled directions (p = 1))."
    )


def test_an_edit_that_takes_no_direction_has_no_owner():
    facts = {"intervention": "noise", "action": "noise", "expected": 1}
    cells = [cell("none"), *(cell(f"noisy {dose:g}", coefficient=dose, **facts) for dose in (1.0, 3.0))]
    _, noisy = told({"none": 10, "noisy 1": 11, "noisy 3": 40}, cells, {"noise": NOISE})
    assert noisy.text == (
        'It is not shown that adding noise raises refusals of harmful instructions: to "after" (coefficient 3) (from 20 % to '
        '80 %, +60 points [+46, +72], no null direction was tested at this setting); to "after" (coefficient 1) (from 20 % to '
        "22 %, +2 points [-5, +10], the change is smaller than 10 points (p = 0.03))."
    )


def test_an_edit_that_should_act_on_both_instruction_sets_has_a_sentence_for_each():
    cells = []
    for label, expected in (("harmful", -1), ("harmless", 1)):
        cells.append(cell(f"none {label}", instructions=label))
        for source in ("before", "random-1"):
            facts = {"instructions": label, "expected": expected, "control": source == "random-1"}
            cells.append(turned(f"{source} {label}", source, **facts))
    counts = {"none harmful": 45, "none harmless": 2, "before harmful": 5, "before harmless": 40}
    counts |= {"random-1 harmful": 44, "random-1 harmless": 2}
    _, one, other = told(counts, cells, {"rotate": INVENTED["rotate"]})
    assert "changes the refusal rate on harmful instructions from 90 % to 10 %" in one.text
    assert "changes the refusal rate on harmless instructions from 4 % to 80 %" in other.text
    assert one.shown is other.shown is True
