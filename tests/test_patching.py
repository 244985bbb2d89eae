"""`patching`: planted differences are found where they are, and a study measures, stores, resumes and shows them."""

import json
import random
from contextlib import closing
from html import unescape
from pathlib import Path

import numpy
import pytest
import torch

import demur
from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import MeasuredPair, MeasuredRun, pair_results
from demur.core.errors import InputError
from demur.measurements.diffing.diff_runs import material_of
from demur.measurements.diffing.patching import Patching, PatchingSettings, _patches, layers_of
from demur.measurements.measurement import ArmSubject, MeasurementRecord, PairSubject
from demur.report.sections.diff.diff_words import kind_words
from demur.runs.diffing.diff_run import MEASUREMENTS, diff_study
from demur.runs.jobs import pending_jobs
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.rows import StoredMeasurement
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.preflight import check
from tests.pairs import attention_of, mlp_of, nothing, taught_pair, unembedding
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_checkpoint, make_study

JUDGE = "tests.study_parts:Starts"
QUICK = {"judge": JUDGE, "max_new_tokens": 2, "min_mass": 0.02, "instructions": 6, "completions": 0}


def pair_subject(base, chat):
    def arm(checkpoint):
        prompt = demur.prompt_format("native", checkpoint)
        texts = {"harmful": HARMFUL, "harmless": HARMLESS}
        return ArmSubject(f"{checkpoint.name}/native", checkpoint, prompt, {}, texts, "resid_pre", -1, (1,))

    return PairSubject(f"{base.name} with {chat.name} under native", arm(base), arm(chat))


def measured(record):
    (pair,) = measured_pairs([StoredMeasurement("patching", "base with chat", "{}", 1, record)])
    return pair


def patched(weights, **settings):
    record = Patching().measure(pair_subject(*taught_pair(weights, **settings)), PatchingSettings(**QUICK, parts=False))
    (result,) = pair_results([measured(record)])
    return result


def transition(result, source):
    return next(one for one in result.transitions if one.source == source)


@pytest.mark.parametrize(
    ("weights", "head", "layer"), [(mlp_of(2), None, 2), pytest.param(attention_of(1), 1, 1, marks=pytest.mark.soak)]
)
def test_a_difference_in_one_layer_is_found_there_in_both_directions(weights, head, layer):
    result = patched(weights, head=head, steps=20 if head is None else 40)
    assert result.differs
    assert result.second_rate > result.first_rate + 0.02
    for source in ("chat", "base"):
        found = transition(result, source)
        assert (found.layer, found.ci95) == (layer, (layer, layer))
        stream = next(curve for curve in result.curves if (curve.source, curve.kind) == (source, "stream"))
        assert [run.recovery for run in stream.runs] == [0.0] * layer + [1.0] * (4 - layer)
        changed, other = ("mlp added", "attention added")[:: 1 if head is None else -1]
        added = {one.kind: [run.recovery for run in one.runs] for one in result.curves if one.source == source}
        assert added[changed][:layer] == added[other][:layer] == [0.0] * layer
        assert added[changed][layer] == 1.0
    # The boundary is after layer 1, so all of the difference is in the later layers, or all before them.
    halves = result.halves
    late = layer > 1
    assert (halves.layer, halves.upstream == halves.neither, halves.late == halves.both) == (1, late, late)
    assert halves.interaction == pytest.approx(0, abs=1e-9)
    into_base = findings([result])[1]
    assert f"By layer {layer}" in into_base.answer
    assert into_base.shown


def test_a_difference_in_one_head_is_found_by_patches_of_heads():
    pair = pair_subject(*taught_pair(attention_of(1), head=1, steps=40))
    quick = PatchingSettings(**QUICK, parts=False, components=False, layers=(1,), heads=2, heads_of=1)
    (result,) = pair_results([measured(Patching().measure(pair, quick))])
    for source in ("chat", "base"):
        at = {curve.kind: curve.runs[0].recovery for curve in result.curves if curve.source == source}
        heads = {kind: value for kind, value in at.items() if kind.startswith("head ")}
        # All four heads of layer 1, and one of another layer if its estimate is among the two largest.
        assert set(heads) >= {f"head 1.{head}" for head in range(4)}
        assert len(heads) <= 5
        assert heads["head 1.1"] == pytest.approx(1, abs=1e-3)
        assert [heads[f"head 1.{other}"] for other in (0, 2, 3)] == pytest.approx([0, 0, 0], abs=1e-4)
        # What was taught breaks with any other vector of this norm, but comes with one only.
        assert source == "base" or at["permuted head 1.1"] < 0.25
    (step,) = (one for one in findings([result]) if one.question == "Does one head carry the difference?")
    assert step.shown
    assert step.answer.startswith("Head 1 of layer 1 alone brings 100 %")
    assert kind_words("permuted head 1.1") == "null: permuted difference of head 1 of layer 1"


