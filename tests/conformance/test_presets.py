"""The presets' published figures are those of the reference file, and a preset's whole path runs on other checkpoints.

What such a run sets beside the published rates must say of itself that it is no reproduction, and in which settings.
"""

import json

import pytest
from typer.testing import CliRunner

from demur.cli.main import app
from demur.models.sources import DEMO_ADAPTER, DEMO_MODEL
from demur.study.study_files import load_study
from tests.tiny_study import make_adapter, make_checkpoint

MODELS = {"qwen1.5-0.5b": ("qwen1.5-0.5b", "base"), "gemma-2-9b": ("gemma-2-9b", "base"), "llama-7b": ("llama-7b", "base"),
          "vicuna-7b-v1.1": ("llama-7b", "chat")}  # fmt: skip
KINDS = {"addition": "add", "ablation": "ablate"}


def test_the_ten_published_records_are_in_the_presets(shared):
    records = json.loads((shared / "reference/base-models-refuse/refusal_scores.json").read_text())
    assert len(records) == 10
    expected = {}
    for record in records:
        preset, target = MODELS[record["model_name"]]
        expected[preset, target, record["dataset"], "none", None] = record["baseline_refusal_score"]
        for source in ("chat", "base"):
            score = record[f"{source}_intervention_refusal_score"]
            expected[preset, target, record["dataset"], KINDS[record["intervention"]], source] = score
    found = {}
    for preset in {preset for preset, _ in MODELS.values()}:
        (publication,) = load_study(preset).published
        for rate in publication.rates:
            assert rate.n == 100
            found[preset, rate.target, rate.instructions, rate.intervention, rate.source] = rate.refusals
    # Rates of 100 instructions: each is a whole number of them.
    assert found == {key: round(100 * score) for key, score in expected.items()}
    assert all(score == found[key] / 100 for key, score in expected.items())


@pytest.fixture
def tiny(tmp_path):
    model = make_checkpoint(tmp_path / "tiny", num_hidden_layers=16)
    return str(model), str(make_adapter(model, tmp_path / "adapter"))


@pytest.fixture
def real(smollm):
    return DEMO_MODEL, DEMO_ADAPTER


@pytest.mark.parametrize("weights", ["tiny", pytest.param("real", marks=pytest.mark.soak)])
def test_llama_7b_runs_on_other_checkpoints_and_is_no_reproduction(weights, shared, tmp_path, monkeypatch, request):
    monkeypatch.setenv("DEMUR_DATA", str(shared / "data"))
    model, adapter = request.getfixturevalue(weights)
    changes = {"checkpoints.base.model": model, "checkpoints.chat.model": model, "checkpoints.chat.adapter": adapter}
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    # float32: half precision is several times slower on a processor without it.
    command = ["run", "llama-7b", *settings, "--limit", "2", "--dtype", "float32", "--out", str(tmp_path / "run"), "--quiet"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output

    study, summary = load_study("llama-7b"), json.loads((tmp_path / "run" / "summary.json").read_text())
    edits = {(cell["intervention"], cell["coefficient"], cell["source"]) for cell in summary["cells"] if not cell["control"]}
    assert edits == {("none", None, None), ("ablate", None, "base"), ("ablate", None, "chat"), ("add", 4.0, "chat"),
                     ("add", 8.0, "chat"), ("add", 12.0, "base")}  # fmt: skip
    assert {cell["n"] for cell in summary["cells"]} == {2}

    rows = summary["published"]
    assert [row["published"]["refusals"] for row in rows] == [rate.refusals for rate in study.published[0].rates]
    for row in rows:
        assert row["settings"] == "depart"
        assert row["measured"]["n"] == 2
        assert 0 <= row["p_value"] <= 1
        departing = {each["setting"]: (each["published"], each["here"]) for each in row["departures"]}
        used = {row["target"], row["source"]} - {None}
        expected = {key for key in changes if key.split(".")[1] in used} | {"dtype", f"instructions.{row['instructions']}.test"}
        assert set(departing) == expected
        assert departing["dtype"] == ("float16", "float32")
        assert departing[f"instructions.{row['instructions']}.test"] == (100, 2)
    assert rows[8]["departures"][1] == {"setting": "checkpoints.chat.adapter", "published": None, "here": adapter}

    assert "Published and measured rates: not a reproduction" in result.output
    for key in (*changes, "dtype", "instructions.harmful.test"):
        assert key in result.output
    assert max(len(line) for line in result.output.splitlines() if "report.html" not in line) <= 80
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<b>Not a reproduction.</b>" in page
    assert (tmp_path / "run" / "tables" / "published.csv").is_file()
