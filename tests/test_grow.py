"""A run goes on with a larger study: it ends as a run of the larger study does, and generates nothing again."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from demur.analysis.selection_record import SelectionRecord
from demur.cli.main import app
from demur.core.errors import WorkError
from demur.judges.prefix import PrefixJudge
from demur.runs import execution
from demur.runs.run import Run
from demur.runs.store import Store
from tests.tiny_study import contents, make_checkpoint, make_study

SMALL = ("instructions.harmful.test=1", "instructions.harmless.test=1")
ADD = 'interventions=[{kind="ablate",on=["harmful"]},{kind="add",coefficient=2.0,unit="residual"},'
ABLATE = 'interventions=[{kind="ablate",on=["harmful"]}]'


class Backwards:
    """A kind of control of this test: the direction with its numbers in reverse order."""

    name, needs, null_of = "backwards", "direction", "any direction of this norm"

    def make(self, beside, *, name, seed, harmful=None, harmless=None):
        return replace(beside, vector=beside.vector.flip(0))


class Second(PrefixJudge):
    """A judge that foresees its verdicts, under another name."""

    name = "second"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study of two checkpoints, and a third checkpoint beside it."""
    folder = tmp_path_factory.mktemp("grow")
    make_study(folder)
    make_checkpoint(folder / "third", seed=3)
    return folder


def run(place, out, *settings, quiet=True):
    words = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(app, ["run", str(place / "study.toml"), "--out", str(out), *(["-q"] if quiet else []), *words])


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """Gives the folder of a finished run with these settings. Copy it; each is made once."""
    made = {}

    def folder(settings):
        if settings not in made:
            out = tmp_path_factory.mktemp("finished") / "run"
            small = run(place, out, *settings_of(place, settings))
            assert small.exit_code == 0, small.output
            made[settings] = out
        return made[settings]

    return folder


def third(place):
    return f'checkpoints.third.model="{place}/third"'


@pytest.fixture(autouse=True)
def without_pages(monkeypatch):
    """A run ends with its verdicts. Other tests look at pages, which take longer than all the rest here."""
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)


@pytest.fixture
def generated(monkeypatch):
    """The number of rows that are generated from now on, as a list of one number for each call."""
    rows, whole = [], execution.generate_batches

    def counted(checkpoint, requests, **settings):
        rows.append(len(requests))
        return whole(checkpoint, requests, **settings)

    monkeypatch.setattr(execution, "generate_batches", counted)
    return rows


def completions(out):
    return sum(Store.open(out).progress().values())


GROWTHS = {
    "instructions": (SMALL, ()),
    "one label": (SMALL[:1], ()),
    "a dose": ((), (ADD + '{kind="add",coefficient=3.0,unit="residual"}]',)),
    "a dose in front": (
        (),
        ('interventions=[{kind="add",coefficient=3.0},{kind="ablate",on=["harmful"]},'
         '{kind="add",coefficient=2.0,unit="residual"}]',),
    ),
    "a label": ((ABLATE,), ('interventions=[{kind="ablate"}]',)),
    "a target": (('interventions=[{kind="ablate",targets=["base"]}]',), ('interventions=[{kind="ablate"}]',)),
    "controls": ((), ("controls.random=3",)),
    "a kind of controls": ((), ('controls."tests.test_grow:Backwards"=1',)),
    "structured controls": (
        ("controls.covariance=1",),
        ("controls.covariance=4", "controls.halves=2", "controls.shuffled-labels-orthogonal=1"),
    ),
    "first controls": (("controls.random=0",), ("controls.random=2", "controls.seed=7")),
    "a judge": (('judges=["prefix"]',), ()),
    "a measurement": (("measurements=[]",), ()),
    "a measurement with its null directions": (
        ("controls={}",),
        ("controls={}", 'measurements=["by-layer",{name="refusal-probability",instructions=1}]'),
    ),
    "a checkpoint": ((), ("third",)),
    "a checkpoint and controls": (("controls.random=2",), ("third", "controls.random=3")),
    "a layer": (
        ("direction.site=resid_post", "direction.layers=[1,2]"),
        ("direction.site=resid_post", "direction.layers=[0,1,2]"),
    ),
    "a format": (
        ('checkpoints.chat.prompts=["native","user-assistant"]',),
        ('checkpoints.chat.prompts=["native","user-assistant","vicuna"]',),
    ),
    "much": ((*SMALL, "controls.random=0", 'judges=["prefix"]', ABLATE), ("third", "controls.random=1")),
}  # fmt: skip


