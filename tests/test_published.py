"""Published rates beside measured ones: the right cell, the right test, and no changed run that passes for a reproduction."""

import re
import tomllib
from pathlib import Path

import pytest

from demur.analysis.cell import JudgedCell
from demur.analysis.manifest import DirectionFacts
from demur.analysis.published_rates import published_rows, text_and_code
from demur.core.errors import InputError
from demur.study.plan import make_plan
from demur.study.spec import make_study
from demur.study.study_files import load_study, preset_names
from tests.test_study import changed

BY_A_JUDGE_MODEL = ("olmo2-7b", "olmo3-7b")
PUBLISHED = tuple(name for name in preset_names() if load_study(name).published and name not in BY_A_JUDGE_MODEL)


def measured(study, refusals=50, n=None):
    """The facts of a run, each cell with so many refusals: (study, cells, directions) as `published_rows` takes them."""
    plan = make_plan(study)
    cells = []
    for cell in plan.cells:
        spec, direction = cell.intervention, cell.direction
        trials = n or study.instructions[cell.instructions].test
        for judge in study.judges:
            cells.append(
                JudgedCell.model_validate(
                    {
                        "key": cell.key,
                        "target": cell.target.checkpoint,
                        "prompt": cell.target.prompt,
                        "instructions": cell.instructions,
                        "intervention": spec.kind if spec else "none",
                        "direction": direction.name if direction else None,
                        "source": direction.source if direction else None,
                        "control": direction.control if direction else False,
                        "layer": direction.layer if direction else None,
                        "sites": (spec.sites or ["all" if spec.kind == "ablate" else "resid_pre"]) if spec else None,
                        "layers": spec.layers if spec else None,
                        "coefficient": spec.coefficient if spec else None,
                        "unit": spec.unit if spec and spec.kind == "add" else None,
                        "positions": spec.positions if spec else None,
                        "judge": judge,
                        "n": trials,
                        "refusals": min(refusals, trials),
                        "rate": min(refusals, trials) / trials,
                        "ci95": (0.0, 1.0),
                    }
                )
            )
    directions = [DirectionFacts(name=each.name, prompt=each.arm.prompt) for each in plan.directions]
    return study.model_dump(mode="json"), cells, directions


def beside(*settings, preset="llama-7b", limit=None, **counts):
    study = load_study(preset, settings)
    return published_rows(*measured(study if limit is None else study.limited(limit), **counts))


def departing(rows):
    return {each.setting for row in rows for each in row.departures}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_preset_as_it_ships_departs_in_nothing(preset):
    rows = beside(preset=preset)
    assert rows
    for row in rows:
        assert row.departures == ()
        assert row.measured.n == 100
        assert row.settings == ("not all stated" if preset == "pythia-12b" else "as published")


@pytest.mark.parametrize("preset", BY_A_JUDGE_MODEL)
def test_rates_of_a_judge_model_depart_in_the_judge_only(preset):
    rows = beside(preset=preset)
    assert [row.target for row in rows] == ["base", "base", "sft", "sft", "dpo", "dpo", "final", "final"]
    for row in rows:
        assert {each.setting for each in row.departures} == {"judges"}
        assert row.prompt == ("pythia" if row.target == "base" else "native")
        assert row.reason == "published without n, so there is no interval and no test"


def test_a_row_holds_both_rates_their_intervals_and_an_exact_test():
    row = beside()[2]
    assert (row.target, row.instructions, row.intervention, row.source) == ("base", "harmful", "add", "chat")
    assert row.key == "base/user-assistant|harmful|add 4 unit chat|sites resid_pre+resid_mid+resid_post, layers own, all"
    assert row.published.model_dump() == {"n": 100, "refusals": 83, "rate": 0.83, "ci95": pytest.approx([0.744, 0.891], abs=1e-3)}
    assert row.measured.model_dump() == {"n": 100, "refusals": 50, "rate": 0.5, "ci95": pytest.approx([0.404, 0.596], abs=1e-3)}
    assert row.difference == pytest.approx(-0.33)
    assert row.p_value < 1e-5
    assert row.differs is True
    assert row.verdicts_changed_at_least == 33


def test_rates_that_do_not_differ():
    row = beside(refusals=55)[0]
    assert (row.p_value, row.differs, row.verdicts_changed_at_least) == (1.0, False, 0)


