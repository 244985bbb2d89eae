"""Affine edits in a study: its own means, stored with the run; resumed, grown, reported; and where zero lies."""

import json

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError, WorkError
from demur.core.progress import no_phases
from demur.engine import capture
from demur.inputs.prompts import prompt_format
from demur.models.layouts import Point
from demur.runs import execution
from demur.runs.extracting.cell_needs import facts_of, means_of, means_of_plan
from demur.runs.extracting.means_rows import means_of_row
from demur.runs.run import Run
from demur.runs.selecting.trials import trial_means, trial_of, trials_of
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.selected_settings import deciding_label
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import contents, make_study

AFFINE = '{kind="affine"},{kind="affine",to="harmful",on=["harmless"]}'
ONLY_ZERO = 'interventions=[{kind="ablate",on=["harmful"]}]'
BOTH = f'interventions=[{{kind="ablate",on=["harmful"]}},{AFFINE}]'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("affine")
    make_study(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "affine"
    result = run(place, out, BOTH)
    assert result.exit_code == 0, result.output
    return out


def run(place, out, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(app, ["run", str(place / "study.toml"), "--out", str(out), "-q", *words])


def test_its_cells_and_what_they_need(place):
    plan = make_plan(demur.load_study(place / "study.toml", [BOTH]))
    cells = [cell for cell in plan.cells if cell.intervention is not None and cell.intervention.kind == "affine"]
    # 2 targets x 3 directions x (2 sets for the harmless mean, 1 for the harmful one).
    assert len(cells) == 18
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)
    assert {(means_of(cell), facts_of(cell)) for cell in cells if cell.target.checkpoint == "chat"} == {
        ((("chat/native", label),), (f"{label} means",)) for label in ("harmless", "harmful")
    }
    assert len(means_of_plan(plan)) == 4
    assert means_of_plan(make_plan(demur.load_study(place / "study.toml"))) == ()
    study = demur.load_study(place / "study.toml", [BOTH])
    # Beside an affine edit on the same instructions, ablation to zero does not decide where a direction is read.
    assert [deciding_label(study, number) for number in range(3)] == [None, ("harmful", -1), ("harmless", 1)]
    alone = demur.load_study(place / "study.toml")
    assert [deciding_label(alone, number) for number in range(2)] == [("harmful", -1), ("harmless", 1)]
    default = demur.load_study(place / "study.toml", ['interventions=[{kind="affine",to="harmless"}]'])
    assert default.digest == demur.load_study(place / "study.toml", ['interventions=[{kind="affine"}]']).digest
    with pytest.raises(InputError, match="'to' is 'zero'"):
        demur.load_study(place / "study.toml", ['interventions=[{kind="affine",to="zero"}]'])


def test_the_completions_are_those_of_python_with_the_targets_own_means(finished, place):
    table = demur.open_run(finished).completions()
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    found = demur.load_direction(finished / "directions" / "base.safetensors")
    train = {"harmful": HARMFUL[:4], "harmless": HARMLESS[:4]}
    for action, on in (("affine", "harmful"), ("affine", "harmless"), ("affine-to-harmful", "harmless")):
        label = "harmful" if action.endswith("harmful") else "harmless"
        edit = demur.affine(found, to=demur.stream_means(checkpoint, train[label], prompt, label=label))
        rows = table[(table.target == "chat") & (table.direction == "base") & (table.instructions == on)]
        rows = rows[(rows.intervention == "affine") & (rows.key.str.contains("to harmful") == (label == "harmful"))]
        expected = demur.generate(checkpoint, list(rows.instruction), prompt, [edit], max_new_tokens=3)[0]
        assert len(expected) == 3
        assert [tuple(ids) for ids in rows.token_ids] == [row.token_ids for row in expected], (action, on)


def test_the_means_are_stored_with_their_provenance(finished, place):
    store = Store.open(finished)
    assert store.complete_means() == {(arm, label) for arm in ("base/user-assistant", "chat/native")
                                      for label in ("harmful", "harmless")}  # fmt: skip
    (row,) = store.means("chat/native", "harmless")
    means = means_of_row(row, finished)
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    expected = demur.stream_means(checkpoint, HARMLESS[:4], demur.prompt_format("native", checkpoint))
    assert means.points == expected.points
    assert len(means.points) == 7
    assert torch.equal(means.mean, expected.mean)
    assert means.mean.dtype == torch.float64
    assert (means.count, means.position) == (4, -1)
    assert means.provenance.fingerprint == checkpoint.fingerprint
    assert means.provenance.harmless == store.direction("chat").provenance.harmless


def test_it_reads_each_instruction_once_and_a_resumed_run_reads_nothing(place, tmp_path, monkeypatch):
    passed, whole = [], capture._named

    def counted(found, checkpoint, texts):
        passed.append((checkpoint.name, len(texts)))
        return whole(found, checkpoint, texts)

    monkeypatch.setattr(capture, "_named", counted)
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)
    assert run(place, tmp_path / "run", BOTH, "measurements=[]").exit_code == 0
    assert sorted(passed) == [("base", 4), ("base", 4), ("chat", 4), ("chat", 4)]
    passed.clear()
    store = Store.open(tmp_path / "run")
    with store._transaction() as db:
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%affine%' AND position = 1")
    store.close()
    assert run(place, tmp_path / "run", BOTH, "measurements=[]").exit_code == 0
    assert passed == []


