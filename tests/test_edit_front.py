"""Which edits are clean: the front of refusals against everything else, its bounds, and the command that finds it."""

import json

import pytest
from typer.testing import CliRunner

import demur
from demur.analysis.cell import JudgedCell
from demur.analysis.doses.coherence_gate import Coherence
from demur.analysis.edit_front import Bounds, edit_fronts
from demur.cli.main import app
from demur.core.errors import InputError
from demur.judges.judge import TextJudge, Verdict
from demur.runs.selecting.front_selection import front_study
from demur.study.plan import make_plan
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_study

BOUNDS = Bounds(kl=0.5, harmless=0.1)


class EvenLength(TextJudge):
    """Calls about half of all texts refusals, so that models of random weights refuse."""

    name, version, labels = "even-length", 1, ("refusal", "other")

    def __call__(self, text: str, _: str = "", /) -> Verdict:
        refusal = len(text) % 2 == 0
        return Verdict(self.name, refusal, "refusal" if refusal else "other")


def cell(edit, instructions, refusals, n=20, **facts):
    key = f"chat/native|{instructions}|{edit}"
    more = {"intervention": "none"} if edit == "none" else {"intervention": "ablate", "direction": edit}
    rates = {"n": n, "refusals": refusals, "rate": refusals / n, "ci95": (0.0, 1.0), "judge": "prefix"}
    return JudgedCell(key=key, target="chat", prompt="native", instructions=instructions, **{**more, **rates, **facts})


def text(edit, kl, loss=0.1, coherent=True):
    shape = {"n": 20, "reference": "base", "loss": 1.0, "echo": 0.0, "degenerate": 0.0, "coherent": coherent}
    return Coherence(key=f"chat/native|harmful|{edit}", divergence=kl, loss_change=loss, **shape)


def front(edits, before=(18, 2)):
    cells = [cell("none", "harmful", before[0]), cell("none", "harmless", before[1])]
    for name, (harmful, harmless, *_) in edits.items():
        cells += [cell(name, "harmful", harmful), cell(name, "harmless", harmless)]
    texts = [text(name, *rest) for name, (_, _, *rest) in edits.items()]
    (found,) = edit_fronts(cells, texts, "prefix", BOUNDS)
    return found


def test_the_best_edit_leaves_the_fewest_refusals_within_the_bounds():
    found = front(
        {
            "strong": (1, 2, 0.9),  # fewest refusals, but it changes harmless prompts too much
            "clean": (4, 2, 0.2),
            "worse": (6, 3, 0.3),  # beaten by "clean" in every measure
            "gentle": (9, 2, 0.05),
            "shouts": (2, 7, 0.1),  # harmless instructions are refused
            "broken": (0, 2, 0.1, 3.0, False),
            "none at all": (18, 2, 0.0),
        }
    )
    assert found.best == "chat/native|harmful|clean"
    by_name = {one.direction: one for one in found.tried}
    assert {name for name, one in by_name.items() if not one.dropped} == {"clean", "worse", "gentle"}
    assert {name for name, one in by_name.items() if one.on_front} >= {"strong", "clean", "gentle", "shouts", "none at all"}
    assert not by_name["worse"].on_front
    assert [one.direction for one in found.tried][:3] == ["clean", "worse", "gentle"]
    assert by_name["strong"].dropped == "it changes the next token after harmless instructions by more than 0.5 nats"
    assert by_name["shouts"].dropped == "it changes refusals of harmless instructions by more than 10 points"
    assert by_name["broken"].dropped == "its text is broken"
    assert by_name["none at all"].dropped == "it removes no refusals"
    assert by_name["shouts"].harmless_change == pytest.approx(0.25)


def test_the_front_is_that_of_a_naive_comparison():
    import itertools

    edits = {
        f"{harmful}-{harmless}-{kl}-{loss}": (harmful, harmless, kl, loss)
        for harmful, harmless, kl, loss in itertools.product((1, 4), (1, 2, 4), (0.1, 0.3), (0.0, 0.4))
    }
    found = front(edits)

    def measures(name):
        harmful, harmless, kl, loss = edits[name]
        return harmful, abs(harmless - 2), kl, loss

    for one in found.tried:
        mine = measures(one.direction)
        beaten = any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in map(measures, edits))
        assert one.on_front == (not beaten), one.direction


