"""The digest of a study: it counts what decides about results and nothing else, and a run goes on where nothing of it differs."""

import hashlib
import json
import shutil
import typing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs.store import Store
from demur.study.digest import deciding_facts, differences, with_defaults
from demur.study.published_spec import Publication, PublishedRate
from demur.study.spec import Study, make_study
from demur.study.spec_fields import Decides, DecidesNothing, mark_of
from demur.study.study_files import load_study, preset_names
from tests.test_study import changed
from tests.tiny_study import EARLIER_DEMO, contents
from tests.tiny_study import make_study as make_tiny_study

EDITS = [{"kind": "ablate"}, {"kind": "add", "coefficient": 2.0, "unit": "raw"}]
PAIR = {"base": {"model": "a/b", "prompts": ["chatml"]}, "chat": {"model": "a/c", "adapter": "a/d"}}
START = changed(checkpoints=PAIR, interventions=EDITS, prompts={"unused": "x {instruction}"})
SWAPPED = dict(reversed(PAIR.items()))


def start(**changes):
    return {**START, **changes}


def checkpoint(**changes):
    return start(checkpoints={**PAIR, "chat": {**PAIR["chat"], **changes}})


def keys_of(model: type[BaseModel], seen: set[type[BaseModel]]) -> list[tuple[type[BaseModel], str]]:
    """Every key of a model and of the models in its keys, without those of publications, which decide nothing as a whole."""
    found = []
    for key, field in model.model_fields.items():
        found.append((model, key))
        parts = [field.annotation]
        while parts:
            part = parts.pop()
            parts += typing.get_args(part)
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in {*seen, Publication, PublishedRate}:
                seen.add(part)
                found += keys_of(part, seen)
    return found


def test_every_key_of_a_study_says_whether_it_decides():
    keys = keys_of(Study, {Study})
    assert {model.__name__ for model, _ in keys} == {
        "Study", "CheckpointSpec", "InstructionSpec", "DirectionSpec", "InterventionSpec", "ControlSpec", "MeasurementSpec",
        "SelectionSpec", "PromptSpec", "ClaimSpec", "EstimatorSpec", "GateSpec",
    }  # fmt: skip
    for model, key in keys:
        mark = mark_of(model, key)
        assert not isinstance(mark, DecidesNothing) or mark.reason


def test_a_key_without_a_mark_is_noticed():
    class Longer(Study):
        spare: int = 3

    with pytest.raises(TypeError, match="spare has 0 marks"):
        deciding_facts(Longer, make_study(START).model_dump(mode="json"))


DECIDES_NOTHING = {
    "name": start(name="other"),
    "summary": start(summary="new"),
    "batch_tokens": start(batch_tokens=64),
    "judges": start(judges=["substring", "prefix"]),
    "measurements": start(measurements=["by-layer", "loss"]),
    "sections": start(sections=["rates"]),
    "an unused prompt": start(prompts={"unused": "other {instruction}", "more": "y {instruction}"}),
    "role": checkpoint(role="chat"),
    "parameters": checkpoint(parameters=1e9),
    "published": start(
        published=[{"work": "x", "rates": [{"target": "base", "instructions": "harmful", "refusals": 1, "n": 2}]}]
    ),
    "order of interventions": start(interventions=EDITS[::-1]),
    "an intervention twice": start(interventions=[*EDITS, EDITS[0]]),
    "unit of what takes no dose": start(interventions=[{**EDITS[0], "unit": "raw"}, EDITS[1]]),
    "order of on": start(interventions=[EDITS[0], {**EDITS[1], "on": ["harmless", "harmful"]}]),
    "all sources": start(interventions=[{**EDITS[0], "sources": ["chat", "base"]}, EDITS[1]]),
    "all targets": start(interventions=[{**EDITS[0], "targets": ["chat", "base"]}, EDITS[1]]),
    "default dose as a whole number": start(interventions=[EDITS[0], {**EDITS[1], "coefficient": 2}]),
    "defaults of the study": start(
        split="test",
        max_new_tokens=16,
        stop_at_eos=True,
        until_verdict=False,
        dtype="float32",
        engine="transformers",
        control_tokens="text",
    ),
    "defaults of the direction": start(
        direction={
            "layers": 1,
            "pairs": 32,
            "site": "resid_pre",
            "position": -1,
            "estimator": "difference-of-means",
        }
    ),
    "defaults of a checkpoint": checkpoint(prompts=["native"]),
    "defaults of instructions": start(instructions={k: {**v, "test": 100} for k, v in START["instructions"].items()}),
    "defaults of an intervention": start(interventions=[{**EDITS[0], "on": "harmful", "positions": "all"}, EDITS[1]]),
    "the computed number of controls": start(controls={"random": 10}),
    "the seed of the controls": start(controls={"seed": 0}),
}