@pytest.mark.parametrize("measured", ["measurements=['by-layer']", pytest.param("measurements=[]", marks=pytest.mark.soak)])
def test_a_run_that_is_grown_by_the_edit_reuses_all_cells_and_ends_as_the_whole_one(place, tmp_path, monkeypatch, measured):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)
    generated, whole = [], execution.generate_batches

    def counted(checkpoint, requests, **settings):
        generated.append(len(requests))
        return whole(checkpoint, requests, **settings)

    monkeypatch.setattr(execution, "generate_batches", counted)
    assert run(place, tmp_path / "grown", ONLY_ZERO, measured).exit_code == 0
    before = sum(Store.open(tmp_path / "grown").progress().values())
    assert Store.open(tmp_path / "grown").complete_means() == set()
    generated.clear()
    assert run(place, tmp_path / "grown", BOTH, measured).exit_code == 0
    assert sum(generated) == 18 * 3
    assert run(place, tmp_path / "whole", BOTH, measured).exit_code == 0
    assert sum(Store.open(tmp_path / "whole").progress().values()) == before + 18 * 3
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")


def test_a_kill_between_means_and_completions_repeats_no_pass(place, finished, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execution, "generate_batches", killed)
        assert run(place, tmp_path / "run", BOTH).exit_code == 130
    assert Store.open(tmp_path / "run").complete_means()
    with monkeypatch.context() as patch:
        # The checkpoint that was reached first has its means; only the other one is still to be read.
        stored = Store.open(tmp_path / "run").complete_means()
        assert run(place, tmp_path / "run", BOTH).exit_code == 0
        assert stored < Store.open(tmp_path / "run").complete_means() or len(stored) == 4
    assert contents(tmp_path / "run") == contents(finished)


def test_means_that_are_gone_are_read_again_and_damaged_ones_are_refused(place, finished, tmp_path):
    demur.open_run(finished).copied_to(tmp_path / "copy").close()
    store = Store.open(tmp_path / "copy")
    with store._transaction() as db:
        db.execute("DELETE FROM means")
        db.execute("DELETE FROM completions WHERE cell LIKE '%affine%'")
    store.close()
    assert run(place, tmp_path / "copy", BOTH).exit_code == 0
    assert contents(tmp_path / "copy")["completions"] == contents(finished)["completions"]
    store = Store.open(tmp_path / "copy")
    with store._transaction() as db:
        db.execute("""UPDATE means SET facts = '{"points": []}'""")
        db.execute("DELETE FROM completions WHERE cell LIKE '%affine%'")
    store.close()
    result = run(place, tmp_path / "copy", BOTH)
    assert result.exit_code == 2, result.output
    assert "is damaged or not a run of demur (the means of" in result.output


