"""Studies with several estimators and with several directions together: plan, run, resume, growth, report."""

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.directions.direction import cosines
from demur.runs import execution
from demur.runs.run import Run
from demur.runs.store import Store
from demur.study.plan import make_plan
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import contents, make_study

ESTIMATORS = 'direction.estimator=["difference-of-means","whitened",{name="k-means",directions=2}]'
EDITS = (
    "interventions=["
    '{kind="ablate",on="harmful",read_at=1},'
    '{kind="subspace",span="estimators",to="harmless",read_at=1,on="harmful"},'
    '{kind="subspace",span="parts",read_at=2,on="harmful",estimators="k-means"},'
    '{kind="ablate-each",estimators="whitened",on="harmful"},'
    '{kind="angular",span="layers",estimators="difference-of-means",angle=200.0,on="harmless"},'
    '{kind="clamp",estimators="k-means",read_at=1,on="harmful",targets=["chat"],sources=["chat"]}]'
)
SEVERAL = (ESTIMATORS, EDITS, "direction.layers=[1,2]", "controls.random=2", "measurements=[]", "judges=['prefix']")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    make_study(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "several"
    run(place, out, *SEVERAL)
    return out


def study(place, *settings):
    return demur.load_study(place / "study.toml", list(settings))


def run(place, out, *settings):
    words = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["run", str(place / "study.toml"), "--out", str(out), "-q", *words])
    assert result.exit_code == 0, result.output


def test_a_single_estimator_is_what_it_was(place):
    plain = study(place)
    for written in ('"difference-of-means"', '["difference-of-means"]'):
        same = study(place, f"direction.estimator={written}")
        assert same.digest == plain.digest
        assert same.direction.estimator == "difference-of-means"
        assert [cell.key for cell in make_plan(same).cells] == [cell.key for cell in make_plan(plain).cells]
    assert study(place, 'direction.estimator="whitened"').digest != plain.digest
    several = study(place, ESTIMATORS)
    assert (several.digest != plain.digest, several.direction.estimator) == (True, "difference-of-means")
    again = demur.load_study(_written(several, place))
    assert again == several
    assert again.digest == several.digest


def _written(made, place):
    path = place / "written.toml"
    path.write_text(made.toml())
    return path


