"""A study names any part by its name or as module:Class, and is refused before anything heavy is imported."""

import subprocess
import sys
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import demur
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.runs.describe import planned_cell
from demur.study.digest import differences
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.plan_text import plan_lines
from demur.study.spec import make_study
from demur.study.study_files import load_study, preset_names
from tests.cli.test_help import HEAVY
from tests.test_study import changed

HERE = "tests.study_parts:"
ROTATE = {"kind": f"{HERE}Rotate"}


def edited(*interventions, **changes):
    return make_study(changed(interventions=list(interventions), **changes))


def test_a_kind_of_edit_of_ones_own():
    study = edited(ROTATE, {**ROTATE, "degrees": 30})
    first, second = study.interventions
    assert (first.on, first.coefficient) == (["harmless"], None)
    assert first.settings == {"degrees": 90.0, "around": None}
    assert (second.settings["degrees"], second.changed_settings) == (30.0, {"degrees": 30.0})
    assert "degrees = 90.0" in study.toml()
    assert make_study(tomllib.loads(study.toml())) == study
    assert load_study("demo", [f'interventions.0={{kind = "{HERE}Rotate", degrees = 5}}']).interventions[0].settings[
        "degrees"
    ] == 5.0  # fmt: skip


def test_settings_are_in_keys_of_cells_and_in_the_digest_where_they_are_not_the_defaults():
    plain, written, other = edited(ROTATE), edited({**ROTATE, "degrees": 90}), edited({**ROTATE, "degrees": 30.5, "around": "z"})
    keys = [make_plan(study).cells[-1].key for study in (plain, written, other)]
    where = "sites own, layers own, all"
    assert keys[0] == keys[1] == f"base/native|harmless|{HERE}Rotate random-5|{where}"
    assert keys[2] == f"{keys[0]}, around z, degrees 30.5"
    assert plain.digest == written.digest != other.digest
    found = differences(other, plain.model_dump(mode="json"))
    assert [(each.key, each.here, each.there) for each in found] == [
        ("interventions.0.degrees", 30.5, 90.0),
        ("interventions.0.around", "z", None),
    ]


def test_a_kind_without_a_direction_makes_one_cell_for_each_target():
    study = edited({"kind": f"{HERE}Damp", "coefficient": 0.5})
    plan = make_plan(study)
    assert [cell.key for cell in plan.cells if cell.intervention] == [
        f"base/native|{label}|{HERE}Damp 0.5 unit|sites own, layers own, all" for label in ("harmful", "harmless")
    ]
    assert all(cell.direction is None for cell in plan.cells)


def test_a_registered_kind_is_named_like_a_shipped_one():
    demur.register("edit", "turn", f"{HERE}Rotate")
    try:
        assert make_plan(edited({"kind": "turn"})).cells[-1].key.startswith("base/native|harmless|turn random-5|")
    finally:
        registry("edit").unregister("turn")
    with pytest.raises(InputError, match="there is no kind of edit 'turn'"):
        edited({"kind": "turn"})


def test_controls_of_several_kinds():
    two = {"base": {"model": "a/b"}, "chat": {"model": "a/c"}}
    study = edited({"kind": "ablate"}, checkpoints=two, controls={"random": 2, f"{HERE}Shuffled": 3})
    assert study.controls.counts == {"random": 2, f"{HERE}Shuffled": 3}
    assert make_study(tomllib.loads(study.toml())) == study
    plan = make_plan(study)
    controls = [(each.name, each.control_kind, each.beside) for each in plan.directions if each.control]
    assert controls == [
        ("random-1", "random", "base"),
        ("random-2", "random", "chat"),
        ("shuffled-1", f"{HERE}Shuffled", "base"),
        ("shuffled-2", f"{HERE}Shuffled", "chat"),
        ("shuffled-3", f"{HERE}Shuffled", "base"),
    ]
    assert [each.control_kind for each in plan.directions if not each.control] == ["", ""]
    assert sum(cell.direction is not None and cell.direction.control for cell in plan.cells) == 10
    # What is stored, and read in sentences, is the kind's own name.
    stored = {planned_cell(study, cell).control_kind for cell in plan.cells}
    assert stored == {"", "random", "shuffled"}
    fewer = edited({"kind": "ablate"}, checkpoints=two, controls={"random": 2, f"{HERE}Shuffled": 0})
    (found,) = differences(study, fewer.model_dump(mode="json"))
    assert (found.key, found.here, found.there) == (f"controls.{HERE}Shuffled", 3, 0)
    assert fewer.digest == edited({"kind": "ablate"}, checkpoints=two, controls={"random": 2}).digest


@pytest.mark.parametrize("key", ['controls."{}"', "controls.'{}'", ' controls . "{}" '])
def test_a_setting_can_name_a_part_in_quotes(key):
    kind = f"{HERE}Shuffled"
    study = load_study("demo", [f"{key.format(kind)}=2"])
    assert study.controls.counts[kind] == 2