def test_where_zero_lies_is_in_the_summary_the_tables_and_a_warning(finished, place):
    with demur.open_run(finished) as opened:
        summary = opened.summary()
    facts = {one["name"]: one["zero_at"] for one in summary["directions"]}
    assert facts["random-1"] == {}
    by_hand = {}
    for name, spec in (("base", "user-assistant"), ("chat", "native")):
        checkpoint = demur.load_checkpoint(f"{place}/{name}", name=name)
        prompt = demur.prompt_format(spec, checkpoint)
        harmful, harmless = (
            demur.capture(checkpoint, texts[:4], prompt, layers=[1])[:, 0].double().mean(0) for texts in (HARMFUL, HARMLESS)
        )
        for own in ("base", "chat"):
            unit = demur.load_direction(finished / "directions" / f"{own}.safetensors").vector.double()
            by_hand[own, f"{name}/{spec}"] = float(-(harmless @ unit) / ((harmful - harmless) @ unit))
    assert {(own, arm): value for own, at in facts.items() for arm, value in at.items()} == pytest.approx(by_hand)
    warned = [said for said in summary["warnings"] if "zero is nearer" in said]
    far = {arm for (_, arm), value in by_hand.items() if value > 0.5}
    assert far
    assert {said.split(",")[0].removeprefix("In ") for said in warned} == far
    for (own, arm), value in by_hand.items():
        assert (value > 0.5) == any(said.startswith(f"In {arm},") and f"along {own}" in said for said in warned)
    header, *rows = (finished / "tables" / "directions.csv").read_text().splitlines()
    column = header.split(",").index("zero_at")
    own = {row.split(",")[0]: row.split(",")[column] for row in rows}
    assert float(own["chat"]) == pytest.approx(by_hand["chat", "chat/native"])
    assert own["random-1"] == ""
    assert "Zero at" in (finished / "report.html").read_text()


def test_a_run_without_ablation_to_zero_warns_of_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)
    assert run(place, tmp_path / "run", f"interventions=[{AFFINE}]").exit_code == 0
    with demur.open_run(tmp_path / "run") as opened:
        summary = opened.summary()
    assert not [said for said in summary["warnings"] if "zero is nearer" in said]
    assert any(one["zero_at"] for one in summary["directions"])


def test_the_words_of_the_report(finished):
    with demur.open_run(finished) as opened:
        summary = opened.summary()
    assert {"affine", "affine-to-harmful", "ablate"} <= set(summary["edits"])
    said = " ".join(one["text"] for one in [*summary["answers"], *summary["claims"]])
    assert "oving the stream to the harmless mean along" in said
    assert "oving the stream to the harmful mean along" in said
    expected = {(cell["action"], cell["instructions"]): cell["expected"] for cell in summary["cells"] if cell["action"]}
    assert expected["affine", "harmful"] == -1
    assert expected["affine-to-harmful", "harmless"] == 1
    for claim in summary["claims"]:
        if claim["about"] == "effect" and "to harmful" in claim["id"]:
            assert "harmful mean along" in claim["text"]
    figures = {path.stem for path in (finished / "figures").iterdir()}
    assert {"affine", "affine-to-harmful", "ablated"} <= figures


