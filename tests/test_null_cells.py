"""Null directions without completions: which cells they have, what is measured of them, and what they decide."""

import pytest

from demur.core.errors import InputError
from demur.runs.runner import run
from demur.study.plan import make_plan
from demur.study.study_files import load_study
from tests.tiny_study import make_study

MANY = ["controls.random=6", "controls.completions=1", 'measurements=["by-layer", {name="refusal-probability", min_mass=0.05}]']


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


def test_null_cells_are_those_where_a_change_is_expected(file):
    plan, whole = (make_plan(load_study(file, changes)) for changes in (MANY, ["controls.random=6"]))
    assert whole.null_cells == ()
    assert {cell.key for cell in plan.cells} < {cell.key for cell in whole.cells}
    assert all(cell.direction.name != "random-1" for cell in plan.null_cells)
    # Ablation on harmful and addition on harmless instructions, of five directions, in two checkpoints.
    assert len(plan.null_cells) == 2 * 2 * 5
    assert {(cell.intervention.kind, cell.instructions) for cell in plan.null_cells} == {
        ("ablate", "harmful"),
        ("add", "harmless"),
    }
    assert plan.rows() == 3 * len(plan.cells)


def test_null_directions_that_nothing_measures_are_refused(file):
    with pytest.raises(InputError, match=r'controls.completions is 1, .* 6 random directions; add "refusal-probability"'):
        load_study(file, MANY[:2])
    assert load_study(file, [*MANY[:1], "controls.completions=6"]).controls.completions == 6


def test_a_run_measures_null_cells_and_stores_no_completions_of_them(file, tmp_path):
    with run(load_study(file, MANY), tmp_path / "run") as finished:
        summary, rows = finished.summary_record(), finished.completions()
    assert set(rows["source"].dropna()) == {"base", "chat", "random-1"}
    measured = {one.subject for one in summary.measurements if one.name == "refusal-probability"}
    plan = make_plan(load_study(file, MANY))
    assert measured == {cell.key for cell in (*plan.cells, *plan.null_cells)}
    assert not [warning for warning in summary.warnings if "not finished" in warning]
    assert all(null.n == 6 and null.outcome == "probability" for claim in summary.claims for null in claim.nulls)


def test_more_completions_reuse_what_is_there(file, tmp_path):
    told = []
    run(load_study(file, MANY), tmp_path / "run").close()
    changes = [MANY[0], "controls.completions=3", MANY[2]]
    with run(load_study(file, changes), tmp_path / "run", tell=told.append) as finished:
        rows = finished.completions()
    assert set(rows["source"].dropna()) == {"base", "chat", "random-1", "random-2", "random-3"}
    assert "controls.completions" in told[0]
    with pytest.raises(InputError, match=r"controls.completions"):
        run(load_study(file, MANY), tmp_path / "run")


@pytest.mark.soak
def test_only_the_first_instructions_can_be_measured(file, tmp_path):
    changes = ['measurements=[{name="refusal-probability", instructions=2}]']
    with run(load_study(file, changes), tmp_path / "run") as finished:
        assert {one.summary["n"] for one in finished.summary_record().measurements} == {2}
