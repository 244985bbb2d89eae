"""Studies as data: presets are what the post's code says, mistakes are one sentence, every default is written out."""

import tomllib

import pytest

from demur.core.errors import InputError
from demur.study.spec import make_study
from demur.study.study_files import load_study, preset_names

MINIMAL = {
    "name": "mine",
    "checkpoints": {"base": {"model": "a/b"}},
    "instructions": {"harmful": {"source": "x.csv"}, "harmless": {"source": "y.csv"}},
    "direction": {"layers": [1]},
}


def changed(**changes):
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in MINIMAL.items()}
    for key, value in changes.items():
        data[key] = {**data[key], **value} if isinstance(value, dict) and isinstance(data.get(key), dict) else value
    return data


def test_every_preset_loads_and_round_trips():
    assert {"demo", "qwen1.5-0.5b", "gemma-2-9b", "llama-7b", "pythia-12b"} <= set(preset_names())
    for name in preset_names():
        study = load_study(name)
        assert study.name == name
        assert study.summary
        assert make_study(tomllib.loads(study.toml())) == study


@pytest.mark.parametrize(
    ("preset", "layer", "doses", "prompts"),
    [
        ("qwen1.5-0.5b", 13, {(2.0, "harmful", None), (2.0, "harmless", None)}, ("chatml", "chatml")),
        ("gemma-2-9b", 23, {(20.0, "harmful", None), (42.0, "harmless", None)}, ("gemma-base", "gemma")),
        (
            "llama-7b",
            14,
            {(4.0, "harmful", "chat"), (8.0, "harmless", "chat"), (12.0, "harmful", "base"), (12.0, "harmless", "base")},
            ("user-assistant", "vicuna"),
        ),
    ],
)
def test_presets_hold_the_settings_of_the_posts_code(preset, layer, doses, prompts):
    study = load_study(preset)
    assert study.direction.model_dump() == {
        "pairs": 32, "layers": [layer], "site": "resid_pre", "position": -1, "estimator": "difference-of-means",
        "resamples": 0, "resample_completions": True,
        "pairs_seed": None, "further_estimators": [],
    }  # fmt: skip
    assert (study.max_new_tokens, study.stop_at_eos, study.judges) == (16, False, ["prefix"])
    assert tuple(study.checkpoints[name].prompts[0] for name in ("base", "chat")) == prompts
    assert (study.instructions["harmful"].source, study.instructions["harmless"].source) == ("advbench", "alpaca")
    found = set()
    for edit in study.interventions:
        assert edit.sites == ["resid_pre", "resid_mid", "resid_post"]
        if edit.kind == "add":
            assert edit.unit == "unit"
            found |= {(edit.coefficient, label, edit.sources[0] if edit.sources else None) for label in edit.on}
    assert found == doses


def test_defaults():
    study = make_study(changed(interventions=[{"kind": "ablate"}, {"kind": "add", "coefficient": 2}]))
    assert [edit.on for edit in study.interventions] == [["harmful"], ["harmful", "harmless"]]
    assert study.controls.random == 5
    assert "random = 5" in study.toml()
    assert study.judges == ["prefix"]