@pytest.mark.parametrize("setting", ['controls."x=1', 'controls."x"y=1', 'a"="b=1', '"a\n"=1', '""=1', 'controls.""=1'])
def test_quotes_that_do_not_fit_are_one_sentence(setting):
    with pytest.raises(InputError) as caught:
        load_study("demo", [setting])
    assert "\n" not in str(caught.value)


def test_measurements_are_names_or_tables():
    assert make_study(changed()).model_dump()["measurements"] == ["by-layer"]
    study = make_study(changed(measurements=["by-layer", "loss", {"name": f"{HERE}Entropy", "top": 5}]))
    assert [one.name for one in study.measurements] == ["by-layer", "loss", f"{HERE}Entropy"]
    assert study.measurements[0].settings == {}
    assert study.measurements[2].settings == {"top": 5, "base": 2.0}
    assert make_study(tomllib.loads(study.toml())) == study
    assert make_study(changed(measurements="loss")).measurements[0].name == "loss"
    assert make_study(changed(measurements=[])).measurements == []


def test_judges_engines_estimators_and_sections():
    study = make_study(changed(judges=["prefix", f"{HERE}Shouting"], sections=["rates"]))
    assert study.judges[1] == f"{HERE}Shouting"
    assert (study.engine, study.direction.estimator, study.sections) == ("transformers", "difference-of-means", ["rates"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interventions": [{"kind": "abblate"}]}, "interventions.0: there is no kind of edit 'abblate'; did you mean 'ablate'"),
        ({"interventions": [{"kind": f"{HERE}Rotat"}]}, "cannot be imported"),
        ({"interventions": [{"kind": "no.such.module:Class"}]}, "cannot be imported"),
        ({"interventions": [{"kind": f"{HERE}Nothing"}]}, "Nothing' has no name, artefact"),
        ({"interventions": [{"kind": "json:dumps"}]}, "the kind of edit 'json:dumps' has no name"),
        ({"interventions": [{"kind": f"{HERE}Project"}]}, "takes several directions; give span"),
        ({"interventions": [{"kind": f"{HERE}Clash"}]}, "has a setting 'unit', which every intervention has"),
        ({"interventions": [{**ROTATE, "degres": 3}]}, "'interventions.0.degres' is not a key .*; did you mean 'degrees'"),
        ({"interventions": [{**ROTATE, "positons": 3}]}, "did you mean 'positions'"),
        ({"interventions": [{"kind": "ablate", "degrees": 3}]}, "'interventions.0.degrees' is not a key of a study"),
        ({"interventions": [{**ROTATE, "degrees": "far"}]}, "interventions.0: 'degrees' is 'far': input should be a valid"),
        ({"interventions": [{**ROTATE, "coefficient": 1.0}]}, "Rotate' takes no coefficient"),
        ({"interventions": [{"kind": f"{HERE}Damp"}]}, "Damp' needs a coefficient"),
        ({"interventions": [{"coefficient": 1.0}]}, "'interventions.0.kind' is missing"),
        ({"direction": {"estimator": "differenceofmeans"}}, "no direction estimator .* did you mean 'difference-of-means'"),
        ({"controls": {"randm": 1}}, "'controls.randm' is not a key of a study; did you mean 'random'"),
        ({"controls": {f"{HERE}Shuffled": -1}}, "-1: input should be greater than or equal to 0"),
        ({"controls": {f"{HERE}SecondRandom": 1}}, "both call their directions random-1"),
        ({"controls": {f"{HERE}OddlyNamed": 1}}, "has the name 'a/b'"),
        ({"controls": {f"{HERE}Nothing": 1}}, "has no name, needs"),
        (
            {"controls": {f"{HERE}Shuffled": 1}, "checkpoints": {"shuffled-x": {"model": "a/b"}}},
            "'shuffled-x' is not a name for a checkpoint or prompt: use letters, digits, - and _, and no shuffled- at the start",
        ),
        ({"interventions": [ROTATE, {"kind": f"{HERE}Spin"}]}, "Rotate' and '.*Spin' both use the name 'rotate'"),
        ({"interventions": [{"kind": f"{HERE}Loose"}]}, "kind '.*Loose' can change .*; make Settings a frozen"),
        ({"interventions": [{"kind": f"{HERE}Listed"}]}, "'.*Listed' can change .*unhashable type: 'list'"),
        ({"interventions": [{"kind": f"{HERE}OddArtefact"}]}, "says 'cake' for 'artefact'; expected one of direction, subspace"),
        ({"interventions": [{"kind": f"{HERE}Costly"}]}, "the kind of edit '.*Costly' cannot be made: .*missing 1 required"),
        ({"controls": {"oddly": 1, f"{HERE}Nothing": 1}}, "'controls.oddly' is not a key of a study; .*known: .*, random, seed"),
        ({"judges": ["prefix", f"{HERE}SecondPrefix"]}, "'prefix' and '.*SecondPrefix' both call themselves 'prefix'"),
        ({"judges": [f"{HERE}Entropy"]}, "the judge '.*Entropy' has no labels"),
        ({"measurements": [f"{HERE}Rotate"]}, "the measurement '.*Rotate' has no version, subjects, measure, summary; give it"),
        ({"measurements": ["loss", f"{HERE}SecondLoss"]}, "'loss' and '.*SecondLoss' both call themselves 'loss'"),
        ({"measurements": [f"{HERE}OddSubjects"]}, "says 'planet' for 'subjects'; expected one of arm, pair, cell"),
        ({"sections": [f"{HERE}Rotate"]}, "the report section '.*Rotate' has no part, figures, tables; give it what"),
        ({"engine": f"{HERE}Rotate"}, "the engine '.*Rotate' has no load; give it what"),
        ({"direction": {"layers": [1], "estimator": f"{HERE}Rotate"}}, "the direction estimator '.*Rotate' has no needs, fit"),
        ({"judges": ["prefx"]}, "there is no judge 'prefx'; did you mean 'prefix'"),
        ({"judges": [f"{HERE}Shoutin"]}, "cannot be imported"),
        ({"measurements": ["by-layr"]}, "there is no measurement 'by-layr'; did you mean 'by-layer'"),
        ({"measurements": ["loss", "loss"]}, "'loss' is listed twice"),
        ({"measurements": [{"name": f"{HERE}Entropy", "topp": 5}]}, "'measurements.0.topp' is not a key .* did you mean 'top'"),
        ({"measurements": [{"name": f"{HERE}Entropy", "top": "x"}]}, "'top' is 'x'"),
        ({"measurements": [{"top": 5}]}, "'measurements.0.name' is missing"),
        ({"measurements": [3]}, "measurements.0"),
        ({"engine": "transformer"}, "there is no engine 'transformer'; did you mean 'transformers'"),
        ({"sections": ["rate"]}, "there is no report section 'rate'; did you mean 'rates'"),
        (
            {"published": [{"work": "x", "rates": [{"target": "base", "instructions": "harmful", "intervention": "abblate",
                                                     "source": "base", "n": 1, "refusals": 1}]}]},
            "no kind of edit 'abblate'",
        ),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused_in_one_sentence(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make_study(changed(**changes))
    assert "\n" not in str(caught.value)


@given(module=st.text(max_size=12), attribute=st.text(max_size=12), key=st.sampled_from(["kind", "judges", "controls"]))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_part_or_one_sentence(module, attribute, key):
    name = f"{module}:{attribute}"
    changes = {"kind": {"interventions": [{"kind": name}]}, "judges": {"judges": [name]}, "controls": {"controls": {name: 1}}}
    with pytest.raises(InputError):
        make_study(changed(**changes[key]))


def test_a_module_that_fails_is_refused(tmp_path, monkeypatch):
    (tmp_path / "failing_part.py").write_text("raise RuntimeError('not today')")
    (tmp_path / "broken_part.py").write_text("def")
    monkeypatch.syspath_prepend(tmp_path)
    for module, why in (("failing_part", "not today"), ("broken_part", "invalid syntax")):
        with pytest.raises(InputError, match=f"cannot be imported: .*{why}"):
            make_study(changed(judges=[f"{module}:Judge"]))


def test_a_plan_shows_parts_of_ones_own():
    controls = {"random": 1, f"{HERE}Shuffled": 1}
    study = edited(ROTATE, {"kind": f"{HERE}Damp", "coefficient": 0.5}, controls=controls)
    text = " ".join(" ".join(plan_lines(look_ahead(study, "cpu"))).split())
    assert "random control for base/native, same norm" in text
    assert "shuffled control for base/native, same norm" in text
    assert "Rotate, degrees 90.0: every direction at its own site, on harmless instructions" in text
    assert "Damp 0.5 x unit: at its own site, on harmful and harmless instructions" in text


def test_nothing_that_is_frozen_is_changed():
    study = load_study("demo")
    given = study.controls.model_copy()
    again = make_study({**study.model_dump(), "controls": given})
    assert again == study
    assert (given, given.model_fields_set) == (study.controls, study.controls.model_fields_set)
    bare = type(given)()
    more = {name: {"model": "a/b"} for name in ("a", "b", "c")}
    more |= {name: {"model": "a/b"} for name in ("d", "e", "f")}
    assert make_study(changed(checkpoints=more, controls=bare)).controls.random == 7, "one for each arm"
    assert bare.random == 5


def test_loading_a_study_imports_nothing_heavy():
    code = (
        "import sys\nfrom demur.study.study_files import load_study\nfrom demur.study.plan import make_plan\n"
        f"for name in {preset_names()!r}:\n    study = load_study(name)\n    study.digest, study.deciding(), study.toml()\n"
        f"load_study('demo', ['controls={{\"{HERE}Shuffled\" = 1}}',\n"
        f"    'interventions.0={{kind = \"{HERE}Rotate\", degrees = 5}}',\n"
        f"    'judges=[\"{HERE}Shouting\"]', 'measurements=[{{name = \"{HERE}Entropy\", top = 3}}]'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