@pytest.mark.parametrize("case", DECIDES_NOTHING)
def test_what_decides_nothing_changes_no_digest(case):
    before, after = make_study(START), make_study(DECIDES_NOTHING[case])
    assert differences(after, before.model_dump(mode="json")) == []
    assert after.digest == before.digest


DECIDES = {
    "split": (start(split="validation"), "validation", "test"),
    "max_new_tokens": (start(max_new_tokens=17), 17, 16),
    "stop_at_eos": (start(stop_at_eos=False), False, True),
    "dtype": (start(dtype="float16"), "float16", "float32"),
    "control_tokens": (start(control_tokens="tokens"), "tokens", "text"),
    "until_verdict": (start(until_verdict=True), True, False),
    "checkpoints": (start(checkpoints=SWAPPED), ["chat", "base"], ["base", "chat"]),
    "checkpoints.chat.model": (checkpoint(model="a/x"), "a/x", "a/c"),
    "checkpoints.chat.adapter": (checkpoint(adapter=None), None, "a/d"),
    "checkpoints.chat.revision": (checkpoint(revision="v2"), "v2", None),
    "checkpoints.chat.quantise": (checkpoint(quantise="4bit"), "4bit", None),
    "checkpoints.chat.prompts": (checkpoint(prompts=["chatml"]), ["chatml"], ["native"]),
    "instructions.harmful.source": (
        start(instructions={**START["instructions"], "harmful": {"source": "z.csv"}}),
        "z.csv",
        "x.csv",
    ),
    "instructions.harmless.test": (
        start(instructions={**START["instructions"], "harmless": {"source": "y.csv", "test": 9}}),
        9,
        100,
    ),
    "direction.pairs": (start(direction={"layers": [1], "pairs": 64}), 64, 32),
    "direction.pairs_seed": (start(direction={"layers": [1], "pairs_seed": 3}), [3], None),
    "direction.resamples": (start(direction={"layers": [1], "resamples": 5}), 5, 0),
    "direction.layers": (start(direction={"layers": [1, 2]}), [1, 2], [1]),
    "direction.site": (start(direction={"layers": [1], "site": "resid_post"}), "resid_post", "resid_pre"),
    "direction.position": (start(direction={"layers": [1], "position": -2}), -2, -1),
    "interventions.1.coefficient": (start(interventions=[EDITS[0], {**EDITS[1], "coefficient": 3.0}]), 3.0, 2.0),
    "interventions.1.unit": (
        # Without a dose in units of the norm, the default is five controls.
        start(interventions=[EDITS[0], {**EDITS[1], "unit": "unit"}], controls={"random": 10}),
        "unit",
        "raw",
    ),
    "interventions.0.layers": (start(interventions=[{**EDITS[0], "layers": [1]}, EDITS[1]]), [1], None),
    "interventions.0.sites": (start(interventions=[{**EDITS[0], "sites": ["resid_pre"]}, EDITS[1]]), ["resid_pre"], None),
    "interventions.0.positions": (start(interventions=[{**EDITS[0], "positions": "prompt"}, EDITS[1]]), "prompt", "all"),
    "interventions.1.on": (
        start(interventions=[EDITS[0], {**EDITS[1], "on": ["harmless"]}]),
        ["harmless"],
        ["harmful", "harmless"],
    ),
    "interventions.0.sources": (start(interventions=[{**EDITS[0], "sources": ["base"]}, EDITS[1]]), ["base"], None),
    "interventions.0.targets": (start(interventions=[{**EDITS[0], "targets": ["base"]}, EDITS[1]]), ["base"], None),
    "interventions.1": (
        start(interventions=EDITS[:1], controls={"random": 10}),
        None,
        {"kind": "add", "coefficient": 2.0, "unit": "raw"},
    ),
    "controls.random": (start(controls={"random": 3}), 3, 10),
    "controls.seed": (start(controls={"seed": 1}), 1, 0),
    "controls.completions": (start(controls={"random": 10, "completions": 1}, measurements=["refusal-probability"]), 1, None),
}


