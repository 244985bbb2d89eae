"""The kind of edit `leace`: the closed form, the least change, what it needs, and a study with it."""

import numpy
import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.core.progress import no_phases
from demur.core.registry import registry
from demur.directions.estimators.estimator import fit_directions
from demur.inputs.prompts import prompt_format
from demur.interventions.edit_kind import EditKind
from demur.interventions.edit_table import tabulate
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.target_facts import TargetFacts
from demur.measurements.extraction import whole_side
from demur.models.layouts import Layout, Point
from demur.runs.extracting.cell_needs import means_of
from demur.runs.extracting.means_rows import spread_of_row
from demur.runs.run import Run
from demur.runs.selecting.trials import trial_means, trials_of
from demur.runs.store import Store
from demur.study.plan import make_plan
from tests import leace_by_hand
from tests.test_affine import direction
from tests.test_affine_study import ONLY_ZERO, run
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import contents, make_study

LAYOUT, WIDTH, HERE = Layout("llama", "model.layers", "self_attn", "mlp"), 12, Point(1, "resid_pre")


def training(n=60, seed=0, odd=0):
    """Activations that vary much along some axes, of both classes: harmful (n + odd), harmless (n)."""
    draw = torch.Generator().manual_seed(seed)
    mixing, gap = torch.randn(WIDTH, WIDTH, generator=draw), torch.randn(WIDTH, generator=draw)
    return [torch.randn(m, WIDTH, generator=draw) @ mixing + shift * gap for m, shift in ((n + odd, 2.0), (n, 0.5))]


def fitted(rows, found=None, to="both"):
    """The edit of the point where the activations were read, and their difference of means."""
    sides = tuple(whole_side(side[:, None]) for side in rows)
    (own,) = fit_directions(*sides, name="own", layers=[1])
    spread = StreamSpread.of_sides(sides, 0, 1, "resid_pre", -1, own.provenance)
    means = [
        demur.StreamMeans(label, (HERE,), side.mean, side.mean_norm, side.count)
        for label, side in zip(("harmful", "harmless"), sides, strict=True)
    ]
    edit = demur.edit("leace", found or own, layers=[1], sites=["resid_pre"], to=to)
    return edit.with_facts(TargetFacts.of_means(*means, spread)), own


def after(edit, rows):
    (step,) = tabulate([edit], LAYOUT, 3, WIDTH, "cpu")[HERE]
    stream = torch.cat(rows)[None]
    return step.apply(stream, stream)[0].double()


@pytest.mark.parametrize("odd", [0, 15])
@pytest.mark.parametrize("to", ["both", "harmless", "harmful"])
def test_the_classes_have_equal_means_and_the_label_cannot_be_read(odd, to):
    rows = training(odd=odd)
    erased = after(fitted(rows, to=to)[0], rows)
    high, low = erased[: len(rows[0])], erased[len(rows[0]) :]
    before = float((rows[0].mean(0) - rows[1].mean(0)).norm())
    assert float((high.mean(0) - low.mean(0)).norm()) < 1e-5 * before
    label = torch.cat([torch.ones(len(high)), torch.zeros(len(low))]).double()
    cross = (erased - erased.mean(0)).T @ (label - label.mean()) / len(label)
    assert float(cross.abs().max()) < 1e-5
    kept = {"both": torch.cat(rows), "harmful": rows[0], "harmless": rows[1]}[to].double().mean(0)
    assert torch.allclose(after(fitted(rows, to=to)[0], [kept.float()[None]])[0], kept, atol=1e-4)


def test_it_is_the_closed_form_of_its_source():
    rows = training()
    edit, own = fitted(rows)
    everything = torch.cat(rows).double().numpy()
    centred = torch.cat([side - side.mean(0) for side in rows]).double().numpy()
    difference = (rows[0].mean(0) - rows[1].mean(0)).double().numpy()
    # The covariance of everything is that within the classes, and what the difference of means adds.
    whole = leace_by_hand.shrunk(centred.T @ centred / len(centred), centred) + numpy.outer(difference, difference) / 4
    mean = everything.mean(0)
    expected = (everything - mean) @ leace_by_hand.least_change(whole, difference / 4).T + mean
    assert torch.allclose(after(edit, rows), torch.from_numpy(expected), atol=1e-3)
    spread = edit.facts.spread(HERE)
    assert torch.allclose(spread.reader(own.vector), leace_by_hand.reader(spread.deviations, own.vector).float(), atol=1e-5)
    assert spread.reader(own.vector) is spread.reader(own.vector.clone())


