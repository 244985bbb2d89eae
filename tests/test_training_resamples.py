"""Resamples of the training pairs: their directions, their cells, the interval over pairs, and their place in a run."""

import json
import random
import statistics

import pytest
import torch

import demur
from demur.analysis.cell import Cell
from demur.analysis.rates import comparisons
from demur.analysis.spreads.pairs_spread import pairs_spreads
from demur.core.effects.paired_change import paired_change
from demur.core.effects.resampled_effects import interval_over_pairs
from demur.core.errors import InputError, WorkError
from demur.directions.estimators.estimator import fit_directions
from demur.directions.training_resamples import resampled_direction, resampled_rows
from demur.inputs.instructions import digest
from demur.inputs.training_texts import TrainingTexts
from demur.measurements.extraction import whole_side
from demur.report.cell_view import entries
from demur.runs.run import Run
from demur.runs.runner import run
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.plan_text import plan_lines
from demur.study.study_files import load_study
from tests.tiny_study import EARLIER_DEMO, make_study

PLAIN = ('measurements=["refusal-probability"]', 'judges=["prefix"]', "controls.random=1")
THREE = (*PLAIN, "direction.resamples=3")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("resamples"))


def study(file, *settings):
    return load_study(file, settings)


# The directions.


def side(seed, count=6):
    rows = torch.randn(count, 1, 8, generator=torch.Generator().manual_seed(seed))
    found = whole_side(rows)
    return type(found)(
        found.mean, found.mean_norm, found.count, rows, TrainingTexts(tuple(f"text {seed} {n}" for n in range(count)))
    )


def test_a_resample_is_the_estimate_from_the_drawn_pairs():
    harmful, harmless = side(1), side(2)
    (whole,) = fit_directions(harmful, harmless, name="base", layers=[4])
    made = resampled_direction(
        whole, name="base.resample2", number=2, estimator="difference-of-means", harmful=harmful, harmless=harmless
    )
    rows = resampled_rows(6, 2).tolist()
    assert sorted(set(rows)) != list(range(6)), "a resample that holds every pair once would show nothing"
    # Naive: the mean over the drawn rows of both sides, pair by pair.
    raw = sum(harmful.activations[row, 0].double() - harmless.activations[row, 0].double() for row in rows) / 6
    assert torch.allclose(made.vector.double(), raw / raw.norm(), atol=1e-6)
    assert made.raw_norm == pytest.approx(float(raw.norm()))
    assert (made.layer, made.site, made.position) == (whole.layer, whole.site, whole.position)
    assert made.provenance.cosine == pytest.approx(float(made.vector @ whole.vector), abs=1e-5)
    assert made.provenance.harmful.sha256 == digest([f"text 1 {row}" for row in rows])
    assert made.provenance.method == "difference of means, resample 2 of the training pairs"


def test_resamples_are_the_same_for_every_arm_and_differ_by_number():
    assert resampled_rows(128, 3).equal(resampled_rows(128, 3))
    assert not resampled_rows(128, 3).equal(resampled_rows(128, 4))
    # Written down, so that another version of torch that draws otherwise is noticed.
    assert resampled_rows(128, 1)[:5].tolist() == [109, 87, 27, 8, 15]
    drawn = torch.cat([resampled_rows(50, number) for number in range(1, 201)])
    counts = torch.bincount(drawn, minlength=50)
    assert counts.min() > 150
    assert counts.max() < 250


def test_sides_that_cannot_be_paired_are_refused():
    harmful, harmless = side(1), side(2, count=5)
    (whole,) = fit_directions(harmful, harmless, name="base", layers=[4])
    with pytest.raises(WorkError, match="equally many"):
        resampled_direction(whole, name="r", number=1, estimator="difference-of-means", harmful=harmful, harmless=harmless)


# The study and its plan.


def test_without_resamples_nothing_changes(file):
    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"
    plain = study(file, *PLAIN)
    assert study(file, *PLAIN, "direction.resamples=0").digest == plain.digest
    assert study(file, *PLAIN, "direction.resample_completions=false").digest == plain.digest
    assert study(file, *THREE).digest != plain.digest
    assert study(file, *THREE).digest != study(file, *THREE, "direction.resample_completions=false").digest


def test_resamples_are_made_for_the_edits_under_test_only(file):
    plan, plain = make_plan(study(file, *THREE)), make_plan(study(file, *PLAIN))
    more = [one for one in plan.directions if one.resample_of is not None]
    assert [one.name for one in more] == [f"{name}.resample{n}" for name in ("base", "chat") for n in (1, 2, 3)]
    assert not any(one.control or one.own for one in more)
    cells = [cell for cell in plan.cells if cell.resampled]
    # Ablation on harmful and addition on harmless instructions, of two directions in two checkpoints, three times.
    assert len(cells) == 2 * 2 * 2 * 3
    assert {(cell.intervention.kind, cell.instructions) for cell in cells} == {("ablate", "harmful"), ("add", "harmless")}
    assert [cell for cell in plan.cells if not cell.resampled] == list(plain.cells)
    silent = make_plan(study(file, *THREE, "direction.resample_completions=false"))
    assert {cell.key for cell in silent.null_cells} == {cell.key for cell in cells}
    assert list(silent.cells) == list(plain.cells)


