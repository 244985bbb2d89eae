"""Lists in a study where one entry is usual, and layers = "all"."""

import json
import shlex
from itertools import pairwise

import pytest
from typer.testing import CliRunner

import demur
from demur.analysis.selection_record import SelectedPlace, SelectionRecord, TriedDose
from demur.cli.main import app
from demur.core.errors import InputError
from demur.inputs.prompts import prompt_format
from demur.study.plan import make_plan
from demur.study.selected_settings import all_open, with_all_layers
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests import tiny_study
from tests.tiny_study import EARLIER_DEMO

DOSES = [(0, "raw", 1.5), (1, "residual", 0.2)]
SETS = {label: {"source": f"contrast-{label}"} for label in ("harmful", "harmless")}


def study(**changes):
    data = {
        "name": "lists",
        "checkpoints": {"base": {"model": "owner/base", "prompts": ["chatml"]}, "chat": {"model": "owner/chat"}},
        "instructions": SETS,
        "direction": {"layers": [3]},
        "interventions": [{"kind": "ablate"}],
    }
    return make_study({**data, **changes})


def test_coefficients_in_a_list_are_interventions():
    add = {"kind": "add", "unit": "raw", "on": "harmless"}
    listed = study(interventions=[{"kind": "ablate"}, {**add, "coefficient": [1.0, 2.0, -1.0]}])
    named = study(interventions=[{"kind": "ablate"}, *({**add, "coefficient": dose} for dose in (1.0, 2.0, -1.0))])
    assert listed == named
    assert listed.digest == named.digest
    assert [cell.key for cell in make_plan(listed).cells] == [cell.key for cell in make_plan(named).cells]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"kind": "add", "coefficient": []}, r"interventions.1.coefficient is an empty list"),
        ({"kind": "add", "coefficient": [1.0, 1.0]}, r"interventions.1.coefficient has 1.0 twice"),
        ({"kind": "add", "coefficient": [1.0, "select"]}, "the doses to try in selection.doses"),
        ({"kind": "add", "coefficient": [1.0, "two"]}, "'interventions.1.coefficient' is 'two'"),
        ({"kind": "ablate", "coefficient": [1.0]}, "takes no coefficient"),
    ],
)
def test_a_list_of_coefficients_that_means_nothing_is_refused(edit, said):
    with pytest.raises(InputError, match=said):
        study(interventions=[{"kind": "ablate"}, edit])


def test_errors_after_a_list_of_coefficients_name_the_entry_of_the_file():
    listed = {"kind": "add", "unit": "raw", "coefficient": [1.0, 2.0, 3.0]}
    with pytest.raises(InputError, match=r"'interventions.1.unt' is not a key"):
        study(interventions=[listed, {"kind": "ablate", "unt": 1}])
    with pytest.raises(InputError, match=r"interventions.1.sources names 'nobody'"):
        study(interventions=[listed, {"kind": "ablate", "sources": ["nobody"]}])


def test_a_selection_opens_a_list_of_doses_once():
    listed = {"kind": "add", "unit": "raw", "on": "harmless", "coefficient": [1.0, 2.0, 3.0]}
    other = {**listed, "on": "harmful", "coefficient": 1.0}
    opened = all_open(study(interventions=[{"kind": "ablate"}, listed, other]))
    assert [edit.coefficient for edit in opened.study.interventions] == [None, "select", "select"]
    assert opened.places == (0, 1, 1, 1, 2)