def test_there_are_enough_null_directions_unless_the_study_says_how_many():
    lineage = {name: {"model": "a/b", "prompts": ["chatml"]} for name in ("base", "tuned", "chat")}
    assert make_study(changed(checkpoints=lineage)).controls.random == 5
    raw = [{"kind": "ablate"}, {"kind": "add", "coefficient": 2, "unit": "raw"}]
    assert make_study(changed(checkpoints=lineage, interventions=raw)).controls.random == 15
    many = {f"step{number}": {"model": "a/b", "prompts": ["chatml"]} for number in range(5)}
    assert make_study(changed(checkpoints=many)).controls.random == 6
    assert make_study(changed(checkpoints=many, interventions=raw)).controls.random == 20
    measured = ["by-layer", "refusal-probability"]
    each = make_study(changed(checkpoints=lineage, measurements=measured)).controls
    assert (each.counts, each.completions) == ({"random": 20, "shuffled-labels": 20}, 5)
    each = make_study(changed(checkpoints=many, interventions=raw, measurements=measured)).controls
    assert (each.counts, each.completions) == ({"random": 30, "shuffled-labels": 30}, 20)
    assert make_study(changed(measurements=measured, controls={"random": 3})).controls.counts == {"random": 3}
    said = make_study(changed(checkpoints=lineage, controls={"random": 0}))
    assert said.controls.random == 0
    assert make_study(said.model_dump(exclude_none=True)) == said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(direktion={"layers": [1]}), "'direktion' is not a key of a study; did you mean 'direction'"),
        (changed(direction={"layer": 3}), r"'direction.layer' is not a key of a study; did you mean 'layers'"),
        (changed(checkpoints={"base": {"model": "a/b", "adaptor": "x"}}), "did you mean 'adapter'"),
        (changed(interventions=[{"kind": "add", "coeficient": 1}]), "did you mean 'coefficient'"),
        (changed(interventions=[{"kind": "add"}]), "kind 'add' needs a coefficient"),
        (changed(interventions=[{"kind": "ablate", "coefficient": 1}]), "takes no coefficient"),
        (changed(interventions=[{"kind": "add", "coefficient": 1, "sources": ["bas"]}]), "names 'bas'; did you mean 'base'"),
        (changed(direction={"layers": []}), r"'direction.layers' is \[\]"),
        (changed(direction={"position": 0}), r"'direction.position' is 0"),
        (changed(max_new_tokens=0), "'max_new_tokens' is 0"),
        (changed(checkpoints={"random-1": {"model": "a/b"}}), "not a name for a checkpoint"),
        (changed(checkpoints={"baseline": {"model": "a/b"}}), "'baseline' is what cells without an edit are called"),
        (changed(prompts={"../up": "x {instruction}"}), "not a name for a checkpoint or prompt"),
        (changed(interventions=[{"kind": "add", "coefficient": 1, "unit": "residual", "layers": [2]}]), "own layer"),
        (changed(instructions={"harmles": {"source": "z"}}), "harmles"),
        ({key: value for key, value in MINIMAL.items() if key != "direction"}, "'direction' is missing"),
        (changed(dtype="float8"), "'dtype' is 'float8'"),
    ],
)
def test_mistakes_are_one_sentence(data, message):
    with pytest.raises(InputError, match=message) as caught:
        make_study(data)
    assert "\n" not in str(caught.value)


def test_settings_change_keys_with_dots(tmp_path):
    changes = ["checkpoints.base.model=some/where", "direction.pairs=8", 'interventions.0.on=["harmless"]', 'dtype="float32"']
    study = load_study("llama-7b", changes)
    assert study.checkpoints["base"].model == "some/where"
    assert (study.direction.pairs, study.interventions[0].on, study.dtype) == (8, ["harmless"], "float32")
    for bad, message in {
        "direction.pairs": "expected KEY=VALUE",
        "direction.pear=8": "did you mean 'pairs'",
        "interventions.9.on=1": "a number from 0 to 3",
        "name.x=1": "which is a value",
    }.items():
        with pytest.raises(InputError, match=message):
            load_study("llama-7b", [bad])


def test_unknown_presets_and_files(tmp_path):
    with pytest.raises(InputError, match="did you mean 'demo'"):
        load_study("dem")
    with pytest.raises(InputError, match="there is no file"):
        load_study("mine.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(InputError, match="not valid TOML"):
        load_study(tmp_path / "bad.toml")


def test_the_digest_knows_what_decides_about_results():
    study = make_study(MINIMAL)
    assert make_study(changed(name="other", summary="x")).digest == study.digest
    assert make_study(changed(direction={"pairs": 33})).digest != study.digest


def test_a_study_names_its_claims():
    named = [{"kind": "ablate", "source": "base", "on": "harmful"}]
    study = make_study(changed(claims=named))
    assert make_study(changed()).claims is None
    assert [claim.model_dump(exclude_none=True) for claim in study.claims] == named
    assert study.digest == make_study(changed()).digest
    assert make_study(changed(claims=[])).claims == []
    with pytest.raises(InputError, match=r"claims\.0\.target names 'bse'; did you mean 'base'"):
        make_study(changed(claims=[{"kind": "ablate", "target": "bse"}]))
    with pytest.raises(InputError, match="ablat"):
        make_study(changed(claims=[{"kind": "ablat"}]))
