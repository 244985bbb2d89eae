"""Training pairs that are drawn by a seed, and directions from several draws of them."""

import json

import pytest

import demur
from demur.core.errors import InputError
from demur.inputs.instructions import read_instructions
from demur.report.cell_labels import direction_labels
from demur.report.cell_view import entries
from demur.runs.run import Run
from demur.runs.runner import run
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.plan_text import plan_lines
from demur.study.preflight import check
from demur.study.selected_settings import with_all_layers
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests.test_study import changed
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import EARLIER_DEMO, contents
from tests.tiny_study import make_study as make_tiny_study

TWO = ("direction.pairs=3", "direction.pairs_seed=[7,8]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    make_tiny_study(folder)
    # Five training instructions, so that draws of three differ.
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        splits = ["train"] * 5 + ["test"] * 3
        lines = [{"instruction": row, "split": split} for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(autouse=True)
def without_pages(monkeypatch):
    """A run ends with its verdicts. One test looks at the page, which takes longer than all the rest here."""
    monkeypatch.setattr(Run, "report", Run.judge_stored)


WITH_PAGE = Run.report


def study(place, *settings):
    return load_study(place / "study.toml", ["measurements=[]", *settings])


def names(found):
    return [one.name for one in make_plan(found).directions]


def test_the_first_pairs_are_used_as_before_unless_there_is_a_seed(place):
    plain = study(place, "direction.pairs=3")
    assert plain.direction.seeds == (None,)
    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"
    assert check(make_plan(plain)).material["harmful"].train == tuple(HARMFUL[:3])
    digests = [study(place, "direction.pairs=3", *more).digest for more in ((), *([f"direction.pairs_seed={s}"] for s in (1, 2)))]
    assert len(set(digests)) == 3
    assert study(place, "direction.pairs_seed=1").digest == study(place, "direction.pairs_seed=[1]").digest


def test_a_draw_is_a_fixed_choice_and_keeps_matched_pairs():
    harmful, harmless = (read_instructions(f"contrast-{label}") for label in ("harmful", "harmless"))
    first, again, other = (harmful.draw(32, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 32
    assert set(first) <= set(harmful.splits["train"])
    # Written down, so that another version of numpy that draws otherwise is noticed.
    assert [harmful.splits["train"].index(text) for text in first[:4]] == [94, 91, 84, 48]
    places = [harmful.splits["train"].index(text) for text in first]
    assert places == [harmless.splits["train"].index(text) for text in harmless.draw(32, 1)]
    with pytest.raises(InputError, match="145 train instructions"):
        harmful.draw(145, 1)


def test_each_seed_gives_a_direction_with_controls_of_its_own(place):
    assert names(study(place, "direction.pairs_seed=7")) == ["base", "chat", "random-1"]
    assert names(study(place, *TWO)) == [
        "base.pairs7", "base.pairs8", "chat.pairs7", "chat.pairs8", "random-1.pairs7", "random-1.pairs8",
    ]  # fmt: skip
    both = study(place, *TWO, "direction.layers=all")
    found = names(with_all_layers(both))
    assert found[:4] == ["base.pairs7.layer1", "base.pairs8.layer1", "base.pairs7.layer2", "base.pairs8.layer2"]
    assert len(found) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("seed", "said"),
    [("[]", "pairs_seed"), ("[1,1]", "1 is listed twice"), ("-1", "pairs_seed"), ("one", "pairs_seed"), ("1.5", "pairs_seed")],
)
def test_seeds_that_mean_nothing_are_refused(place, seed, said):
    with pytest.raises(InputError, match=said):
        study(place, f"direction.pairs_seed={seed}")


def test_draws_that_are_all_equal_are_refused(place):
    with pytest.raises(InputError, match="each draws all 5 training instructions"):
        check(make_plan(study(place, "direction.pairs=5", "direction.pairs_seed=[1,2]")))
    check(make_plan(study(place, "direction.pairs=5", "direction.pairs_seed=1")))


def test_the_plan_tells_the_seeds(place):
    lines = plan_lines(look_ahead(study(place, *TWO)))
    assert any("of 3 pairs, drawn with the seeds 7, 8" in line for line in lines)


@pytest.fixture(scope="module")
def done(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("seeds-run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "report", Run.judge_stored)
        run(study(place, *TWO), out).close()
    return out


def test_a_direction_of_a_list_is_the_one_of_its_seed_alone(place, done, tmp_path):
    for seed in (7, 8):
        run(study(place, "direction.pairs=3", f"direction.pairs_seed={seed}"), tmp_path / str(seed)).close()
        alone, listed = Store.open(tmp_path / str(seed)), Store.open(done)
        for name in ("base", "chat"):
            one, other = alone.direction(name), listed.direction(f"{name}.pairs{seed}")
            assert one.vector.equal(other.vector)
            assert one.provenance.harmful == other.provenance.harmful
    assert not Store.open(done).direction("chat.pairs7").vector.equal(Store.open(done).direction("chat.pairs8").vector)
    drawn = read_instructions(str(place / "harmful.jsonl")).draw(3, 7)
    wanted = demur.load_checkpoint(str(place / "chat"), device="cpu")
    harmless = read_instructions(str(place / "harmless.jsonl")).draw(3, 7)
    made = demur.extract_direction(wanted, drawn, harmless, "native", layer=1)
    assert made.vector.allclose(Store.open(done).direction("chat.pairs7").vector)


def test_the_report_names_the_draws_apart(done):
    with demur.open_run(done) as opened:
        WITH_PAGE(opened)
        summary = opened.summary_record()
        claims = [claim.text for claim in summary.claims if claim.about != "hypothesis"]
    labels = direction_labels(summary)
    assert labels["chat.pairs7"] == "chat, pairs 7"
    edited = [entry for entry in entries(summary, "prefix") if entry.edited]
    rows = [(entry.target, entry.instructions, entry.intervention, entry.variant) for entry in edited]
    assert len(set(rows)) == len(rows)
    assert {entry.variant.split(",")[0] for entry in edited} == {"base", "chat", "random-1"}
    assert {cell.pairs_seed for cell in summary.cells if cell.edited} == {7, 8}
    own = [text for text in claims if '"chat"' in text and "its own" in text]
    assert own
    assert all("training pairs 7" in text or "training pairs 8" in text for text in own)
    assert any('"base"\'s' in text for text in claims)
    assert "chat, pairs 7" in (done / "report.html").read_text(encoding="utf-8")


def test_an_effect_is_compared_with_the_null_directions_of_its_draw(done):
    with demur.open_run(done) as opened:
        summary = opened.summary_record()
    by_key = {cell.key: cell for cell in summary.cells}
    effects = [claim for claim in summary.claims if claim.id.startswith("effect")]
    assert effects
    for claim in effects:
        seeds = {by_key[key].pairs_seed for key in claim.cells[1:]}
        assert len(seeds) == 1
        assert claim.null.n == 1


@pytest.mark.soak
def test_measurements_are_made_with_the_first_seed(place, tmp_path):
    first = ("direction.pairs=3", "direction.pairs_seed=[7]", 'measurements=["by-layer"]')
    run(study(place, *first), tmp_path / "one").close()
    run(study(place, *TWO, 'measurements=["by-layer"]'), tmp_path / "two").close()
    one, two = (contents(tmp_path / name)["summary"]["measurements"] for name in ("one", "two"))
    assert [each["summary"] for each in one] == [each["summary"] for each in two]


def test_a_run_grows_by_a_seed_and_refuses_another_first_one(place, done, tmp_path):
    out, told = tmp_path / "run", []
    run(study(place, *TWO), out).close()
    three = "direction.pairs_seed=[7,8,9]"
    run(study(place, *TWO, three), out, tell=told.append).close()
    assert "direction.pairs_seed [7, 8] -> [7, 8, 9]" in told[0]
    run(study(place, *TWO, three), tmp_path / "whole").close()
    assert contents(out) == contents(tmp_path / "whole")
    for seeds in ("[9,8,7]", "[7]", "[7,9,8]"):
        with pytest.raises(InputError, match=r"direction.pairs_seed is"):
            run(study(place, *TWO, f"direction.pairs_seed={seeds}"), out)
    assert contents(done) != contents(out)


def test_a_run_of_one_draw_does_not_become_one_of_several(place, tmp_path):
    run(study(place, "direction.pairs=3"), tmp_path / "plain").close()
    with pytest.raises(InputError, match=r"direction.pairs_seed is \[7, 8\] in this study and not set in the run"):
        run(study(place, *TWO), tmp_path / "plain")
    run(study(place, "direction.pairs=3", "direction.pairs_seed=7"), tmp_path / "seven").close()
    with pytest.raises(InputError, match=r"direction.pairs_seed is .* renames the run's direction 'base' to 'base.pairs7'"):
        run(study(place, *TWO), tmp_path / "seven")


def test_lists_of_everything_fit_together(place):
    """Seeds, layers, doses, revisions, texts, a system sentence and a further set in one study."""
    found = make_study(
        changed(
            checkpoints={
                "base": {
                    "model": "a/b",
                    "revision": ["v1", "v2"],
                    "prompts": "Q: {system} {instruction} A:",
                    "system": "Be brief.",
                }
            },
            instructions={"harmful": "contrast-harmful", "harmless": "contrast-harmless", "more": "contrast-lookalike"},
            direction={"layers": [1, 2], "pairs_seed": [1, 2]},
            interventions=[{"kind": "ablate"}, {"kind": "add", "coefficient": [1.0, 2.0], "on": "more", "sources": ["base"]}],
            controls={"random": 1},
        )
    )
    plan = make_plan(found)
    assert [arm.name for arm in plan.arms] == ["base-v1/q-a-brief", "base-v2/q-a-brief"]
    assert len(plan.directions) == (2 + 1) * 2 * 2
    per_arm = 3 + 12 + 2 * 12
    assert len(plan.cells) == 2 * per_arm
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)