OFTEN = ("instructions", "a layer")
"""The growths that `make test` tries. The others differ less from these, and are tried by `make soak`."""


def settings_of(place, settings):
    return [third(place) if each == "third" else each for each in settings]


@pytest.mark.parametrize("case", [case if case in OFTEN else pytest.param(case, marks=pytest.mark.soak) for case in GROWTHS])
def test_a_grown_run_ends_as_a_run_of_the_larger_study_and_generates_nothing_again(place, tmp_path, generated, case):
    before, after = (settings_of(place, each) for each in GROWTHS[case])
    assert run(place, tmp_path / "grown", *before).exit_code == 0
    stored = completions(tmp_path / "grown")
    assert run(place, tmp_path / "whole", *after).exit_code == 0
    whole = completions(tmp_path / "whole")
    generated.clear()
    result = run(place, tmp_path / "grown", *after)
    assert result.exit_code == 0, result.output
    assert sum(generated) == whole - stored
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    assert (tmp_path / "grown" / "study.toml").read_text() == (tmp_path / "whole" / "study.toml").read_text()
    assert Store.open(tmp_path / "grown").digest == Store.open(tmp_path / "whole").digest
    generated.clear()
    assert run(place, tmp_path / "grown", *after).exit_code == 0
    assert generated == []


@pytest.mark.parametrize(
    "case", ["instructions", *(pytest.param(case, marks=pytest.mark.soak) for case in ("a dose", "a checkpoint"))]
)
def test_a_run_that_is_killed_before_and_while_it_grows_ends_as_the_whole_one(place, tmp_path, generated, monkeypatch, case):
    before, after = (settings_of(place, each) for each in GROWTHS[case])
    counted = execution.generate_batches

    def killed(checkpoint, requests, **settings):
        # Small batches, so that some rows are stored before the kill.
        batches = counted(checkpoint, requests, **{**settings, "batch_tokens": 40})
        yield next(iter(batches))
        raise KeyboardInterrupt

    out = tmp_path / "grown"
    for settings in (before, after):
        monkeypatch.setattr(execution, "generate_batches", killed)
        assert run(place, out, *settings).exit_code == 130
        assert completions(out) > 0
    monkeypatch.setattr(execution, "generate_batches", counted)
    stored = completions(out)
    generated.clear()
    assert run(place, out, *after).exit_code == 0
    assert sum(generated) == completions(out) - stored
    assert run(place, tmp_path / "whole", *after).exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.soak