def test_selection_tries_the_edit_with_the_arms_own_means(place):
    study = demur.load_study(place / "study.toml", [BOTH])
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    prompt = prompt_format("native", checkpoint)
    train = {"harmful": HARMFUL[:4], "harmless": HARMLESS[:4]}
    means = trial_means(checkpoint, study, train, [-1, -2], prompt, no_phases)
    assert set(means) == {-1, -2}
    for position in (-1, -2):
        for label in ("harmful", "harmless"):
            alone = demur.stream_means(checkpoint, train[label], prompt, label=label, position=position)
            assert torch.allclose(means[position].means(label).mean, alone.mean, atol=1e-6)
    found = demur.extract_direction(checkpoint, *train.values(), prompt, layer=1, position=-2)
    made = [trial.make(found) for trial in trials_of(study, means)]
    assert [one.kind for one in made] == ["affine", "affine"]
    assert all(not one.missing_facts for one in made)
    assert made[0].facts.harmless is means[-2].harmless
    assert [trial_of(study, number, 0.0, means).keeps_harmless for number in (1, 2)] == [True, False]
    assert trial_means(checkpoint, demur.load_study(place / "study.toml", [ONLY_ZERO]), train, [-1], prompt, no_phases) == {}


def test_generate_sets_the_component_to_the_mean_of_a_set(place, tmp_path):
    checkpoint = demur.load_checkpoint(f"{place}/chat")
    prompt = demur.prompt_format("native", checkpoint)
    found = demur.extract_direction(checkpoint, HARMFUL[:4], HARMLESS[:4], prompt, layer=1)
    file = found.save(tmp_path / "d.safetensors")
    out = tmp_path / "completions.jsonl"
    asked = [
        "generate",
        "-m",
        f"{place}/chat",
        "-p",
        "native",
        "-d",
        str(file),
        "--instruction",
        HARMFUL[6],
        "--max-new-tokens",
        "4",
        "-q",
    ]
    result = CliRunner().invoke(app, [*asked, "--affine", f"{place}/harmless.jsonl", "--out", str(out)])
    assert result.exit_code == 0, result.output
    (line,) = map(json.loads, out.read_text().splitlines())
    edit = demur.affine(found, to=demur.stream_means(checkpoint, HARMLESS[:4], prompt))
    expected = demur.generate(checkpoint, [HARMFUL[6]], prompt, [edit], max_new_tokens=4)[0][0]
    assert tuple(line["token_ids"]) == expected.token_ids
    assert (line["intervention"], line["means_of"]) == ("affine", f"{place}/harmless.jsonl")
    for more, said in (
        (["--affine", "x", "--ablate"], "either --ablate or --add NUMBER, or --affine SET"),
        (["--affine", f"{place}/harmless.jsonl", "--unit", "raw"], "--affine adds nothing"),
        (["--affine", f"{place}/nowhere.jsonl"], "nowhere"),
    ):
        result = CliRunner().invoke(app, [*asked, *more])
        assert (result.exit_code, said in result.output) == (2, True), result.output
    result = CliRunner().invoke(app, [*(word for word in asked if word not in ("-d", str(file))), "--affine", "x"])
    assert (result.exit_code, "need a direction" in result.output) == (2, True), result.output


def test_null_directions_from_the_same_pass_are_those_of_a_run_without_the_edit(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)
    made = {}
    for name, edits in (("zero", ONLY_ZERO), ("both", BOTH)):
        assert run(place, tmp_path / name, edits, "controls.covariance=1", "measurements=[]").exit_code == 0
        store = Store.open(tmp_path / name)
        made[name] = {each: store.direction(each).vector for each in store.direction_names()}
    assert set(made["zero"]) == set(made["both"]) == {"base", "chat", "random-1", "covariance-1"}
    for name, vector in made["zero"].items():
        assert torch.equal(vector, made["both"][name]), name


def test_missing_means_stop_a_job_with_a_sentence(finished):
    from demur.runs.job_inputs import JobInputs
    from demur.study.preflight import check

    store = Store.open(finished)
    inputs = JobInputs(check(make_plan(demur.load_study(finished / "study.toml"))), store)
    assert inputs.means(("chat/native", "harmless")).at(Point(0, "resid_pre")).shape == (32,)
    with pytest.raises(WorkError, match="the harmless means of 'other/native' are missing"):
        inputs.means(("other/native", "harmless"))