def test_a_layer_that_does_not_exist_has_no_heads():
    with pytest.raises(InputError, match="layers 0 to 3"):
        Patching().measure(pair_subject(*taught_pair(nothing)), PatchingSettings(**QUICK, heads_of=9))


def test_a_difference_in_the_unembedding_only_is_in_no_layer():
    result = patched(unembedding)
    assert result.differs
    assert transition(result, "chat").layer is None
    assert all(run.recovery == 0 for curve in result.curves for run in curve.runs)
    found = findings([result])[1]
    assert "the rest lies after layer 3" in found.answer
    assert found.shown


def test_nothing_is_said_of_equal_checkpoints():
    result = patched(nothing)
    assert not result.differs
    assert {run.recovery for curve in result.curves for run in curve.runs} == {None}
    (found,) = findings([result])
    assert found.answer.startswith("Nothing is shown")
    assert not found.shown


def test_pairs_that_differ_by_chance_alone_are_rarely_told_apart():
    """200 pairs whose probabilities come from one distribution: at most one in twenty is told apart, up to chance."""
    told = 0
    for seed in range(200):
        draw = random.Random(seed)
        rows = [tuple(draw.betavariate(0.5, 0.5) for _ in range(16)) for _ in range(2)]
        runs = tuple(MeasuredRun(name, name, "alone", None, row) for name, row in zip(("base", "chat"), rows, strict=True))
        told += pair_results([MeasuredPair("patching", "x", "base", "chat", "native", JUDGE, runs, 0.0)])[0].differs
    assert told <= 20


def planted(text):
    """A record of patches after layers 0 and 1. The second brings all of the difference, and this text is written there."""
    rows = {"base": [0.1] * 8, "chat": [0.9] * 8}
    runs = [("base", "base", "alone", None), ("chat", "chat", "alone", None)]
    runs += [("chat", "base", "stream", 0), ("chat", "base", "stream", 1)]
    values = numpy.array([rows["base"], rows["chat"], rows["base"], rows["chat"]])
    values = values + numpy.linspace(0, 0.05, 8)  # some spread over instructions
    facts = {name: [run[place] for run in runs] for place, name in enumerate(("source", "target", "kind", "place"))}
    prose = "I would plant them in May, when the soil is warm."
    facts |= {"first": "base", "second": "chat", "prompt": "native", "judge": "prefix"}
    facts |= {"written_target": ["base"] * 6, "written_place": [None, None, 0, 0, 1, 1]}
    facts |= {"written_text": [prose] * 4 + [text] * 2}
    return MeasurementRecord(facts, {"probability": values, "gap": numpy.zeros((4, 8))})


@pytest.mark.parametrize(("text", "broken"), [("I cannot help with that.", 0.0), ("the the the the the the the the", 1.0)])
def test_a_change_of_refusals_in_broken_text_is_not_shown(text, broken):
    (result,) = pair_results([measured(planted(text))])
    (curve,) = result.curves
    assert [run.broken_more for run in curve.runs] == [0.0, broken]
    step = findings([result])[1]
    assert step.answer.startswith("By layer 1")
    assert step.shown == (broken == 0)
    assert ("100 % more of the completions only repeat themselves" in step.evidence) == (broken == 1)


def test_of_many_layers_every_second_one_is_patched_by_parts_and_along():
    layers = layers_of(None, 30)
    found = _patches(layers, PatchingSettings(), torch.ones(8))
    at = {kind: tuple(one.layer for one in found if one.kind == kind) for kind in dict.fromkeys(one.kind for one in found)}
    assert at["stream"] == at["permuted"] == layers
    assert at["prompt"] == at["generated"] == at["along"] == at["random direction"] == layers[1::2]
    assert at["attention added"] == at["mlp added"] == at["permuted attention"] == at["permuted mlp"] == layers[1::2]
    assert {len(layers[:6])} == {[one.kind for one in _patches(layers[:6], PatchingSettings(), None)].count("prompt")}


def test_the_layers_are_evenly_spaced_and_the_last_is_there():
    assert layers_of(None, 4) == (0, 1, 2, 3)
    assert layers_of(None, 30)[0] == 0
    assert layers_of(None, 30)[-1] == 29
    assert len(layers_of(None, 30)) == 10
    assert layers_of((2, 1), 8) == (1, 2, 7)
    with pytest.raises(InputError, match="layers 0 to 3"):
        layers_of((4,), 4)


def test_a_prompt_with_a_token_that_one_checkpoint_lacks_is_refused():
    base, chat = taught_pair(nothing)
    base.model.resize_token_embeddings(20)
    with pytest.raises(InputError, match="has only tokens 0 to 19"):
        material_of(pair_subject(base, chat), 8)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patched")
    given = demur.load_study(make_study(folder))
    asked = {"name": "patching", **QUICK, "instructions": 3, "completions": 1}
    return given.model_validate({**given.model_dump(mode="json"), "measurements": [asked]})


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    demur.run(study, folder)
    return folder