def test_a_kill_right_after_the_study_was_replaced_loses_nothing(place, tmp_path, monkeypatch):
    out = tmp_path / "grown"
    assert run(place, out, *SMALL).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr("demur.runs.describe.describe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(place, out).exit_code == 130
    assert run(place, out).exit_code == 0
    assert run(place, tmp_path / "whole").exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.soak
def test_a_run_grows_twice_before_it_loads_all_checkpoints(place, tmp_path, monkeypatch):
    """The prompts of each checkpoint are compared with those that the run made when it last loaded this checkpoint."""
    whole, out = execution.generate_batches, tmp_path / "grown"

    def killed(checkpoint, requests, **settings):
        raise KeyboardInterrupt

    assert run(place, out, *SMALL).exit_code == 0
    monkeypatch.setattr(execution, "generate_batches", killed)
    assert run(place, out, "instructions.harmful.test=2", "instructions.harmless.test=1").exit_code == 130
    monkeypatch.setattr(execution, "generate_batches", whole)
    assert run(place, out).exit_code == 0
    assert run(place, tmp_path / "whole").exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert Store.open(out).earlier_tests() == {}


@pytest.mark.soak
def test_a_growth_that_was_not_used_can_be_mended_or_taken_back(place, tmp_path, monkeypatch):
    """For example a wrong name of a model, which is noticed when it is loaded."""
    out, load = tmp_path / "grown", execution.load_checkpoint
    assert run(place, out, *SMALL).exit_code == 0
    before = contents(out)

    def fails(*_, **__):
        raise WorkError("the weights cannot be fetched")

    wrong = f'checkpoints.third.model="{place}/chat"'
    for settings in ((*SMALL, wrong), (wrong,), (ADD + '{kind="add",coefficient=3.0}]',)):
        monkeypatch.setattr(execution, "load_checkpoint", fails)
        assert run(place, out, *settings).exit_code == 1
    monkeypatch.setattr(execution, "load_checkpoint", load)
    assert run(place, out, *SMALL).exit_code == 0
    assert contents(out) == before
    assert run(place, out, third(place)).exit_code == 0
    assert run(place, tmp_path / "whole", third(place)).exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")
    result = run(place, out, *SMALL)
    assert (result.exit_code, "holds another study" in result.stderr) == (2, True)


REFUSED = {
    "fewer instructions": (
        (),
        ("instructions.harmful.test=2",),
        "instructions.harmful.test is 2 in this study and 3 in the run;",
    ),
    "other pairs": ((), ("direction.pairs=3", "controls.random=2"), "direction.pairs is 3 in this study and 4 in the run;"),
    "another dose": ((), ("interventions.1.coefficient=3.0",), "interventions.1.coefficient is 3.0 in this study and 2.0 in the"),
    "a dose of the same name": (
        (),
        (ADD + '{kind="add",coefficient=2.0000001,unit="residual"}]',),
        "which has the same name as an edit of the run",
    ),
    "an edit less": ((), (ABLATE,), "interventions.1 is not set in this study and"),
    "a label less": ((), ('interventions.1.on=["harmful"]',), 'interventions.1.on is ["harmful"] in this study and'),
    "a second layer": (
        (),
        ("direction.layers=[1,2]",),
        "direction.layers is [1, 2] in this study and [1] in the run, which renames the run's direction 'base' to 'base.layer1';",
    ),
    "a second format": (
        (),
        ('checkpoints.chat.prompts=["native","vicuna"]',),
        "which renames the run's direction 'chat' to 'chat.native';",
    ),
    "another seed": ((), ("controls.seed=1", "controls.random=2"), "controls.seed is 1 in this study and 0 in the run"),
    "fewer controls": ((), ("controls.random=0",), "controls.random is 0 in this study and 1 in the run"),
    "controls that move": (
        ("controls.random=3",),
        ("third", "controls.random=3"),
        "which makes random-3 a control for 'third', but in the run it is one for 'base'",
    ),
    "a checkpoint in front": ((), ("front",), "which makes random-1 a control for 'third', but in the run it is one for 'base'"),
    "a judge that cuts completions": (
        (*SMALL, "until_verdict=true", 'judges=["prefix"]'),
        ("until_verdict=true", 'judges=["prefix","tests.test_grow:Second"]'),
        'judges is ["prefix", "tests.test_grow:Second"] in this study and ["prefix"] in the run;',
    ),
    "more tokens": (SMALL, ("max_new_tokens=4",), "max_new_tokens is 4 in this study and 3 in the run;"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_stored_results_is_refused_by_name_and_changes_nothing(place, finished, tmp_path, case):
    before, after, said = REFUSED[case]
    out = tmp_path / "run"
    shutil.copytree(finished(before), out)
    found, study = contents(out), (out / "study.toml").read_text()
    settings = settings_of(place, after)
    if case == "a checkpoint in front":
        settings = [
            f'checkpoints={{third={{model="{place}/third"}},base={{model="{place}/base",prompts=["user-assistant"]}},'
            f'chat={{model="{place}/chat"}}}}',
            "controls.random=1",
        ]
    result = run(place, out, *settings)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "give another --out, or --fresh to start over" in result.stderr
    assert contents(out) == found
    assert (out / "study.toml").read_text() == study


def test_the_stored_instructions_must_be_the_first_of_the_larger_set(place, tmp_path):
    source = tmp_path / "harmful.jsonl"
    shutil.copy(place / "harmful.jsonl", source)
    setting = f'instructions.harmful.source="{source}"'
    assert run(place, tmp_path / "run", *SMALL, setting).exit_code == 0
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    tests = [n for n, row in enumerate(rows) if row["split"] == "test"]
    rows[tests[0]], rows[tests[1]] = rows[tests[1]], rows[tests[0]]
    source.write_text("\n".join(map(json.dumps, rows)))
    result = run(place, tmp_path / "run", setting)
    assert (result.exit_code, "are not those this run began with" in result.stderr) == (2, True)


def test_a_tokenizer_that_changed_is_still_noticed_when_the_run_grows(place, tmp_path):
    model = tmp_path / "chat"
    shutil.copytree(place / "chat", model)
    setting = f'checkpoints.chat.model="{model}"'
    assert run(place, tmp_path / "run", *SMALL, setting).exit_code == 0
    file = model / "tokenizer.json"
    found = json.loads(file.read_text())
    words = found["model"]["vocab"]
    words["bomb"], words["virus"] = words["virus"], words["bomb"]
    file.write_text(json.dumps(found))
    result = run(place, tmp_path / "run", setting)
    assert (result.exit_code, "makes other prompts in the format 'native'" in result.stderr) == (2, True)


def test_the_command_says_what_is_reused_and_what_is_new(place, tmp_path):
    out = tmp_path / "run"
    assert run(place, out, *SMALL).exit_code == 0
    result = run(place, out, ADD + '{kind="add",coefficient=3.0}]', third(place), quiet=False)
    assert result.exit_code == 0, result.output
    words = " ".join(result.stderr.split())
    assert "goes on with a larger study: it reuses 22 of " in words
    assert "checkpoints.third, instructions.harmful.test 1 -> 3, instructions.harmless.test 1 -> 3" in words
    assert "interventions.2" in words
    assert "goes on with" not in run(place, out, ADD + '{kind="add",coefficient=3.0}]', third(place), quiet=False).stderr


def test_another_study_is_refused_before_anything_heavy_is_imported(place, tmp_path):
    out = tmp_path / "run"
    assert run(place, out).exit_code == 0
    code = f"""
import sys
import demur
try:
    demur.run(demur.load_study({str(place / "study.toml")!r}, ["direction.pairs=3"]), {str(out)!r})
except demur.InputError as error:
    assert "direction.pairs" in str(error), error
else:
    raise SystemExit("not refused")
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SELECT = ("direction.layers=select",)


def selected(place, monkeypatch):
    """A selection that is made at once."""
    record = SelectionRecord(judge="prefix", instructions=2, position=-1, layer=1)
    made = []
    monkeypatch.setattr("demur.runs.selecting.selection_store.select_by_effect", lambda *_, **__: made.append(1) or record)
    return made


@pytest.mark.soak
def test_a_run_that_selected_its_layer_keeps_it_when_it_grows(place, tmp_path, monkeypatch):
    made, out = selected(place, monkeypatch), tmp_path / "grown"
    assert run(place, out, *SELECT, *SMALL).exit_code == 0
    assert made == [1]
    result = run(place, out, *SELECT, "controls.random=2", quiet=False)
    assert result.exit_code == 0, result.output
    assert "the selected layer and coefficients stay" in result.stderr
    assert made == [1]
    assert run(place, tmp_path / "whole", *SELECT, "controls.random=2").exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")
    for more in (ADD + '{kind="add",coefficient=3.0}]', third(place)):
        result = run(place, out, *SELECT, "controls.random=2", more)
        assert result.exit_code == 2, result.output
        assert "and the run selected its settings without this change" in result.stderr
    result = run(place, out, *SELECT, "controls.random=2", "selection.instructions=3")
    assert (result.exit_code, "selection.instructions is 3 in this study and not set in the run" in result.stderr) == (2, True)
    # With the layer written out, nothing is left to select.
    assert run(place, out, "controls.random=2", "direction.layers=1", ADD + '{kind="add",coefficient=3.0}]').exit_code == 0


def test_a_run_with_given_layers_does_not_select_later(place, tmp_path, monkeypatch):
    made, out = selected(place, monkeypatch), tmp_path / "run"
    assert run(place, out).exit_code == 0
    result = run(place, out, *SELECT)
    assert (result.exit_code, "direction.layers is select in this study and" in result.stderr) == (2, True)
    assert made == []