def test_its_directions_and_cells(place):
    plan = make_plan(study(place, *SEVERAL))
    own = [one.name for one in plan.directions if one.arm.checkpoint == "chat" and one.own]
    kinds = ("chat", "chat.whitened", "chat.k-means.part1", "chat.k-means.part2")
    assert own == [f"{name}.layer{layer}" for layer in (1, 2) for name in kinds]
    # Controls of every direction whose subspace needs as many, each beside its own; names differ, so draws do too.
    beside = {one.name: one.beside for one in plan.directions if one.control and one.source == "random-2" and one.layer == 1}
    assert beside == {name.replace("chat", "random-2") + ".layer1": f"{name}.layer1" for name in kinds}
    cells = [cell for cell in plan.cells if cell.intervention is not None and cell.target.checkpoint == "chat"]
    used = {}
    for cell in cells:
        used.setdefault(cell.intervention.kind, []).append(cell.direction.name)
    controls = [f"random-{number}" for number in (1, 2)]
    assert used["ablate"] == [f"{name}.layer1" for name in ("base", "base.whitened", "chat", "chat.whitened", *controls)]
    both = "difference-of-means+whitened"
    assert used["subspace"] == [
        *(f"{name}.{both}.layer1" for name in ("base", "chat", *controls)),
        *(f"{name}.k-means.parts.layer2" for name in ("base", "chat", *controls)),
    ]
    # Null directions at each layer are those of the first estimator, whichever estimator is tested.
    assert used["ablate-each"] == ["base.whitened.layers1+2", "chat.whitened.layers1+2", *(f"{c}.layers1+2" for c in controls)]
    assert used["clamp"] == ["chat.k-means.part1.layer1", "chat.k-means.part2.layer1", "random-2.layer1"]
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_doses_by_norm_have_controls_of_that_norm(place):
    plan = make_plan(study(place, ESTIMATORS, 'interventions=[{kind="add",coefficient=1.0,unit="raw"}]', "controls.random=2"))
    named = {one.beside for one in plan.directions if one.control}
    assert named == {f"{name}{kind}" for name in ("base", "chat") for kind in ("", ".whitened")}
    used = {cell.direction.name for cell in plan.cells if cell.direction is not None and cell.direction.control}
    assert used == {f"random-{number}{kind}" for number in (1, 2) for kind in ("", ".whitened")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (['direction.estimator=["whitened","whitened"]'], "'whitened' is listed twice"),
        (['direction.estimator=[{name="k-means",directions=2}]'], "the first estimator is .*has to be the name of one"),
        (["direction.estimator=[]"], "estimator is an empty list"),
        (['direction.estimator=["whitened","k-men"]'], "no direction estimator 'k-men'; did you mean 'k-means'"),
        (['direction.estimator=["whitened",{name="k-means",directions=0}]'], "greater than or equal to 1"),
        (['interventions=[{kind="subspace"}]'], "interventions.0: the kind 'subspace' takes several directions; give span"),
        (['interventions=[{kind="subspace",span="estimators"}]'], 'span = "estimators" needs two or more estimators'),
        (['interventions=[{kind="subspace",span="layers"}]'], 'span = "layers" needs directions of two or more layers'),
        (['interventions=[{kind="ablate-each",read_at=1}]', "direction.layers=[1,2]"], 'span = "layers" needs directions of two'),
        (['interventions=[{kind="subspace",span="parts"}]'], 'span = "parts" needs an estimator that gives several'),
        (['interventions=[{kind="ablate-each",span="parts"}]'], "always has span = \"layers\""),
        (['interventions=[{kind="ablate",span="parts"}]'], "the kind 'ablate' takes no span"),
        (['interventions=[{kind="ablate",estimators="k-means"}]'], "interventions.0.estimators names 'k-means'"),
        (['interventions=[{kind="ablate",read_at=2}]'], "interventions.0.read_at names layer 2; the study has 1"),
        (['interventions=[{kind="ablate",read_at=2}]', 'direction.layers="select"'], "leave read_at out"),
        (
            [ESTIMATORS, 'interventions=[{kind="subspace",span="estimators",estimators=["whitened","k-means"]}]'],
            "'k-means' gives several; leave it out",
        ),
    ],
)  # fmt: skip
def test_what_a_study_cannot_ask_for(place, settings, message):
    with pytest.raises(InputError, match=message):
        study(place, *settings)


def test_an_estimator_of_one_direction_is_not_asked_for_several(place, tmp_path):
    asked = study(place, 'direction.estimator=["difference-of-means",{name="whitened",directions=2}]')
    with pytest.raises(InputError, match="'whitened' gives one direction, and 2 are asked for"):
        demur.run(asked, tmp_path / "run")


def test_directions_and_completions_are_those_of_python(finished, place):
    checkpoint = demur.load_checkpoint(f"{place}/chat", name="chat")
    prompt = demur.prompt_format("native", checkpoint)
    train = HARMFUL[:4], HARMLESS[:4]
    stored = {path.stem: demur.load_direction(path) for path in (finished / "directions").iterdir()}
    for name, estimator in (("chat", "difference-of-means"), ("chat.whitened", "whitened")):
        for layer in (1, 2):
            made = demur.extract_direction(checkpoint, *train, prompt, layer=layer, estimator=estimator)
            assert torch.allclose(stored[f"{name}.layer{layer}"].vector, made.vector, atol=1e-5)
            assert stored[f"{name}.layer{layer}"].provenance.method == estimator.replace("-", " ")
    assert stored["chat.k-means.part2.layer1"].provenance.method == "k means, part 2 of 2"
    means = demur.stream_means(checkpoint, train[1], prompt)

    def several(*names):
        return demur.subspace([stored[name] for name in names])

    edits = {
        "chat.difference-of-means+whitened.layer1": demur.affine(several("chat.layer1", "chat.whitened.layer1"), to=means),
        "random-1.difference-of-means+whitened.layer1": demur.affine(
            several("random-1.layer1", "random-1.whitened.layer1"), to=means
        ),
        "base.k-means.parts.layer2": demur.ablate(several("base.k-means.part1.layer2", "base.k-means.part2.layer2")),
        "chat.whitened.layers1+2": demur.edit("ablate-each", several("chat.whitened.layer1", "chat.whitened.layer2")),
        "chat.layers1+2": demur.edit("angular", several("chat.layer1", "chat.layer2"), angle=200.0),
    }
    table = demur.open_run(finished).completions()
    for name, edit in edits.items():
        rows = table[(table.target == "chat") & (table.direction == name)]
        expected = demur.generate(checkpoint, list(rows.instruction), prompt, [edit], max_new_tokens=3)[0]
        assert len(expected) == 3, name
        assert [tuple(ids) for ids in rows.token_ids] == [row.token_ids for row in expected], name


