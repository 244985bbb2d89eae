"""Entries: their order, their changes, and labels that tell apart what differs and no more."""

import pytest

from demur.report.cell_labels import direction_labels
from demur.report.cell_view import entries, judges
from demur.report.complete_summary import parsed_summary
from demur.report.page_figures import readable_numbers
from demur.report.result_tables import result_frame
from demur.report.sections.transfer_matrix import matrices
from tests.report.made_run import made_facts, make_run, sheets


def shown(**settings):
    summary, _ = make_run(n=3, **settings)
    return summary, entries(summary, judges(summary)[0])


def test_plain_study_has_plain_labels():
    _, found = shown()
    assert {entry.target for entry in found} == {"before", "after"}
    assert {entry.variant for entry in found} == {"baseline", "before", "after", "random-1", "random-2"}


def test_layers_coefficients_and_prompts_are_named_where_there_are_several():
    _, found = shown(layers=(3, 4), coefficients=(1.0, 2.0), prompts=("chatml", "plain"))
    added = {entry.variant for entry in found if entry.intervention == "add"}
    assert "before / plain, layer 3, \u00d7 2 raw" in added
    assert "random-1, layer 4, \u00d7 1 raw" in added
    assert {entry.variant for entry in found if entry.intervention == "ablate"} >= {
        "after / chatml, layer 4",
        "random-2, layer 3",
    }
    assert {entry.target for entry in found} == {"before / chatml", "before / plain", "after / chatml", "after / plain"}


@pytest.mark.parametrize(
    "settings", [{}, {"layers": (3, 4, 5)}, {"coefficients": (0.5, 1.0)}, {"prompts": ("a", "b"), "layers": (1, 2)}]
)
def test_no_two_cells_share_their_labels(settings):
    _, found = shown(**settings)
    labels = [(entry.target, entry.instructions, entry.intervention, entry.variant) for entry in found]
    assert len(set(labels)) == len(labels)


def test_edits_at_other_layers_are_told_apart_in_every_figure():
    facts, _ = made_facts(n=3)
    elsewhere = [
        {**cell, "key": cell["key"] + "elsewhere", "layers": [4, 5]} for cell in facts["cells"] if cell["intervention"] != "none"
    ]
    facts["cells"] += elsewhere
    summary = parsed_summary(facts)
    found = entries(summary, judges(summary)[0])
    assert {"before, ablated at all layers", "before, ablated at 4+5"} <= {e.variant for e in found if e.intervention == "ablate"}
    assert {"after, added at its own layer", "after, added at 4+5"} <= {e.variant for e in found if e.intervention == "add"}
    assert sum(len(matrix.cells) for matrix in matrices(summary, found)) >= len([e for e in found if e.intervention != "none"])


def test_what_differs_in_name_only_is_told_apart_by_name():
    facts, _ = made_facts(n=3)
    twin = {**next(each for each in facts["directions"] if each["source"] == "before"), "name": "twin"}
    facts["directions"].append(twin)
    copies = [
        {**cell, "key": cell["key"] + "twin", "direction": "twin"}
        for cell in facts["cells"]
        if cell["direction"] == "before-chatml-16"
    ]
    facts["cells"] += copies
    summary = parsed_summary(facts)
    variants = {entry.variant for entry in entries(summary) if entry.intervention == "add"}
    assert {"before (twin)", "before (before-chatml-16)", "after"} <= variants
    assert direction_labels(summary)["twin"] == "before (twin)"