def test_a_selection_names_interventions_as_the_study_file_does(tmp_path, monkeypatch):
    """A list of coefficients is one entry of the file, so it gets one dose, and the entry after it keeps its number."""
    path = tiny_study.make_study(tmp_path)
    edits = 'interventions=[{kind="add",unit="raw",coefficient=[1.0,2.0,3.0]},{kind="add",unit="residual",coefficient=0.5}]'
    tried = [TriedDose(intervention=n, kind="add", unit=u, coefficient=d, change=0.5, broken=0, n=3) for n, u, d in DOSES]
    record = SelectionRecord(
        judge="prefix",
        instructions=2,
        position=-1,
        layer=1,
        coefficients={0: 1.5, 1: 0.2},
        places=(SelectedPlace(position=-1, layer=1, share=0.5, n=2, kl=0.1, change=0.5),),
        doses=tuple(tried),
    )
    seen = []
    monkeypatch.setattr(
        "demur.runs.selecting.effect_selection.select_by_effect", lambda opened, *_, **__: seen.append(opened) or record
    )
    result = CliRunner().invoke(app, ["select", str(path), "--set", edits, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert len(seen[0].interventions) == 2
    assert "--set interventions.0.coefficient=1.5 --set interventions.1.coefficient=0.2" in result.stdout
    written = json.loads((tmp_path / "out" / "selection-effect.json").read_text())
    assert written["coefficients"] == {"0": 1.5, "1": 0.2}
    assert [one["intervention"] for one in written["doses"]] == [0, 1]
    # The printed command is one that loads.
    words = shlex.split(result.stdout.splitlines()[-1])
    loaded = load_study(words[2], [after for word, after in pairwise(words) if word == "--set"])
    assert [edit.coefficient for edit in loaded.interventions] == [1.5, 0.2]
    # A Study has no file: its own interventions are named.
    found = demur.select(load_study(path, [edits]))
    assert found.coefficients == {0: 1.5, 1: 1.5, 2: 1.5, 3: 0.2}


def test_revisions_in_a_list_are_checkpoints():
    commit = "0123456789abcdef0123456789abcdef01234567"
    checkpoints = {
        "base": {"model": "owner/base", "prompts": ["chatml"], "revision": ["step1", "refs/pr/2", commit]},
        "chat": {"model": "owner/chat", "revision": "main"},
    }
    found = study(
        checkpoints=checkpoints, interventions=[{"kind": "ablate", "sources": ["base"], "targets": ["chat"]}, {"kind": "ablate"}]
    )
    assert list(found.checkpoints) == ["base-step1", "base-refs-pr-2", "base-01234567", "chat"]
    assert [one.revision for one in found.checkpoints.values()] == ["step1", "refs/pr/2", commit, "main"]
    assert found.interventions[0].sources == ["base-step1", "base-refs-pr-2", "base-01234567"]
    assert found.interventions[0].targets == ["chat"]
    assert found.controls.random == 5  # as many as an effect needs, and at least one for each arm
    assert load_study_of(found) == found


def load_study_of(found):
    import tomllib

    return make_study(tomllib.loads(found.toml()))


@pytest.mark.parametrize(
    ("checkpoints", "said"),
    [
        ({"base": {"model": "owner/base", "revision": []}}, "checkpoints.base.revision is an empty list"),
        ({"base": {"model": "owner/base", "revision": ["a", "a"]}}, "has 'a' twice"),
        ({"base": {"model": "owner/base", "revision": ["a.b", "a-b"]}}, "names differ only in other characters"),
        ({"base": {"model": "owner/base", "revision": ["a"]}, "base-a": {"model": "owner/other"}}, "there is another one"),
        ({"base": {"model": "owner/base", "revision": [1]}}, "'checkpoints.base-1.revision' is 1"),
    ],
)
def test_a_list_of_revisions_that_means_nothing_is_refused(checkpoints, said):
    with pytest.raises(InputError, match=said):
        study(checkpoints=checkpoints)


def test_a_study_without_lists_keeps_its_digest():
    # As they were before lists could be written; runs of before go on.
    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"


def test_all_layers_are_those_of_the_configs(tmp_path):
    path = tiny_study.make_study(tmp_path)
    named = load_study(path, ["direction.layers=[1,2]"])
    found = load_study(path, ["direction.layers=all"])
    assert found.direction.layers == "all"
    assert with_all_layers(found) == named
    assert with_all_layers(found).digest == named.digest
    after = with_all_layers(load_study(path, ["direction.layers=all", "direction.site=resid_post"]))
    assert after.direction.layers == [0, 1, 2]
    assert len(demur.plan(found).plan.cells) == len(demur.plan(named).plan.cells)


def test_a_run_of_all_layers_goes_on_as_one_that_names_them(tmp_path):
    path = tiny_study.make_study(tmp_path)
    with demur.run(load_study(path, ["direction.layers=all", "measurements=[]"]), tmp_path / "run") as run:
        assert {facts["layer"] for facts in run.summary()["directions"]} == {1, 2}
        done = len(run.completions())
    assert load_study(tmp_path / "run" / "study.toml").direction.layers == [1, 2]
    with demur.run(load_study(path, ["direction.layers=[1,2]", "measurements=[]"]), tmp_path / "run") as again:
        assert len(again.completions()) == done


def test_all_layers_need_a_config(tmp_path):
    with pytest.raises(InputError, match="'owner/base' is not on this machine"):
        with_all_layers(study(direction={"layers": "all"}))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    checkpoints = {"base": {"model": str(tmp_path)}}
    with pytest.raises(InputError, match="how many layers it has; give a list"):
        with_all_layers(study(checkpoints=checkpoints, direction={"layers": "all"}))


def test_llama3_is_the_template_of_llama_3(checkpoint):
    # What Meta-Llama-3-8B-Instruct's template writes for one user turn, after <|begin_of_text|>, which the tokenizer adds.
    template = (
        "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
        "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    )
    from jinja2 import Template

    turns = [{"role": "user", "content": "Tell me a joke."}]
    found = prompt_format("llama3", checkpoint)
    assert found.text("Tell me a joke.") == Template(template).render(messages=turns)
    assert found.adds_special_tokens
