"""Studies with gates: plan, digest, run, resume, workers, shards, and the same tokens as `demur.when`."""

import json

import pytest
from typer.testing import CliRunner

import demur
from demur.analysis.cell import Cell
from demur.analysis.manifest import Manifest
from demur.analysis.matched_names import RunNames, matches_of, renamings
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs.conditions.gate_jobs import GateJob
from demur.runs.jobs import GenerateJob, pending_jobs
from demur.runs.store import Store
from demur.study.digest import differences
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.spec import make_study as parsed
from tests.tiny_study import contents, make_study

FOUND = '{kind="add",coefficient=6.0,when={layer=2},read_at=1}'
WHEN = 'when={layer=2,source="base",tokens="last",below=0.05}'
GIVEN = f'{{kind="ablate",on=["harmful","harmless"],read_at=1,targets=["chat"],{WHEN}}}'
UNGATED = '{kind="add",coefficient=6.0,read_at=1}'
PLAIN = '{kind="add",coefficient=6.0,read_at=1,targets=["chat"]}'
SETTINGS = ("direction.layers=[1,2]", "controls.random=2", "measurements=[]", "judges=['prefix']")
GATED = (f"interventions=[{FOUND},{GIVEN},{PLAIN}]", *SETTINGS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gated")
    make_study(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "gated"
    run(place, out, *GATED)
    return out


def study(place, *settings):
    return demur.load_study(place / "study.toml", list(settings))


def run(place, out, *settings, words=()):
    given = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["run", str(place / "study.toml"), "--out", str(out), "-q", *words, *given])
    assert result.exit_code == 0, result.output


def edited(plan, kind, target="chat"):
    cells = [cell for cell in plan.cells if cell.intervention is not None]
    return [cell for cell in cells if (cell.intervention.kind, cell.target.checkpoint) == (kind, target)]


def instructions(place, label, split):
    rows = map(json.loads, (place / f"{label}.jsonl").read_text().splitlines())
    return [row["instruction"] for row in rows if row["split"] == split]


def test_its_plan(place):
    plan = make_plan(study(place, *GATED))
    added = edited(plan, "add")
    gated = [cell for cell in added if cell.gate is not None]
    # With and without a gate, the same directions and null directions on the same sets.
    assert len(gated) * 2 == len(added)
    assert {cell.gate.direction.name for cell in gated} == {"chat.layer2"}
    assert {cell.direction.name for cell in gated if cell.direction.control} == {"random-1.layer1", "random-2.layer1"}
    assert all(cell.key.endswith(", when chat.layer2 all found") for cell in gated)
    assert {cell.gate.direction.name for cell in edited(plan, "add", "base") if cell.gate} == {"base.layer2"}
    ablated = edited(plan, "ablate")
    assert {cell.gate.direction.name for cell in ablated} == {"base.layer2"}
    assert all(cell.key.endswith(", when base.layer2 last below 0.05") for cell in ablated)
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)


def test_the_digest(place):
    plain, gated = study(place, f"interventions=[{UNGATED}]", *SETTINGS), study(place, f"interventions=[{FOUND}]", *SETTINGS)
    assert plain.digest != gated.digest
    without = plain.model_dump(mode="json")
    del without["interventions"][0]["when"]  # as a demur without gates stored it
    assert differences(plain, without) == []
    (found,) = differences(gated, without)
    assert (found.key, found.here, found.there) == ("interventions.0.when", {"layer": 2}, None)
    again = parsed(json.loads(gated.model_dump_json()))
    assert (again, again.digest) == (gated, gated.digest)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{}", "interventions.0.when has no layer, and the study has directions of several; give when.layer"),
        ("{layer=3}", "interventions.0.when.layer is 3; the study has 1, 2"),
        ("{layer=1,above=0.1,below=0.2}", "both above and below are given"),
        ("{layer=1,above=1.5}", "less than or equal to 1"),
        ("{layer=1,tokens='first'}", "'all' or 'last'"),
        ("{layer=1,source='bass'}", "interventions.0.when.source names 'bass'; did you mean 'base'"),
        ("{layer=1,estimator='whitened'}", "interventions.0.when.estimator names 'whitened'"),
        ("{layer=1,threshold=0.2}", "threshold"),
    ],
)
def test_what_is_no_gate_of_the_study_is_refused(place, when, message):
    with pytest.raises(InputError, match=message):
        study(place, f'interventions=[{{kind="ablate",when={when}}}]', "direction.layers=[1,2]")