def test_the_plan_tells_what_resamples_cost(file):
    said = " ".join(" ".join(plan_lines(look_ahead(study(file, *THREE)))).split())
    assert "each from 3 resamples of its training pairs too, for the edits under test: 24 cells, 72 completions" in said


def test_only_the_first_seed_is_resampled(file):
    plan = make_plan(study(file, *PLAIN, "direction.pairs=3", "direction.pairs_seed=[7,8]", "direction.resamples=2"))
    names = [one.name for one in plan.directions if one.resample_of is not None]
    assert names == ["base.pairs7.resample1", "base.pairs7.resample2", "chat.pairs7.resample1", "chat.pairs7.resample2"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["direction.resamples=1"], "one resample of the training pairs has no spread"),
        (["direction.resamples=-1"], "resamples"),
        (["direction.resamples=2", "direction.pairs=1"], "at least 2 training pairs"),
        (
            ["direction.resamples=2", "direction.resample_completions=false", "measurements=[]"],
            'add "refusal-probability" to the measurements',
        ),
    ],
)
def test_resamples_that_say_nothing_are_refused(file, settings, said):
    with pytest.raises(InputError, match=said):
        study(file, *settings)


# The interval.


def test_the_interval_holds_the_one_with_the_direction_fixed():
    draw = random.Random(1)
    for _ in range(200):
        before, rate = draw.random(), draw.random()
        low, high = rate - before - draw.random() / 4, rate - before + draw.random() / 4
        more = [draw.random() for _ in range(draw.randint(2, 9))]
        wide = interval_over_pairs(before, rate, (max(-1, low), min(1, high)), more, 40)
        assert -1 <= wide[0] <= max(-1, low)
        assert min(1, high) <= wide[1] <= 1
    assert interval_over_pairs(0.2, 0.4, (0.1, 0.3), [0.4, 0.4], 50) == pytest.approx((0.1, 0.3), abs=0.01)
    with pytest.raises(InputError, match="two resamples or more"):
        interval_over_pairs(0.2, 0.4, (0.1, 0.3), [0.4], 50)


def refused(levels, at):
    """Which instructions are refused where the direction puts all of them at `at`."""
    return [level + at > 0 for level in levels]


@pytest.mark.parametrize(
    ("mean", "between", "resamples"), [(-1.0, 0.5, 5), (-1.0, 1.0, 5), (-1.0, 0.0, 5), (-2.5, 0.5, 5), (-0.2, 0.5, 20)]
)
def test_the_interval_covers_when_pairs_and_instructions_are_drawn_anew(mean, between, resamples):
    """Probit worlds: the effect of a direction depends on its pairs (sd `between`), and instructions differ with sd 1.

    The truth is the change by the direction from endlessly many pairs, over endlessly many instructions.
    """
    draw, normal = random.Random(7), statistics.NormalDist()
    before, n, studies = 1.2, 100, 500
    truth = normal.cdf(before + mean) - normal.cdf(before)
    fixed_covers = covers = 0
    for _ in range(studies):
        levels = [draw.gauss(0, 1) for _ in range(n)]
        own = before + mean + between * draw.gauss(0, 1)
        first, second = refused(levels, before), refused(levels, own)
        change = paired_change(first, second)
        others = [statistics.fmean(refused(levels, own + between * draw.gauss(0, 1))) for _ in range(resamples)]
        rates = statistics.fmean(first), statistics.fmean(second)
        wide = interval_over_pairs(*rates, change.interval(), others, n)
        covers += wide[0] <= truth <= wide[1]
        fixed_covers += change.interval()[0] <= truth <= change.interval()[1]
    assert 0.925 <= covers / studies <= 0.975
    if between:
        assert fixed_covers / studies < 0.75


# A run.


def test_a_spread_is_computed_from_the_verdicts_of_its_cells():
    place = {"target": "chat", "prompt": "native", "instructions": "harmful"}
    edit = {**place, "intervention": "ablate", "source": "base", "expected": -1, "layer": 3}
    cells = [Cell(key="none", intervention="none", **place), Cell(key="own", direction="base", **edit)]
    more = [Cell(key=f"r{n}", direction=f"base.resample{n}", resample_of="base", **edit) for n in (1, 2, 3)]
    other = Cell(key="elsewhere", direction="base.resample1", resample_of="base", **{**edit, "layer": 4})
    refused = {"none": [1, 1, 1, 1, 1, 0], "own": [0, 0, 0, 1, 0, 0], "r1": [0, 0, 0, 0, 0, 0], "r2": [1, 1, 1, 0, 0, 0]}
    refused |= {"r3": [1, 1, 0, 0, 0, 0], "elsewhere": [1] * 6}
    refusals = {(key, "prefix"): {at: bool(one) for at, one in enumerate(each)} for key, each in refused.items()}
    del refusals["r2", "prefix"][5]
    compared = comparisons(cells, refusals, ["prefix"])
    near = {"base.resample1": 0.9, "base.resample2": 0.7, "base.resample3": None}
    (found,) = pairs_spreads(cells, [*more, other], compared, refusals, "prefix", cosines=near)
    assert (found.n, found.resamples, found.baseline_rate, found.rate) == (5, 3, 1.0, 0.2)
    assert found.rates == (0.0, 0.6, 0.4)
    assert found.sd == pytest.approx(statistics.stdev([0.0, 0.6, 0.4]))
    assert found.cosines == (0.7, 0.9)
    assert found.ci95_pairs == pytest.approx(interval_over_pairs(1.0, 0.2, found.ci95, [0.0, 0.6, 0.4], 5))
    assert pairs_spreads(cells, more[:1], compared, refusals, "prefix") == []