def test_a_study_measures_each_pair_once_in_the_later_checkpoint_s_format(study, folder):
    with closing(Store.open(folder)) as store:
        (one,) = store.measurements()
        assert not store.unmeasured()
        assert pending_jobs(check(make_plan(study)), store) == []
    assert one.subject == "base with chat under native"
    assert one.record.facts["prompt"] == "native"
    assert set(one.record.facts["kind"]) == {
        "alone", "stream", "prompt", "generated", "permuted", "along", "random direction",
        "attention added", "mlp added", "permuted attention", "permuted mlp",
    }  # fmt: skip
    assert one.record.arrays["probability"].shape == (2 * (1 + 3 * 10), 3)
    assert numpy.isfinite(one.record.arrays["probability"]).all()


def test_the_summary_the_page_and_the_tables_show_it(folder):
    summary = json.loads((folder / "summary.json").read_text())
    (result,) = summary["diff"]
    assert (result["first"], result["second"], result["n"]) == ("base", "chat", 3)
    assert summary["changed"][0]["question"] == "Do the checkpoints refuse differently?"
    stored = next(one for one in summary["measurements"] if one["name"] == "patching")
    assert "written_text" not in stored["summary"]
    written = zip(stored["summary"]["written_target"], stored["summary"]["written_place"], strict=True)
    assert list(written) == [(target, place) for target in ("base", "chat") for place in (None, 0, 1, 2)]
    page = unescape((folder / "report.html").read_text())
    assert "What changed" in page
    assert summary["changed"][0]["answer"] in page
    assert page.index("What fine-tuning changed") < page.index("What this run says")
    assert {path.name for path in (folder / "tables").glob("*.csv")} >= {"what-changed.csv", "diff-patching.csv"}
    assert (folder / "figures" / "diff-patching.svg").is_file()


def test_a_pair_that_does_not_match_is_a_stated_failure(study, tmp_path):
    other = make_checkpoint(tmp_path / "other", rms_norm_eps=0.1)
    changed = study.model_dump(mode="json")
    changed["checkpoints"]["chat"]["model"] = str(other)
    demur.run(
        study.model_validate(changed),
        tmp_path / "run",
    )
    with closing(Store.open(tmp_path / "run")) as store:
        (failed,) = store.unmeasured()
    assert "differ in 'rms_norm_eps'" in failed.reason


def test_diff_makes_no_edits_and_goes_on_where_they_were_made(study, folder, tmp_path):
    whole = study.model_dump(mode="json")
    plain = study.model_validate({**whole, "measurements": ["by-layer"]})
    alone = diff_study(plain, tmp_path / "new")
    assert tuple(one.name for one in alone.measurements) == MEASUREMENTS
    assert (alone.interventions, make_plan(alone).cells[0].intervention) == ([], None)
    assert not [one for one in make_plan(alone).directions if one.control]
    # The settings of the study are kept, and a folder with its edits goes on.
    mine = diff_study(study, folder)
    assert mine.measurements[:1] == study.measurements
    assert mine.interventions == study.interventions
    with pytest.raises(InputError, match="has one checkpoint"):
        diff_study(study.model_validate({**whole, "checkpoints": {"base": whole["checkpoints"]["base"]}}))


def test_the_command_prints_the_argument(study, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from demur.cli.main import app

    monkeypatch.chdir(tmp_path)
    # The defaults follow every beginning that a random model finds likely, and these are many.
    quick = {**QUICK, "instructions": 2}
    few = {name: value for name, value in quick.items() if name != "completions"}
    asked = [
        {"name": "patching", **quick, "layers": [2], "parts": False},
        {"name": "weight-swaps", **quick, "windows": 2, "ranks": [1]},
        {"name": "amplification", **quick, "coefficients": [0]},
        {"name": "attribution", **few, "tested": 2, "counts": [2]},
        {"name": "difference-lens", **few, "tokens": 3, "layers": [1]},
        {"name": "divergence", "instructions": 2, "max_new_tokens": 3},
    ]
    chosen = study.model_validate({**study.model_dump(mode="json"), "measurements": asked})
    Path("mine.toml").write_text(chosen.toml())
    found = CliRunner().invoke(app, ["diff", "mine.toml", "--quiet"])
    assert found.exit_code == 0, found.output
    assert "Do the checkpoints refuse differently?" in found.output
    assert found.output.strip().endswith("tiny-diff/report.html")
    assert {cell.action for cell in Store.open(tmp_path / "runs" / "tiny-diff").cells()} == {""}