def test_a_selection_has_no_gates(place):
    open_layer = study(place, 'interventions=[{kind="ablate",when={}}]', 'direction.layers="select"')
    with pytest.raises(InputError, match="interventions.0 has a gate, but direction.layers is to be selected"):
        demur.run(open_layer, out=place / "never")


def test_completions_are_those_of_python(place, finished):
    """The same tokens as `demur.find_gate`, `demur.Gate` and `demur.when` give with the stored directions."""
    made = study(place, *GATED)
    checkpoint = demur.load_checkpoint(str(place / "chat"), dtype="float32", device="cpu")
    names = ("chat.layer1", "chat.layer2", "base.layer2", "random-1.layer1")
    read = {name: demur.load_direction(finished / "directions" / f"{name}.safetensors") for name in names}
    train = [instructions(place, label, "train") for label in ("harmful", "harmless")]
    found = demur.find_gate(checkpoint, read["chat.layer2"], *train, "native")
    given = demur.Gate(read["base.layer2"], 0.05, above=False, tokens="last")
    store = Store.open(finished)
    completions = {}
    for row in store.completions():
        completions.setdefault(row.cell, []).append(list(row.token_ids))
    store.close()
    closed = opened = 0
    for cell in make_plan(made).cells:
        if cell.target.checkpoint != "chat" or cell.gate is None or cell.direction.name not in read:
            continue
        direction = read[cell.direction.name]
        inner = demur.add(direction, 6.0) if cell.intervention.kind == "add" else demur.ablate(direction)
        edit = demur.when(inner, found if cell.intervention.kind == "add" else given)
        texts = instructions(place, cell.instructions, "test")
        plain, always, rows = demur.generate(checkpoint, texts, "native", [None, inner, edit], max_new_tokens=3)
        assert [list(one.token_ids) for one in rows] == completions[cell.key]
        for one, without, within in zip(rows, plain, always, strict=True):
            if without.token_ids != within.token_ids:
                closed += one.token_ids == without.token_ids
                opened += one.token_ids == within.token_ids
    assert closed
    assert opened


def test_what_it_stores(finished):
    opened = demur.open_run(finished)
    summary = opened.summary()
    found = [one for one in summary["measurements"] if one["name"] == "gate" and one["settings"]["below"] is None]
    gates = {one["subject"]: one for one in found}
    assert set(gates) == {"base/user-assistant", "chat/native"}
    chat = gates["chat/native"]
    assert chat["settings"] == {"direction": "chat.layer2", "tokens": "all", "above": None, "below": None}
    assert chat["summary"]["found"]
    assert set(chat["summary"]["open_shares"]) == {"train harmful", "train harmless", "harmful", "harmless"}
    cells = [one for one in summary["cells"] if "when" in one["settings"]]
    assert {json.dumps(one["settings"]["when"], sort_keys=True) for one in cells} == {
        '{"layer": 2, "tokens": "all"}',
        '{"below": 0.05, "layer": 2, "source": "base", "tokens": "last"}',
    }
    # Adding raises refusals where the gate is for harmful prompts; ablation has nothing to lower where it is for harmless ones.
    expected = {(one["intervention"], one["instructions"]): one["expected"] for one in cells}
    assert expected == {("add", "harmful"): 1, ("add", "harmless"): 0, ("ablate", "harmful"): 0, ("ablate", "harmless"): 0}
    # A hypothesis rests on edits of every row, so a gated edit is exploratory beside one without a gate.
    families = {one["key"]: one["family"] for one in summary["comparisons"]}
    of_gated = {families[one["key"]] for one in cells if one["expected"] and not one["control"]}
    assert of_gated == {"exploratory"}
    assert "confirmatory" in families.values()
    frame = opened.completions()
    assert set(frame.settings.dropna()) == {json.dumps({"when": one["settings"]["when"]}, sort_keys=True) for one in cells}
    assert "gated by layer 2" in (finished / "report.html").read_text()
    gates = (finished / "tables" / "gates.csv").read_text()
    assert gates.startswith("target,condition,tokens,open,threshold,found,f1,open harmful,open harmless,open train harmful,")
    assert len(gates.splitlines()) == 4
    assert '""when""' in (finished / "tables" / "results.csv").read_text()