@pytest.mark.parametrize(
    ("settings", "keys", "rows"),
    [
        (['dtype="float32"'], {"dtype"}, 11),
        (["max_new_tokens=32"], {"max_new_tokens"}, 11),
        (["stop_at_eos=true"], {"stop_at_eos"}, 11),
        (['split="validation"'], {"split"}, 11),
        (["judges=substring"], {"judges"}, 11),
        (["checkpoints.base.model=/a/copy"], {"checkpoints.base.model"}, 9),
        (["checkpoints.chat.adapter=a/b"], {"checkpoints.chat.adapter"}, 6),
        (["checkpoints.base.revision=v2"], {"checkpoints.base.revision"}, 9),
        (["checkpoints.base.quantise=4bit"], {"checkpoints.base.quantise"}, 9),
        (["checkpoints.chat.prompts=native"], {"checkpoints.chat.prompts"}, 6),
        (["prompts.vicuna=Q: {instruction} A:"], {"prompts.vicuna"}, 6),
        (["instructions.harmful.source=jailbreakbench"], {"instructions.harmful.source"}, 10),
        (["instructions.harmless.test=50"], {"instructions.harmless.test"}, 3),
        (["direction.pairs=64"], {"direction.pairs"}, 8),
        (["direction.layers=15"], {"direction.layers"}, 8),
        (["direction.site=resid_post"], {"direction.site"}, 8),
        (["direction.position=-2"], {"direction.position"}, 8),
        (["interventions.1.coefficient=5"], {"interventions.coefficient"}, 1),
        (["interventions.3.unit=raw"], {"interventions.unit"}, 2),
        (['interventions.2.sites=["resid_pre"]'], {"interventions.sites"}, 1),
        (["interventions.0.positions=prompt"], {"interventions.positions"}, 4),
        (["interventions.0.layers=[14]"], {"interventions.layers"}, 4),
    ],
)
def test_every_changed_setting_is_named_on_the_rates_it_concerns(settings, keys, rows):
    found = beside(*settings)
    assert departing(found) == keys
    concerned = [row for row in found if row.departures]
    assert len(concerned) == rows
    for row in found:
        assert row.settings == ("depart" if row.departures else "as published")
        assert (row.verdicts_changed_at_least is None) == bool(row.departures)


def test_what_decides_about_nothing_published_is_no_departure():
    assert departing(beside("controls.random=0", "batch_tokens=64", "name=mine", "checkpoints.base.role=x")) == set()
    assert departing(beside('judges=["substring", "prefix"]')) == set()


def test_a_limit_is_a_departure():
    rows = beside(limit=2, refusals=1)
    assert departing(rows) == {"instructions.harmful.test", "instructions.harmless.test"}
    assert {row.settings for row in rows} == {"depart"}
    assert {(each.published, each.here) for row in rows for each in row.departures} == {(100, 2)}


def test_of_several_cells_the_published_one_is_found():
    rows = beside("direction.layers=[13, 14, 15]")
    assert departing(rows) == set()
    assert {row.key.count("layer14") for row in rows if row.source} == {1}


def test_cells_that_fit_equally_are_not_chosen_between():
    rows = [row for row in beside("direction.layers=[13, 15]") if row.source]
    assert len(rows) == 8
    for row in rows:
        assert row.measured is row.settings is row.differs is None
        assert "2 cells fit equally" in row.reason


def test_a_cell_that_was_not_run_is_said_to_be_missing():
    rows = beside('interventions.0.targets=["base"]')
    assert [row.reason for row in rows][-2:] == ["no such cell in this run"] * 2
    assert [row.published.refusals for row in rows][-2:] == [12, 85]


def test_controls_are_never_what_was_published():
    study, cells, directions = measured(load_study("llama-7b"))
    without = [cell for cell in cells if cell.control or not cell.edited]
    assert [row.key for row in published_rows(study, without, directions) if row.source] == [None] * 8


def test_a_rate_without_n_is_not_tested():
    rows = beside(preset="pythia-12b", refusals=13)
    assert [row.published.rate for row in rows] == [0.13, 1.0]
    for row in rows:
        assert row.published.n is row.published.ci95 is row.p_value is row.differs is None
        assert row.reason == "published without n, so there is no interval and no test"
        assert {"judges", "dtype", "instructions.harmful.test", "max_new_tokens"} <= set(row.not_stated)
    assert [row.prompt for row in rows] == ["pythia", "vicuna"]