def test_the_summary_and_the_table(finished):
    with demur.open_run(finished) as opened:
        summary = opened.summary()
    cells = {(cell["target"], cell["direction"]): cell for cell in summary["cells"]}
    both = cells["chat", "chat.difference-of-means+whitened.layer1"]
    assert (both["estimator"], both["dimension"], both["layer"]) == ("difference-of-means+whitened", 2, 1)
    assert (both["source"], both["source_prompt"], both["expected"]) == ("chat", "native", -1)
    each = cells["chat", "chat.whitened.layers1+2"]
    assert (each["estimator"], each["dimension"], each["layer"]) == ("whitened", 2, None)
    null = cells["chat", "random-1.difference-of-means+whitened.layer1"]
    assert (null["control"], null["stands_beside"]) == (True, "base.difference-of-means+whitened.layer1")
    facts = {one["name"]: (one["estimator"], one["part"]) for one in summary["directions"]}
    assert (facts["chat.layer1"], facts["chat.k-means.part2.layer1"]) == (("", 0), ("k-means", 2))
    claims = {claim["id"].removeprefix("effect: "): claim for claim in summary["claims"] if claim["about"] == "effect"}
    claim = claims[both["key"]]
    assert (claim["null"]["kind"], claim["null"]["n"]) == ("random", 2)
    assert "its own subspace (layer 1, 2 directions by difference-of-means and whitened" in claim["text"]
    assert "its own direction (layer 1, by whitened" in claims[cells["chat", "chat.whitened.layer1"]["key"]]["text"]
    import pandas

    table = pandas.read_csv(finished / "tables" / "estimators.csv").set_index(["target", "direction"])
    row = table.loc["chat", "chat.whitened.layer1"]
    vectors = [demur.load_direction(finished / "directions" / f"{name}.layer1.safetensors") for name in ("chat", "chat.whitened")]
    assert float(row.cosine) == pytest.approx(float(cosines(vectors)[0, 1]), abs=1e-6)
    assert table.loc["chat", "chat.layer1"].cosine == pytest.approx(1.0)
    assert float(table.loc["chat", "chat.difference-of-means+whitened.layer1"]["null n"]) == 2
    assert "estimators.csv" in (finished / "report.html").read_text() or "estimators" in (finished / "report.html").read_text()
    readable = (finished / "tables" / "estimators.tex").read_text()
    assert "whitened" in readable
    assert not any(name.startswith("random") for _, name in table.index)


def test_a_run_grows_by_estimators_and_is_resumed(place, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    monkeypatch.setattr("demur.cli.study_commands.show_run", lambda _: None)
    generated, whole = [], execution.generate_batches

    def counted(checkpoint, requests, **settings):
        generated.append(len(requests))
        return whole(checkpoint, requests, **settings)

    monkeypatch.setattr(execution, "generate_batches", counted)
    first = 'interventions=[{kind="ablate",on="harmful",read_at=1}]'
    run(place, tmp_path / "grown", first, *SEVERAL[2:])
    kept = {path.name: path.read_bytes() for path in (tmp_path / "grown" / "directions").iterdir()}
    before, generated[:] = sum(generated), []
    run(place, tmp_path / "grown", *SEVERAL)
    total = sum(Store.open(finished).progress().values())
    assert sum(generated) == total - before
    grown = {path.name: path.read_bytes() for path in (tmp_path / "grown" / "directions").iterdir()}
    assert kept.items() <= grown.items()
    generated.clear()
    store = Store.open(tmp_path / "grown")
    with store._transaction() as db:
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%subspace chat%' AND position = 1")
    store.close()
    run(place, tmp_path / "grown", *SEVERAL)
    assert sum(generated) == 2
    assert contents(tmp_path / "grown")["completions"] == contents(finished)["completions"]
    fewer = [word for one in (ESTIMATORS.replace(',"whitened"', ""), EDITS, *SEVERAL[2:]) for word in ("--set", one)]
    result = CliRunner().invoke(app, ["run", str(place / "study.toml"), "--out", str(tmp_path / "grown"), "-q", *fewer])
    assert result.exit_code == 2
