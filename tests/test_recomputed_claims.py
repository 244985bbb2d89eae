"""Every number in every claim of a run is computed a second time from `run.sqlite`, by code that shares nothing with demur."""

import json
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import demur
from demur.runs.run import Run
from demur.runs.runner import run
from demur.study.study_files import load_study
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_study

SCRIPTS = Path(__file__).parents[1] / "scripts"

AFFINE = (
    'interventions=[{kind="ablate",on=["harmful"]},{kind="affine",on=["harmful"]},{kind="add",coefficient=2.0,unit="residual"}]'
)
DOSES = 'interventions=[{kind="ablate",on=["harmful"]},{kind="add",coefficient=[1.0,2.0,4.0],unit="raw",on=["harmless"]}]'
CLAIMS = 'claims=[{kind="ablate",source="base",target="chat"},{kind="add"}]'

SHAPES = {
    "affine": (AFFINE, "controls.random=6", "controls.shuffled-labels=5", "measurements=[]"),
    "doses": (DOSES, "controls.random=12", "measurements=[]", "direction.layers=[1,2]"),
    "claims": (CLAIMS, "controls.random=5", "measurements=[]", 'checkpoints.base.prompts=["user-assistant","chatml"]'),
    "draws": (AFFINE, "controls.random=6", "measurements=[]", "direction.pairs=3", "direction.pairs_seed=[7,8]"),
    "probability": ("controls.random=6", "controls.completions=1", 'measurements=["refusal-probability"]'),
    "few nulls": ("controls.random=2", "measurements=[]"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two tiny checkpoints and 30 test instructions a set, some of them near-duplicates."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, max_new_tokens=1)
    chance = random.Random(0)
    for label, known in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        words = sorted({word for text in known for word in text.split()})
        texts = [" ".join(chance.sample(words, 6)) for _ in range(27)]
        texts += [f"{text} {word}" for text, word in zip(texts[5:8], chance.sample(words, 3), strict=True)]
        rows = [{"instruction": text, "split": "train"} for text in known[:5]]
        rows += [{"instruction": text, "split": "test"} for text in texts]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "study.toml"


def with_verdicts(folder, seed, likely):
    """Replaces the verdicts, because random weights do not refuse. Each cell has a rate, and each instruction a propensity."""
    chance = random.Random(seed)
    ease = {}
    with closing(sqlite3.connect(folder / "run.sqlite")) as db, db:
        for key, facts in db.execute("SELECT key, facts FROM cells").fetchall():
            facts = json.loads(facts)
            strong = facts["intervention"] != "none" and not facts["control"] and facts["expected"]
            rate = {"harmful": 0.75, "harmless": 0.15}[facts["instructions"]]
            rate += facts["expected"] * (likely if strong else chance.uniform(-0.1, 0.1))
            for (place,) in db.execute("SELECT position FROM completions WHERE cell = ?", (key,)).fetchall():
                own = ease.setdefault((facts["instructions"], place), chance.uniform(0, 1))
                refusal = 0.7 * own + 0.3 * chance.uniform(0, 1) < rate
                db.execute("UPDATE verdicts SET refusal = ? WHERE cell = ? AND position = ?", (refusal, key, place))


def summarised(folder):
    with demur.open_run(folder) as opened:
        summary = opened.summary_record()
    (folder / "summary.json").write_text(summary.to_json(), encoding="utf-8")
    return summary


@pytest.fixture
def recomputed(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import recompute_claims

    return recompute_claims.recomputed


@pytest.mark.parametrize("shape", [one if one == "probability" else pytest.param(one, marks=pytest.mark.soak) for one in SHAPES])
def test_every_number_of_every_claim_is_found_again(study, tmp_path, monkeypatch, recomputed, shape):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    settings = ("instructions.harmful.test=30", "instructions.harmless.test=30", "allow_overlap=true", *SHAPES[shape])
    with run(load_study(study, settings), tmp_path / "run"):
        pass
    verdicts = set()
    for seed, likely in enumerate((0.55, 0.1, -0.4)):
        with_verdicts(tmp_path / "run", seed, likely)
        summary = summarised(tmp_path / "run")
        lines = recomputed(tmp_path / "run")
        assert [line for line in lines if line.differs] == []
        tested = {claim.id for claim in summary.claims if claim.p is not None}
        assert {line.claim for line in lines} == tested
        assert {"effect", "p", "p_change", "ci95[0]", "null.p_rank"} <= {line.number for line in lines}
        verdicts |= {claim.verdict for claim in summary.claims if claim.about == "hypothesis"}
    wanted = {"not shown"} if shape in ("few nulls", "probability") else {"supported", "contradicted", "not shown"}
    assert wanted <= verdicts


def test_a_wrong_number_is_found(study, tmp_path, monkeypatch, recomputed):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    with run(load_study(study, ["controls.random=5", "measurements=[]", "allow_overlap=true"]), tmp_path / "run"):
        pass
    summarised(tmp_path / "run")
    assert not any(line.differs for line in recomputed(tmp_path / "run"))
    file = tmp_path / "run" / "summary.json"
    right = file.read_text(encoding="utf-8")
    changes = {
        "p": lambda p: p + 1e-6,
        "effect": lambda effect: effect + 1e-6,
        "verdict": lambda _: "supported",
        "ci95": lambda bounds: [bounds[0], bounds[1] + 1e-5],
        "n": lambda n: n + 1,
    }
    for number, change in changes.items():
        written = json.loads(right)
        claim = next(claim for claim in written["claims"] if claim["id"] == "base-direction-induces-in-chat")
        claim[number] = change(claim[number])
        file.write_text(json.dumps(written), encoding="utf-8")
        differing = {(line.claim, line.number.partition("[")[0]) for line in recomputed(tmp_path / "run") if line.differs}
        assert ("base-direction-induces-in-chat", number) in differing
    command = [sys.executable, SCRIPTS / "recompute_claims.py", tmp_path / "run"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "DIFFERS  base-direction-induces-in-chat" in found.stdout


def test_the_script_shares_no_code_with_the_analysis():
    for name in ("recompute_claims", "plain_effects", "plain_statistics"):
        assert "import demur" not in (text := (SCRIPTS / f"{name}.py").read_text(encoding="utf-8"))
        assert "from demur" not in text
