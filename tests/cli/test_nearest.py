"""A misspelt name is answered with the nearest known one, wherever a name is taken."""

import json

import pytest
from typer.testing import CliRunner

from demur.cli.main import app

GENERATE = ["generate", "-m", "{0}/base", "-p", "chatml", "-i", "{0}/rows.jsonl", "-o", "{0}/out.jsonl"]
CASES = {
    "rnu": (["rnu"], "'run'"),
    "--divice": (["plan", "demo", "--divice", "cpu"], "--device"),
    "demoo": (["plan", "demoo"], "'demo'"),
    "prfix": (["judge", "{0}/rows.jsonl", "--judge", "prfix"], "'prefix'"),
    "chatlm": (["doctor", "-m", "{0}/base", "-p", "chatlm"], "'chatml'"),
    "resid_pr": ([*GENERATE, "-d", "{0}/d.safetensors", "--add", "1", "--sites", "resid_pr"], "'resid_pre'"),
    "rwa": ([*GENERATE, "-d", "{0}/d.safetensors", "--add", "1", "--unit", "rwa"], "'raw'"),
    "flaot32": (["doctor", "-m", "{0}/base", "--dtype", "flaot32"], "'float32'"),
    "contrast-harmfull": (["generate", *GENERATE[1:5], "-i", "contrast-harmfull", "-o", "{0}/o.jsonl"], "'contrast-harmful'"),
    "instrution": (["generate", *GENERATE[1:5], "-i", "{0}/rows.jsonl:instrution", "-o", "{0}/o.jsonl"], "'instruction'"),
    "cosmik": (["select", "demo", "--by", "cosmik"], "'cosmic'"),
    "parquett": (["export", "{0}", "--format", "parquett"], "'parquet'"),
    "ggfu": (["convert", "{0}/d.safetensors", "--format", "ggfu", "--out", "{0}/d.gguf"], "'gguf'"),
    "direction.pair": (["plan", "demo", "--set", "direction.pair=8"], "'pairs'"),
    "direction.seed": (["plan", "demo", "--set", "direction.seed=1"], "'controls.seed'"),
    "seed": (["plan", "demo", "--set", "seed=1"], "'controls.seed'"),
    "controls.pairs": (["plan", "demo", "--set", "controls.pairs=8"], "'direction.pairs'"),
    "direction.coefficient": (["plan", "demo", "--set", "direction.coefficient=2"], "'interventions.0.coefficient'"),
    "layer": (["plan", "demo", "--set", "layer=2"], "'direction.layers'"),
    "interventions.0.targets": (["plan", "demo", "--set", 'interventions.0.targets=["befor"]'], "'before'"),
    "smollm": (["doctor", "-m", "demo:smollm2-135m-instuct"], "'demo:smollm2-135m-instruct'"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import torch

    from demur.directions.direction import from_raw
    from tests.tiny_study import make_checkpoint

    folder = tmp_path_factory.mktemp("near")
    make_checkpoint(folder / "base")
    from_raw(torch.ones(32), name="d", layer=1).save(folder / "d.safetensors")
    (folder / "rows.jsonl").write_text(json.dumps({"instruction": "x", "completion": "y"}) + "\n")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_nearest_name_is_named(case, place):
    arguments, nearest = CASES[case]
    result = CliRunner().invoke(app, [argument.format(place) for argument in arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert f"did you mean {nearest}?" in line, line