@pytest.mark.parametrize("key", DECIDES)
def test_what_decides_changes_the_digest_and_is_named_with_both_values(key):
    data, here, there = DECIDES[key]
    before, after = make_study(START), make_study(data)
    assert after.digest != before.digest
    (found,) = differences(after, before.model_dump(mode="json"))
    assert (found.key, found.here, found.there) == (key, here, there)


def test_every_key_that_always_decides_has_a_case():
    covered = {key.split(".")[-1] for key in DECIDES}
    keys = {key for model, key in keys_of(Study, {Study}) if isinstance(mark_of(model, key), Decides)}
    # Judges decide only with until_verdict, parts of one's own are tried below, `selection` in test_select_settings, `like` in
    # test_instruction_sets, formats with a system sentence in test_system_sentences, `resample_completions`, which decides only
    # with resamples, in test_training_resamples, and several estimators and what they are used for in test_several_estimators.
    others = {"judges", "engine", "estimator", "kind", "instructions", "doses", "kl", "like", "format", "system"}
    others |= {"resample_completions", "further_estimators", "name", "directions", "estimators", "read_at", "span"}
    # A gate and its keys are tried in test_gated_studies.
    others |= {"when", "tokens", "above", "below", "layer"}
    assert keys - covered == others


def test_parts_of_ones_own_decide_about_results(monkeypatch):
    register = {"estimator": "demur.directions.direction:from_raw", "engine": "demur.engine.capture:capture"}
    for kind, target in register.items():
        demur.register(kind, "my-own", target)
    try:
        for key, data in (
            ("direction.estimator", start(direction={"layers": [1], "estimator": "my-own"})),
            ("engine", start(engine="my-own")),
        ):
            (found,) = differences(make_study(data), make_study(START).model_dump(mode="json"))
            assert (found.key, found.here) == (key, "my-own")
    finally:
        for kind in register:
            demur.core.registry.registry(kind).unregister("my-own")


def test_judges_decide_where_completions_end_at_their_verdicts():
    first, second = (make_study(start(until_verdict=True, judges=judges)) for judges in (["prefix"], ["prefix", "substring"]))
    (found,) = differences(second, first.model_dump(mode="json"))
    assert (found.key, found.here, found.there) == ("judges", ["prefix", "substring"], ["prefix"])
    again = make_study(start(until_verdict=True, judges=["substring", "prefix"]))
    assert again.digest == second.digest != first.digest


def test_the_order_of_checkpoints_and_prompts_decides_only_where_there_are_controls():
    two = {**PAIR["base"], "prompts": ["chatml", "pythia"]}
    swapped = {**PAIR["base"], "prompts": ["pythia", "chatml"]}
    for random, same in ((0, True), (1, False)):
        controls = {"random": random}
        ordered, reverse = (make_study(start(checkpoints=each, controls=controls)) for each in (PAIR, SWAPPED))
        assert (ordered.digest == reverse.digest) is same
        first, second = (make_study(start(checkpoints={"base": each}, controls=controls)) for each in (two, swapped))
        assert (first.digest == second.digest) is same
    seeds = [make_study(start(controls={"random": 0, "seed": seed})).digest for seed in (0, 1)]
    assert seeds[0] == seeds[1]