@pytest.fixture(scope="module")
def done(file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "report", Run.judge_stored)
        run(study(file, *THREE), file.parent / "run").close()
    return file.parent / "run"


@pytest.mark.soak
def test_resamples_are_in_no_table_and_no_family_and_change_no_other_number(file, done, monkeypatch):
    with demur.open_run(done) as opened:
        opened.report(figures="none")
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    run(study(file, *PLAIN), file.parent / "plain").close()
    with demur.open_run(done) as opened, demur.open_run(file.parent / "plain") as plain:
        found, without = opened.summary_record(), plain.summary_record()
        every = opened.cells()
    assert found.cells == without.cells
    assert found.comparisons == without.comparisons
    assert found.directions == without.directions
    assert found.cosines == without.cosines
    assert not without.pairs
    assert [(one.id, one.verdict, one.effect, one.ci95, one.p, one.nulls) for one in found.claims] == [
        (one.id, one.verdict, one.effect, one.ci95, one.p, one.nulls) for one in without.claims
    ]
    assert [entry.key for entry in entries(found)] == [entry.key for entry in entries(without)]
    # Who wants to look at each resample finds it in Python and in the store.
    assert every["resample_of"].notna().sum() == 24
    table = (done / "tables" / "training-pairs.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + len(found.pairs) == 1 + 2 * 8


def test_each_number_is_that_of_the_stored_verdicts(done):
    store = Store.open(done)
    refused = {}
    for row in store.verdicts():
        refused.setdefault(row.cell, {})[row.position] = row.refusal
    summary = demur.open_run(done).summary()
    rows = [one for one in summary["pairs"] if one["outcome"] == "verdict"]
    assert len(rows) == 8
    cells = {cell.key: cell for cell in store.cells()}
    for one in rows:
        cell = cells[one["key"]]
        mine = [each for each in cells.values() if each.resample_of == cell.direction and each.place == cell.place]
        mine = [each for each in mine if each.intervention == cell.intervention]
        assert one["rates"] == [statistics.fmean(refused[each.key].values()) for each in mine]
        assert len(mine) == 3
        claim = next(each for each in summary["claims"] if each["id"] == f"effect: {one['key']}")
        assert claim["ci95_pairs"] == one["ci95_pairs"]
        assert claim["ci95"] == one["ci95"]
        assert "ver 3 resamples of the training pairs refusals" in claim["text"]
    assert any("resamples of the training pairs" in one["text"] for one in summary["answers"])


def test_directions_of_a_run_are_those_of_the_drawn_pairs(done, file):
    store = Store.open(done)
    files = {label: (file.parent / f"{label}.jsonl").read_text().splitlines() for label in ("harmful", "harmless")}
    texts = {label: [json.loads(line)["instruction"] for line in lines[:4]] for label, lines in files.items()}
    rows = resampled_rows(4, 2).tolist()
    checkpoint = demur.load_checkpoint(str(file.parent / "chat"), device="cpu")
    drawn = [[texts[label][row] for row in rows] for label in ("harmful", "harmless")]
    made = demur.extract_direction(checkpoint, *drawn, "native", layer=1)
    stored = store.direction("chat.resample2")
    assert torch.allclose(made.vector, stored.vector, atol=1e-5)
    assert stored.raw_norm == pytest.approx(made.raw_norm, rel=1e-5)


@pytest.mark.soak
def test_a_run_grows_by_resamples(file, done, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    out, told = tmp_path / "run", []
    run(study(file, *PLAIN), out).close()
    run(study(file, *THREE), out, tell=told.append).close()
    assert "direction.resamples 0 -> 3" in told[0]
    with demur.open_run(out) as grown, demur.open_run(done) as whole:
        assert grown.summary_record().pairs == whole.summary_record().pairs
    with pytest.raises(InputError, match=r"direction.resamples is 2 in this study and 3 in the run"):
        run(study(file, *PLAIN, "direction.resamples=2"), out)


@pytest.mark.soak
def test_resamples_without_completions_have_probabilities(file, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    run(study(file, *THREE, "direction.resample_completions=false"), tmp_path / "run").close()
    with demur.open_run(tmp_path / "run") as opened:
        found = opened.summary_record()
    assert {one.outcome for one in found.pairs} == {"probability"}
    assert len(found.pairs) == 8
    assert all(claim.ci95_pairs is None for claim in found.claims)
    assert any("probabilities of a refusal" in one.text for one in found.answers)