@pytest.mark.parametrize("seed", range(4))
def test_it_changes_the_activations_less_than_other_erasures(seed):
    rows = training(n=40, seed=seed)
    edit, own = fitted(rows)
    stream = torch.cat(rows).double()
    change = float((after(edit, rows) - stream).square().sum(1).mean())
    unit, centred = own.vector.double(), stream - stream.mean(0)
    orthogonal = float((centred @ unit).square().mean())
    assert change < 0.9 * orthogonal
    # Others that erase the direction too: read along any vector whose product with it is 1.
    for draw in range(20):
        noise = torch.randn(WIDTH, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
        read = edit.facts.spread(HERE).reader(own.vector).double() + 0.3 * (noise - (noise @ unit) * unit)
        assert change < float((centred @ read).square().mean())


def test_a_null_direction_goes_through_the_same_edit():
    rows = training()
    null = demur.random_direction(fitted(rows)[1], name="random-1")
    edit, own = fitted(rows, null)
    erased, stream = after(edit, rows), torch.cat(rows).double()
    reader = leace_by_hand.reader(edit.facts.spread(HERE).deviations, null.vector)
    expected = stream - ((stream - stream.mean(0)) @ reader)[:, None] * null.vector.double()
    assert torch.allclose(erased, expected, atol=1e-4)
    gap = erased[: len(rows[0])].mean(0) - erased[len(rows[0]) :].mean(0)
    assert float(gap @ own.vector.double()) > 0.5 * own.raw_norm


def test_what_the_kind_says_of_itself():
    kind = registry("edit").get("leace")
    assert isinstance(kind, EditKind)
    means = ("harmless means", "harmful means")
    for to, action, harmful, harmless, facts in (
        ("both", "leace", -1, 0, means),
        ("harmless", "leace-to-harmless", -1, 0, means[:1]),
        ("harmful", "leace-to-harmful", 0, 1, means[1:]),
    ):
        settings = kind.settings(to=to)
        assert kind.action_of(None, settings) == action
        assert (kind.expected(action, "harmful"), kind.expected(action, "harmless")) == (harmful, harmless)
        assert kind.target_facts(settings) == (*facts, "spread")
    assert [words.action for words in kind.words] == ["leace", "leace-to-harmless", "leace-to-harmful"]
    assert demur.edit("leace", direction()).missing_facts == (*means, "spread")


def test_what_does_not_fit_is_refused():
    rows = training()
    edit, own = fitted(rows)
    elsewhere = demur.from_raw(own.vector, name="later", layer=2)
    for made, said in (
        (demur.edit("leace", own, layers=[1], sites=["resid_pre"]), "activations vary at resid_pre of layer 1, where its direc"),
        (fitted(rows, elsewhere)[0], "activations vary at resid_pre of layer 2"),
        (fitted([side[:1].expand(4, -1) for side in rows])[0], "at resid_pre of layer 1 do not differ within the classes"),
        (
            demur.edit("leace", demur.from_raw(own.vector, name="d", layer=0, provenance={"not in the file": ["layer"]})),
            "a file that does not say its layer and site",
        ),
    ):
        with pytest.raises(InputError, match=said):
            tabulate([made], LAYOUT, 3, WIDTH, "cpu")
    with pytest.raises(InputError, match="activations of width 12 cannot be used with a direction of width 8"):
        edit.facts.spread(HERE).reader(torch.ones(8))
    with pytest.raises(InputError, match="to of an edit of kind 'leace'"):
        demur.edit("leace", own, to="zero")


# A study

LEACE = '{kind="leace"},{kind="leace",to="harmless",on=["harmful"],layers=[1],sites=["resid_pre"]}'
BOTH = f'interventions=[{{kind="ablate",on=["harmful"]}},{LEACE}]'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leace")
    make_study(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "leace"
    result = run(place, out, BOTH)
    assert result.exit_code == 0, result.output
    return out


def test_the_completions_are_those_of_python_with_the_targets_own_facts(finished, place):
    table = demur.open_run(finished).completions()
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    for name in ("base", "random-1"):
        found = demur.load_direction(finished / "directions" / f"{name}.safetensors")
        facts = demur.leace_facts(checkpoint, HARMFUL[:4], HARMLESS[:4], prompt, [found])
        for settings, where in (({}, {}), ({"to": "harmless"}, {"layers": [1], "sites": ["resid_pre"]})):
            edit = demur.edit("leace", found, **where, **settings).with_facts(facts)
            rows = table[(table.target == "chat") & (table.direction == name) & (table.instructions == "harmful")]
            rows = rows[(rows.intervention == "leace") & (rows.key.str.contains("to harmless") == bool(settings))]
            expected = demur.generate(checkpoint, list(rows.instruction), prompt, [edit], max_new_tokens=3)[0]
            assert len(expected) == 3
            assert [tuple(ids) for ids in rows.token_ids] == [row.token_ids for row in expected], (name, settings)


def test_what_is_stored_and_said(finished, place):
    plan = make_plan(demur.load_study(place / "study.toml", [BOTH]))
    cell = next(cell for cell in plan.cells if cell.intervention is not None and cell.intervention.kind == "leace")
    assert means_of(cell) == tuple((cell.target.name, one) for one in ("harmful", "harmless", "spread 1"))
    store = Store.open(finished)
    (row,) = store.means("chat/native", "spread 1")
    spread = spread_of_row(row, finished)
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    rows = [demur.capture(checkpoint, texts, prompt)[:, 1] for texts in (HARMFUL[:4], HARMLESS[:4])]
    assert spread.where == HERE
    assert torch.allclose(spread.deviations, torch.cat([side - side.mean(0) for side in rows]), atol=1e-5)
    assert (spread.provenance.fingerprint, spread.provenance.harmful.n) == (checkpoint.fingerprint, 4)
    with demur.open_run(finished) as opened:
        summary = opened.summary()
    expected = {(one["action"], one["instructions"]): one["expected"] for one in summary["cells"] if one["action"]}
    assert (expected["leace", "harmful"], expected["leace", "harmless"], expected["leace-to-harmless", "harmful"]) == (-1, 0, -1)
    assert any("to the mean of all by LEACE along" in one["text"] for one in [*summary["answers"], *summary["claims"]])


def test_a_run_that_is_grown_by_the_edit_ends_as_the_whole_one(place, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)
    assert run(place, tmp_path / "grown", f'{ONLY_ZERO[:-1]},{{kind="affine"}}]').exit_code == 0
    assert Store.open(tmp_path / "grown").complete_means() == {("base/user-assistant", "harmless"), ("chat/native", "harmless")}
    assert run(place, tmp_path / "grown", f'{BOTH[:-1]},{{kind="affine"}}]').exit_code == 0
    grown, whole = contents(tmp_path / "grown"), contents(finished)
    cells = {row.cell for row in whole["completions"]}
    assert [row for row in grown["completions"] if row.cell in cells] == whole["completions"]
    assert grown["files"] == whole["files"]


def test_selection_tries_the_edit_with_the_arms_own_facts(place):
    study = demur.load_study(place / "study.toml", ['interventions=[{kind="leace"}]'])
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    prompt = prompt_format("native", checkpoint)
    train = {"harmful": HARMFUL[:4], "harmless": HARMLESS[:4]}
    facts = trial_means(checkpoint, study, train, [-1, -2], prompt, no_phases)
    found = demur.extract_direction(checkpoint, *train.values(), prompt, layer=2, position=-2)
    (made,) = [trial.make(found) for trial in trials_of(study, facts)]
    assert not made.missing_facts
    alone = demur.leace_facts(checkpoint, *train.values(), prompt, [found])
    where = Point(2, "resid_pre")
    assert torch.allclose(made.facts.spread(where).deviations, alone.spread(where).deviations, atol=1e-5)


def test_the_facts_are_read_at_one_position(place):
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    other = demur.from_raw(torch.ones(checkpoint.d_model), name="d", layer=1, position=-2)
    same = demur.from_raw(torch.ones(checkpoint.d_model), name="d", layer=1)
    for given, said in (([same, other], "they got directions of positions -1, -2"), ([], "no direction")):
        with pytest.raises(InputError, match=said):
            demur.leace_facts(checkpoint, HARMFUL[:2], HARMLESS[:2], "native", given)