def test_it_is_resumed(place, finished):
    first = contents(finished)
    assert pending_jobs(check(make_plan(study(place, *GATED))), Store.open(finished)) == []
    run(place, finished, *GATED)
    assert contents(finished) == first


def test_a_gate_is_decided_once_before_its_edits(place, tmp_path):
    ready = check(make_plan(study(place, *GATED)))
    store = Store.create(tmp_path / "new", ready.plan.study.digest, ready.plan.study.toml())
    jobs = pending_jobs(ready, store)
    gates = [job for job in jobs if isinstance(job, GateJob)]
    assert [(job.arm, job.direction) for job in gates] == [
        ("base/user-assistant", "base.layer2"),
        ("chat/native", "chat.layer2"),
        ("chat/native", "base.layer2"),
    ]
    given = {key for job in jobs if isinstance(job, GenerateJob) for key in job.needs if key.startswith("gate:")}
    assert given == {key for job in gates for key in job.gives}


def test_a_gate_is_matched_with_that_of_a_run_with_other_names():
    arms = (("base", "user-assistant"), ("chat", "native"))
    first, other = RunNames("a", arms), RunNames("b", (("start", "user-assistant"), ("chat", "native")))
    (names,) = renamings(matches_of({"base": "start"}), first, [other])
    where = "sites own, layers own, all, when {}.layer2 last below 0.05"
    key = f"chat/native|harmful|ablate start.layer1|{where.format('start')}"
    cell = Cell(key=key, target="chat", prompt="native", instructions="harmful", intervention="ablate", direction="start.layer1")
    assert names.key(cell) == f"chat/native|harmful|ablate base.layer1|{where.format('base')}"
    edit = {"kind": "ablate", "sources": ["start"], "when": {"layer": 2, "source": "start"}}
    renamed = names.manifest(Manifest(study={"interventions": [edit]})).study["interventions"]
    assert renamed == [{"kind": "ablate", "sources": ["base"], "when": {"layer": 2, "source": "base"}}]


@pytest.mark.soak
def test_it_is_made_by_workers_and_shards_and_measured(place, tmp_path):
    settings = (*GATED[:3], "measurements=['refusal-probability']", GATED[4])
    run(place, tmp_path / "one", *settings)
    one = contents(tmp_path / "one")
    run(place, tmp_path / "workers", *settings, words=["--executor", "processes", "--workers", "2"])
    assert contents(tmp_path / "workers") == one
    for number in (1, 2):
        run(place, tmp_path / f"shard{number}", *settings, words=["--shard", f"{number}/2"])
    demur.merge([tmp_path / "shard1", tmp_path / "shard2"], tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert (whole["completions"], whole["files"]) == (one["completions"], one["files"])
    # Probabilities may differ by rounding, because a shard has other batches.
    measured = [found["summary"]["measurements"] for found in (whole, one)]
    gates = [[each for each in found if each["name"] == "gate"] for found in measured]
    assert len(gates[0]) == 3
    assert gates[0] == gates[1]
    # A closed gate leaves the probability of a refusal as it is without the edit.
    checkpoint = demur.load_checkpoint(str(place / "chat"), dtype="float32", device="cpu")
    direction, condition = (demur.load_direction(tmp_path / "one" / "directions" / f"chat.layer{n}.safetensors") for n in (1, 2))
    train = [instructions(place, label, "train") for label in ("harmful", "harmless")]
    edit = demur.when(demur.add(direction, 6.0), demur.find_gate(checkpoint, condition, *train, "native"))
    texts = instructions(place, "harmful", "test")
    expected = demur.refusal_probability(checkpoint, texts, "native", [edit], judge="prefix")[0]
    store = Store.open(tmp_path / "one")
    key = "chat/native|harmful|add 6 unit chat.layer1|sites own, layers own, all, when chat.layer2 all found"
    (stored,) = [row for row in store.measurements() if (row.name, row.subject) == ("refusal-probability", key)]
    assert stored.record.arrays["probability"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