def test_order_is_that_of_the_lineage_with_the_baseline_first_and_controls_last():
    summary, found = shown()
    assert [entry.target for entry in found] == ["before"] * (len(found) // 2) + ["after"] * (len(found) // 2)
    first = [(entry.intervention, entry.instructions, entry.direction) for entry in found[:6]]
    assert first == [
        ("none", "harmful", "baseline"),
        ("none", "harmless", "baseline"),
        ("add", "harmful", "before"),
        ("add", "harmful", "after"),
        ("add", "harmful", "random-1"),
        ("add", "harmful", "random-2"),
    ]
    turned = summary.model_copy(update={"cells": summary.cells[::-1]})
    assert [entry.key for entry in entries(turned, "prefix")] == [entry.key for entry in found]


def test_changes_are_those_of_the_comparisons_and_follow_from_rates_without_them():
    summary, found = shown()
    tests = {(test.key, test.judge): test for test in summary.comparisons}
    edits = [entry for entry in found if entry.intervention != "none"]
    assert all(entry.change == tests[entry.key, entry.judge].difference for entry in edits)
    assert all(entry.p_holm == tests[entry.key, entry.judge].p_holm for entry in edits)
    assert all(entry.change is None and entry.p_value is None for entry in found if entry.intervention == "none")
    without = entries(summary.model_copy(update={"comparisons": ()}), "prefix")
    assert [entry.change for entry in without] == pytest.approx([entry.change for entry in found])
    assert all(entry.p_value is None for entry in without)


def test_the_first_judge_of_the_study_is_the_first():
    summary, _ = make_run(n=3)
    assert judges(summary) == ["prefix", "substring"]
    other = {**summary.study, "judges": ["substring", "never ran"]}
    assert judges(summary.model_copy(update={"study": other})) == ["substring", "prefix"]


def test_matrices_hold_every_measured_pair_once():
    summary, found = shown(coefficients=(1.0, 2.0))
    made = matrices(summary, found)
    assert [matrix.name for matrix in made] == [
        f"transfer-{what}-{kind}" for what in ("add-1-raw", "add-2-raw", "ablate") for kind in ("harmful", "harmless")
    ]
    for matrix in made:
        assert matrix.rows == ("baseline", "before", "after", "random-1", "random-2")
        assert matrix.columns == ("before", "after")
        assert matrix.controls == {"random-1", "random-2"}
        assert all(
            matrix.cells[row, column].instructions == matrix.instructions for row in matrix.rows for column in matrix.columns
        )
    edits = [entry.key for matrix in made for (row, _), entry in matrix.cells.items() if row != "baseline"]
    assert sorted(edits) == sorted(entry.key for entry in found if entry.intervention != "none")


def test_every_figure_says_its_numbers():
    summary, completions = make_run(n=3)
    found = entries(summary, judges(summary)[0])
    drawings = sheets(summary, completions)
    assert len(drawings) == 8
    for drawing in drawings[:-1]:
        assert len(drawing.data) > 0
        assert drawing.title in drawing.alternative
        assert "%" in drawing.alternative
    added = next(drawing for drawing in drawings if drawing.name == "added")
    keys = {
        (entry.cell.target, entry.cell.direction, entry.instructions) for entry in found if entry.intervention in ("none", "add")
    }
    rows = added.data[["target", "direction", "instructions"]].astype(object)
    assert {tuple(row) for row in rows.where(rows.notna(), None).itertuples(index=False)} == keys


def test_the_numbers_under_a_figure_tell_every_cell_apart():
    facts, completions = made_facts(n=3, prompts=("chatml", "plain"), coefficients=(1.0,), layers=(3, 4))
    edited = [cell for cell in facts["cells"] if cell["intervention"] != "none"]
    facts["cells"] += [{**cell, "key": cell["key"] + "late", "positions": "generated"} for cell in edited]
    facts["cells"] += [{**cell, "key": cell["key"] + "unit", "unit": "unit"} for cell in edited if cell["intervention"] == "add"]
    summary = parsed_summary(facts)
    found = entries(summary, judges(summary)[0])
    for drawing in sheets(summary, completions):
        table = readable_numbers(drawing)
        if "rate" in table.columns:
            assert not table[["target", "instructions", "intervention", "direction", "coefficient"]].duplicated().any(), (
                drawing.name
            )
    assert (
        not result_frame(found)
        .drop(columns=["rate", "refusals"])
        .duplicated(
            [
                "target",
                "prompt",
                "instructions",
                "intervention",
                "direction",
                "coefficient",
                "unit",
                "positions",
                "layers",
                "sites",
            ]
        )
        .any()
    )


def test_where_an_edit_acts_is_named_also_where_its_source_tells_it_apart():
    facts, _ = made_facts(n=3)
    for cell in facts["cells"]:
        if cell["intervention"] == "add" and cell["source"] == "after":
            cell["sites"] = ["resid_pre", "resid_mid", "resid_post"]
    summary = parsed_summary(facts)
    added = {entry.variant for entry in entries(summary, judges(summary)[0]) if entry.intervention == "add"}
    assert "after, resid_pre+resid_mid+resid_post" in added
    assert "before, resid_pre" in added
    assert {entry.variant for entry in entries(summary, judges(summary)[0]) if entry.intervention == "ablate"} >= {
        "before",
        "after",
    }