def test_there_may_be_none():
    found = front({"strong": (1, 2, 0.9), "idle": (18, 2, 0.0)})
    assert (found.best, sum(found.reasons().values()), found.problem) == (None, 2, "")
    hardly = front({"strong": (0, 2, 0.1)}, before=(1, 0))
    assert (hardly.best, hardly.tried, hardly.problem) == (None, (), "it hardly refuses harmful instructions")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    make_study(folder)
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        splits = ["train"] * 4 + ["validation"] * 3 + ["test"]
        lines = [{"instruction": row, "split": split} for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


SETTINGS = (
    'direction.estimator=["difference-of-means","whitened"]',
    'interventions=[{kind="ablate"},{kind="affine",to="harmful"},{kind="add",coefficient=[-1.0,1.0],unit="raw"},'
    '{kind="subspace",span="estimators",to="harmless"}]',
    "selection.instructions=3",
    'judges=["tests.test_edit_front:EvenLength"]',
    "instructions.harmful.test=1",
    "instructions.harmless.test=1",
)


def test_the_study_that_is_run(place):
    study = demur.load_study(place / "study.toml", list(SETTINGS))
    tried = front_study(study)
    assert (tried.split, tried.controls.counts, [one.name for one in tried.measurements]) == ("validation", {}, ["coherence"])
    cells = [one for one in make_plan(tried).cells if one.intervention is not None]
    # Edits that should raise refusals are left out, and no direction moves to another arm.
    assert all(one.direction.arm == one.target for one in cells)
    assert {(one.intervention.kind, one.intervention.dose) for one in cells} == {
        ("ablate", None),
        ("add", -1.0),
        ("subspace", None),
    }
    # 2 arms, 2 sets; ablate and add by two estimators, and one subspace.
    assert len(cells) == 2 * 2 * (2 + 2 + 1)
    for settings, said in (
        (["direction.layers=select"], "direction.layers is .*give direction.layers or selection.layers"),
        (["direction.position=select"], "give direction.position"),
        (['interventions=[{kind="affine",to="harmful"}]'], "no edit that could lower refusals"),
    ):
        with pytest.raises(InputError, match=said):
            front_study(demur.load_study(place / "study.toml", [*SETTINGS, *settings]))
    opened = demur.load_study(place / "study.toml", [*SETTINGS, "direction.layers=select", "selection.layers=[1,2]"])
    assert front_study(opened).direction.layers == [1, 2]


def test_the_command_prints_the_front_and_keeps_it(place, tmp_path):
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    asked = ["select", str(place / "study.toml"), "--by", "front", "--out", str(tmp_path), "-q", *words]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    kept = json.loads((tmp_path / "selection-front.json").read_text())
    judge = kept["judge"]
    assert [arm["arm"] for arm in kept["arms"]] == ["base/user-assistant", "chat/native"]
    with demur.open_run(tmp_path / "front-run") as run:
        summary = run.summary()
    rates = {(one["key"], one["judge"]): one["rate"] for one in summary["cells"]}
    for arm in kept["arms"]:
        assert f"{arm['arm']} refuses" in result.output
        if not arm["problem"]:
            assert len(arm["tried"]) == 5
        for one in arm["tried"]:
            assert one["harmful"] == rates[one["key"], judge]
            twin = one["key"].replace("|harmful|", "|harmless|")
            assert one["harmless_change"] == pytest.approx(rates[twin, judge] - arm["harmless"])
        assert (arm["best"] is None) == all(one["dropped"] for one in arm["tried"])
    strict = CliRunner().invoke(app, [*asked, "--kl", "0"])
    assert strict.exit_code == 0, strict.output
    assert "none: no edit keeps to the bounds" in strict.output
