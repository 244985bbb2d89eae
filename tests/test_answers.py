"""Three sentences from cells: what is shown names its rates and what stands beside it, what is not shown says so."""

from demur.answers import answers
from demur.summary import cell_rows, comparisons
from tests.test_summary import cell, edited

LINEAGE = ["before", "after"]
N = 50


def told(counts, cells):
    refusals = {(each["key"], "prefix"): {i: i < counts[each["key"]] for i in range(N)} for each in cells}
    rows, compared = cell_rows(cells, refusals, ["prefix"]), comparisons(cells, refusals, ["prefix"])
    return answers(rows, compared, refusals, "prefix", LINEAGE)


def study(edits=("ablate", "add")):
    cells = []
    for target in LINEAGE:
        for kind in ("harmful", "harmless"):
            cells.append(cell(f"{target} {kind}", target=target, instructions=kind))
            for edit in edits:
                if (edit, kind) in (("ablate", "harmful"), ("add", "harmless")):
                    for source in (*LINEAGE, "random-1"):
                        more = {"coefficient": 2.0, "unit": "raw"} if edit == "add" else {}
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
    assert alone["shown"] is ablated["shown"] is added["shown"] is True
    assert alone["text"] == (
        "Left alone, before refuses 4 % [1, 13] of harmful and 2 % [0, 10] of harmless instructions, after 90 % [79, 96] and "
        "10 % [4, 21]; after refuses 86 points more of the harmful ones than before (p < 0.001)."
    )
    assert ablated["text"].startswith(
        "Ablating before's direction in after takes refusals of harmful instructions from 90 % to 16 % [8, 29] "
        "(p < 0.001, Holm; after's own to 6 % [2, 16]; random ones to 88 %)"
    )
    assert "not shown for after's direction in before (from 4 % to 2 % [0, 10])" in ablated["text"]
    assert "Adding before's direction to after takes refusals of harmless instructions from 10 % to 80 %" in added["text"]


def test_what_a_null_direction_does_too_is_not_shown():
    _, ablated, added = told(EFFECT | {"after harmful ablate random-1": 8, "after harmless add random-1": 40}, study())
    assert ablated["shown"] is added["shown"] is False
    assert ablated["text"].startswith(
        "That ablating another checkpoint's direction lowers refusals of harmful instructions is not shown"
    )
    assert "before's direction in after (from 90 % to 16 % [8, 29])" in ablated["text"]


def test_no_difference_and_no_cells_are_said_not_to_be_shown():
    alone, ablated, added = told(EFFECT | {"after harmful": 3}, study(edits=()))
    assert alone["shown"] is False
    assert "that after refuses 2 points more of the harmful ones than before is not shown (p = 1)" in alone["text"]
    assert ablated["text"] == "What ablating a direction does is not shown: this run has no such cell."
    assert added["shown"] is False


def test_one_checkpoint_answers_for_its_own_direction():
    cells = [each for each in study() if each["target"] == "after" and each["source"] in (None, "after", "random-1")]
    alone, ablated, _ = told(EFFECT, cells)
    assert "harmful ones are refused more often (p < 0.001)" in alone["text"]
    assert ablated["text"].startswith("Ablating after's direction in after takes refusals")