def test_text_and_code():
    found = {each.setting: (each.text, each.code) for each in text_and_code(load_study("llama-7b").model_dump(mode="json"))}
    assert found["instructions.harmful.source"] == ("jailbreakbench", "advbench")
    assert found["interventions.sites"][1] == "resid_pre, resid_mid, resid_post"
    assert found["interventions.coefficient"][1] == "4 (chat, harmful); 12 (base, harmful and harmless); 8 (chat, harmless)"
    assert found["stop_at_eos"] == ("not stated", "false")
    qwen = text_and_code(load_study("qwen1.5-0.5b").model_dump(mode="json"))
    assert next(each.code for each in qwen if each.setting == "interventions.coefficient") == "2"


def test_the_list_of_differences_has_every_place_and_names_every_such_setting():
    document = (Path(__file__).parents[1] / "docs" / "differences.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (\d+)\.", document, flags=re.M) == [str(number) for number in range(1, 23)]
    for preset in PUBLISHED:
        for each in text_and_code(load_study(preset).model_dump(mode="json")):
            assert each.setting.rpartition(".")[2] in document, each.setting


def test_the_documents_own_study_is_a_study():
    document = (Path(__file__).parents[1] / "docs" / "published.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", document, flags=re.S)
    study = make_study({**changed(checkpoints={"chat": {"model": "a/c"}}), **tomllib.loads(example)})
    rows = published_rows(*measured(study))
    assert [row.reason for row in rows][2].startswith("published without n")
    assert rows[0].settings == "depart"


def test_runs_without_publications_have_no_rows():
    study, cells, directions = measured(load_study("demo"))
    assert published_rows(study, cells, directions) == text_and_code(study) == []
    study.pop("published")  # as stored by a version before this one
    assert published_rows(study, cells, directions) == []


RATE = {"target": "base", "instructions": "harmful", "refusals": 4, "n": 10}


def own(rates=(RATE,), **more):
    return changed(published=[{"work": "A. Nother 2025", "rates": list(rates), **more}])


def test_figures_of_ones_own_do_not_change_the_digest():
    assert make_study(own()).digest == make_study(changed()).digest


def test_a_prompt_of_ones_own_is_the_published_one_only_where_its_text_is_stated():
    text = "Q: {instruction} A:"
    checkpoint = {"model": "a/b", "prompts": ["mine"]}
    settings = {"checkpoints": {"base": checkpoint}}
    for stated, expected in ((settings, {"prompts.mine"}), ({**settings, "prompts": {"mine": text}}, set())):
        study = make_study({**own(settings=stated), "prompts": {"mine": text}, "checkpoints": {"base": checkpoint}})
        assert departing(published_rows(*measured(study, n=10))) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (own([{**RATE, "refusal": 3}]), "'published.0.rates.0.refusal' is not a key of a study; did you mean 'refusals'"),
        (own(works="x"), "'published.0.works' is not a key of a study; did you mean 'work'"),
        (own([{**RATE, "refusals": 11}]), "11 refusals of 10 are impossible"),
        (own([{**RATE, "rate": 0.4}]), "refusals and n, or only rate"),
        (own([{**RATE, "n": None}]), "refusals and n, or only rate"),
        (own([{**RATE, "rate": 1.4}]), "less than or equal to 1"),
        (own([{**RATE, "target": "bse"}]), "names 'bse'; did you mean 'base'"),
        (own([{**RATE, "intervention": "add"}]), "'add' needs a source"),
        (own([{**RATE, "source": "base"}]), "'none' needs no source"),
        (own([{**RATE, "intervention": "ablate", "source": "base", "coefficient": 1}]), "takes no coefficient"),
        (own([]), "'published.0.rates' is"),
        (own(settings={"dtyp": "float16"}), "published.0.settings names 'dtyp', .* did you mean 'dtype'"),
        (own(settings={"controls": {"random": 2}}), "on which no published rate depends"),
        (own(text={"direction": {"layers": 3}}), "expected a text"),
    ],
)
def test_mistakes_are_one_sentence(data, message):
    with pytest.raises(InputError, match=message) as caught:
        make_study(data)
    assert "\n" not in str(caught.value)