def test_a_used_prompt_decides_and_a_new_line_has_one_spelling():
    def used(text):
        return make_study(start(prompts={"mine": text}, checkpoints={"base": {"model": "a/b", "prompts": ["mine"]}}))

    assert used("USER: {instruction}\\nA:").digest == used("USER: {instruction}\nA:").digest
    (found,) = differences(used("Q: {instruction}"), used("{instruction}").model_dump(mode="json"))
    assert (found.key, found.here, found.there) == ("prompts.mine", "Q: {instruction}", "{instruction}")
    inline = [make_study(checkpoint(prompts=[text])).digest for text in ("U: {instruction}\\n", "U: {instruction}\n")]
    assert inline[0] == inline[1]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with a checkpoint, an adapter and instructions in it, and a symbolic link to it."""
    for name in ("real/model", "real/adapter", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("real/rows.csv", "real/model.gguf"):
        (tmp_path / name).write_text("goal\nx\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def spellings(folder: Path, name: str) -> list[str]:
    return [
        f"{folder}/real/{name}",
        f"{folder}/link/{name}",
        f"{folder}/other/../real/{name}",
        f"../real/{name}",
        f"./../link/{name}",
        f"~/real/{name}",
        f"../real//./{name}",
    ]


def at_place(model="a/b", adapter=None, source="x.csv"):
    checkpoints = {"base": {"model": model, **({} if adapter is None else {"adapter": adapter})}}
    instructions = {"harmful": {"source": source}, "harmless": {"source": "y.csv"}}
    return make_study(changed(checkpoints=checkpoints, instructions=instructions))


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_path_has_one_spelling(tree, data):
    def drawn(name, end=""):
        return data.draw(st.sampled_from(spellings(tree, name))) + end

    one, other = (
        at_place(drawn("model"), drawn("adapter"), drawn("rows.csv", column))
        for column in [data.draw(st.sampled_from(["", ":goal"]))] * 2
    )
    assert one.digest == other.digest
    assert differences(one, other.model_dump(mode="json")) == []
    assert one.deciding()["checkpoints.base.model"] == str(tree / "real" / "model")


def test_names_are_no_paths(tree):
    assert at_place("owner/name").deciding()["checkpoints.base.model"] == "owner/name"
    assert at_place("../real/model.gguf").deciding()["checkpoints.base.model"] == f"{tree}/real/model.gguf"
    assert at_place("~no-such-user/x").deciding()["checkpoints.base.model"] == "~no-such-user/x"
    assert at_place("m" * 5000).deciding()["checkpoints.base.model"] == "m" * 5000
    assert at_place("demo:smollm2-135m-instruct").deciding()["checkpoints.base.model"] == "demo:smollm2-135m-instruct"
    (tree / "other" / "alpaca").mkdir()
    assert at_place(source="alpaca").deciding()["instructions.harmful.source"] == "alpaca"
    different = [at_place(source=f"../real/rows.csv{column}").digest for column in ("", ":goal", ":other")]
    assert len(set(different)) == 3


def test_a_run_goes_on_from_another_folder_and_after_its_folder_was_moved(tree, monkeypatch):
    study = at_place("../real/model")
    stored, kept = study.model_dump(mode="json"), study.deciding()
    (tree / "deeper" / "still").mkdir(parents=True)
    monkeypatch.chdir(tree / "deeper" / "still")
    # From here the stored relative path leads nowhere; the path it had when the folder was made does not.
    assert differences(at_place("../../real/model"), stored, kept) == []
    assert differences(at_place("../../real/model"), stored) != []
    assert differences(at_place("../../real/adapter"), stored, kept) != []
    # The whole project is elsewhere: the study still says what it said.
    shutil.move(tree / "real", tree / "deeper" / "real")
    assert differences(study, stored, kept) == []


def test_interventions_are_compared_in_pairs_and_named_by_their_number():
    three = [*EDITS, {"kind": "add", "coefficient": 5.0}]
    before = make_study(start(interventions=three)).model_dump(mode="json")
    moved = make_study(start(interventions=[three[2], {**three[1], "coefficient": 4.0}, three[0]]))
    (found,) = differences(moved, before)
    assert (found.key, found.here, found.there) == ("interventions.1.coefficient", 4.0, 2.0)
    (more,) = differences(make_study(start(interventions=[*three, {"kind": "add", "coefficient": 7.0}])), before)
    assert (more.key, more.there) == ("interventions.3", None)


def test_what_an_old_folder_holds_need_not_be_installed():
    study = make_study(START)
    stored = study.model_dump(mode="json")
    stored["interventions"][0] = {**stored["interventions"][0], "kind": "rotate", "angle": 30}
    stored["judges"] = ["a-judge-of-theirs"]
    stored["measurements"] = ["a-measurement-of-theirs"]
    keys = [each.key for each in differences(study, stored)]
    assert keys == ["interventions.0.kind", "interventions.0.angle"]
    stored = {**study.model_dump(mode="json"), "key-of-a-later-version": 3}
    (found,) = differences(study, stored)
    assert (found.key, found.here, found.there) == ("key-of-a-later-version", None, 3)


NEW_KEYS = {
    "": ("allow_overlap", "claims", "control_tokens", "engine", "measurements", "sections", "selection"),
    "direction": ("estimator", "further_estimators", "pairs_seed", "resamples", "resample_completions"),
    "controls": ("completions",),
}


def old_facts(study: Study) -> dict:
    """A study as the version before this rule stored it."""
    facts = study.model_dump(mode="json")
    for table, keys in NEW_KEYS.items():
        for key in keys:
            del (facts[table] if table else facts)[key]
    for spec in facts["instructions"].values():
        del spec["split"], spec["like"]
    for spec in facts["checkpoints"].values():
        del spec["system"]
    for spec in facts["interventions"]:
        del spec["estimators"], spec["read_at"], spec["span"], spec["when"]
    return facts


def old_digest(study: Study) -> str:
    """The digest by the rule of the version before: over all keys."""
    facts = {key: value for key, value in old_facts(study).items() if key not in ("name", "summary", "batch_tokens", "published")}
    if not facts["until_verdict"]:
        del facts["until_verdict"]
    for spec in facts["checkpoints"].values():
        if spec["quantise"] is None:
            del spec["quantise"]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def test_the_old_rule_is_the_old_rule():
    """The digest that the version before computed of the demo, written down from it."""
    assert old_digest(load_study(EARLIER_DEMO)) == "b866b0db5f9a434b"
    assert all(load_study(name).digest != old_digest(load_study(name)) for name in preset_names())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digest")
    make_tiny_study(folder)
    demur.run(load_study(folder / "study.toml"), folder / "run")
    return folder


@pytest.fixture
def old(done, tmp_path):
    """A copy of the finished run as the version before made it, without some completions."""
    out = tmp_path / "old"
    shutil.copytree(done / "run", out)
    study = load_study(done / "study.toml")
    store = Store.open(out)
    store.remember("study", old_digest(study))
    store.remember("study_facts", old_facts(study))
    with store._transaction() as db:
        db.execute("DELETE FROM meta WHERE key = 'deciding'")
        db.execute("DELETE FROM verdicts")
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%' AND position = 1")
    store.close()
    return out


def run(done, out, *settings):
    changes = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(app, ["run", str(done / "study.toml"), "--out", str(out), "-q", *changes])


def test_a_folder_of_the_version_before_goes_on_and_ends_as_the_whole_one(done, old):
    result = run(done, old)
    assert result.exit_code == 0, result.output
    assert contents(old) == contents(done / "run")
    store = Store.open(old)
    assert store.recall("study") == load_study(done / "study.toml").digest
    assert store.recall("deciding") == load_study(done / "study.toml").deciding()


def test_keys_of_this_version_are_no_difference_to_a_run_of_the_version_before(done, old):
    assert CliRunner().invoke(app, ["report", str(old)]).exit_code == 0
    result = CliRunner().invoke(app, ["compare", str(old), str(done / "run")])
    assert result.exit_code == 0, result.output
    for key in ("engine", "measurements", "sections", "estimator"):
        assert key not in result.output
    stored = old_facts(load_study(done / "study.toml"))
    assert with_defaults(Study, stored) == load_study(done / "study.toml").model_dump(mode="json")


def test_a_folder_of_the_version_before_refuses_what_decides(done, old):
    result = run(done, old, "direction.pairs=3")
    assert result.exit_code == 2
    assert result.stderr == (
        f"demur: '{old}' holds another study: direction.pairs is 3 in this study and 4 in the run; give another --out, or "
        "--fresh to start over\n"
    )
    result = run(done, old, "direction.pairs=3", "max_new_tokens=4", 'dtype="float16"')
    assert "(2 more keys differ)" in result.stderr


@pytest.fixture
def without_weights(done):
    """The checkpoints of the run without their weights, so that nothing can be generated."""
    files = [done / name / "model.safetensors" for name in ("base", "chat")]
    for file in files:
        file.rename(file.with_suffix(".away"))
    yield
    for file in files:
        file.with_suffix(".away").rename(file)


def test_a_run_goes_on_with_another_judge_role_and_spelling_and_generates_nothing(done, without_weights, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(done / "run", out)
    monkeypatch.chdir(done)
    link = tmp_path / "linked.jsonl"
    link.symlink_to(done / "harmless.jsonl")
    result = run(
        done,
        out,
        'judges=["taxonomy", "prefix"]',
        "checkpoints.chat.model=../" + done.name + "/chat",
        "checkpoints.chat.role=new",
        "instructions.harmful.source=harmful.jsonl",
        f"instructions.harmless.source={link}",
        "summary=new",
        "name=other",
    )
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())
    assert {cell["judge"] for cell in summary["cells"]} == {"taxonomy", "prefix"}
    assert summary["study"]["summary"] == "new"
    assert summary["checkpoints"]["chat"]["role"] == "new"
    assert (out / "study.toml").read_text().startswith('name = "other"')


def test_a_folder_that_was_not_begun_takes_any_study(done, tmp_path):
    Store.create(tmp_path / "run", "another", "").close()
    assert run(done, tmp_path / "run").exit_code == 0
    with pytest.raises(InputError, match="holds another study"):
        Store.create(tmp_path / "run", "another", "")
