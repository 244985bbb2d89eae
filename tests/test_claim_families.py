"""Holm's correction is made within the study's claims and within the exploratory edits, and nowhere else."""

import pytest

from demur.analysis.claim_families import DeclaredClaim, families
from demur.core.statistics import holm
from demur.runs.stored_records import cell_of
from tests.test_summary import cell, claim_on, edited, said, verdicts

ADD = {"intervention": "add", "coefficient": 2.0, "unit": "unit"}


def pair(targets=("before", "after"), sources=("before", "after")):
    cells = []
    for target in targets:
        for label in ("harmful", "harmless"):
            cells.append(cell(f"{target} {label}", target=target, instructions=label))
            for source in (*sources, "random-1"):
                facts = {"target": target, "instructions": label, "control": source == "random-1"}
                cells.append(edited(f"{target} {label} ablate {source}", source, **facts))
                cells.append(edited(f"{target} {label} add {source}", source, **facts, **ADD))
    return cells


def families_of(cells, declared=None):
    found = families([cell_of(each) for each in cells], declared)
    return {family: {key for key, mine in found.items() if mine == family} for family in found.values()}


def test_claims_are_about_the_edits_on_which_a_hypothesis_rests():
    found = families_of([*pair(), edited("affine", "before", target="after", intervention="affine")])
    # Where a direction was tried with the affine edit, the hypothesis rests on it. Ablation to zero stands beside it.
    assert found["exploratory"] == {"after harmful ablate before"}
    assert found["confirmatory"] == {
        "before harmful ablate before", "before harmless add before", "after harmful ablate after", "after harmless add after",
        "before harmful ablate after", "before harmless add after", "after harmless add before", "affine",
    }  # fmt: skip
    assert found["control"] == {each["key"] for each in pair() if each["control"]}
    assert "after harmless ablate before" in found["descriptive"]
    assert not any(key in found["descriptive"] for key in ("after harmful", "after harmless"))


def test_a_single_checkpoint_claims_its_own_direction():
    found = families_of(pair(targets=("after",), sources=("after",)))
    assert found["confirmatory"] == {"after harmful ablate after", "after harmless add after"}
    assert "exploratory" not in found


@pytest.mark.parametrize(
    ("declared", "claims"),
    [
        ([{"kind": "ablate", "source": "after", "target": "after"}], {"after harmful ablate after"}),
        ([{"kind": "add", "on": "harmless", "target": "before"}], {"before harmless add before", "before harmless add after"}),
        ([{"kind": "add", "on": "harmful"}], set()),  # no change is expected there, so there is nothing to test
        ([], set()),
    ],
)
def test_a_study_may_name_its_claims(declared, claims):
    found = families_of(pair(), [DeclaredClaim(**each) for each in declared])
    assert found.get("confirmatory", set()) == claims
    assert len(found["exploratory"]) == 8 - len(claims)


def test_controls_and_off_target_cells_cost_no_power():
    cells = pair()
    counts = {each["key"]: 20 for each in cells} | {"after harmful ablate before": 11, "before harmful ablate before": 9}
    alone = [each for each in cells if each["key"] in ("after harmful", "after harmful ablate before")]
    p = said(alone, verdicts(**counts))[1][0].p_value
    _, compared, found = said(cells, verdicts(**counts))
    row = next(row for row in compared if row.key == "after harmful ablate before")
    assert (row.p_value, row.p_holm) == (p, pytest.approx(7 * p))
    assert {other.p_holm for other in compared if other.family in ("control", "descriptive")} == {None}
    declared = [DeclaredClaim(kind="ablate", source="before", target="after")]
    found = said(cells, verdicts(**counts), declared=declared)[2]
    claim = claim_on("before harmful ablate before", found)
    assert claim.text.endswith("Exploratory.")
    assert claim.family == "exploratory"
    assert "Exploratory" not in claim_on("after harmful ablate before", found).text


def test_the_claims_p_is_corrected_with_the_larger_of_change_and_null():
    cells = pair()
    counts = {each["key"]: 20 for each in cells} | {"after harmful ablate before": 4, "after harmless add before": 44}
    found = [claim for claim in said(cells, verdicts(**counts))[2] if claim.family == "confirmatory"]
    larger = {claim.id: max(claim.nulls[0].p, row.p_value) for claim in found
              for row in said(cells, verdicts(**counts))[1] if row.key == claim.cells[1] and claim.effect}  # fmt: skip
    corrected = holm([larger.get(claim.id, 1.0) for claim in found])
    assert [claim.p for claim in found if claim.effect] == [
        pytest.approx(p) for claim, p in zip(found, corrected, strict=True) if claim.effect
    ]
    assert {claim.verdict for claim in found if claim.effect} == {"supported"}
