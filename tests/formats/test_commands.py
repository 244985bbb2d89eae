"""demur convert and demur directions: every format from the command line, and what is refused there."""

import json

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.directions.direction import from_raw
from demur.directions.file_formats import FORMATS


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def grid(tmp_path):
    """Three layers at two positions, each in a file of demur's own."""
    paths = []
    for position in (-2, -1):
        for layer in (1, 2, 3):
            raw = torch.randn(16, generator=torch.Generator().manual_seed(10 * layer - position)) * 4
            facts = {"architecture": {"family": "qwen2", "layers": 4}}
            made = from_raw(raw, name=f"d{layer}", layer=layer, position=position, provenance=facts)
            paths.append(made.save(tmp_path / f"d{layer}{position}.safetensors"))
    return paths


def test_there_and_back_again(grid, tmp_path):
    result = invoke("convert", *grid, "--out", tmp_path / "mean_diffs.pt")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'mean_diffs.pt'}  mean-diffs  6 directions\n"
    chosen = ["--layer", 2, "--position", -2]
    result = invoke("convert", tmp_path / "mean_diffs.pt", *chosen, "--out", tmp_path / "direction.pt")
    assert result.stdout == f"{tmp_path / 'direction.pt'}  arditi  1 direction\n"
    assert json.loads((tmp_path / "direction_metadata.json").read_text()) == {"pos": -2, "layer": 2}
    assert invoke("convert", tmp_path / "direction.pt", "--out", tmp_path / "v.gguf").exit_code == 0
    result = invoke("convert", tmp_path / "v.gguf", "--out", tmp_path / "s.pt", "--format", "lm-eval", "--family", "gpt2")
    assert result.exit_code == 0, result.output
    assert list(torch.load(tmp_path / "s.pt", weights_only=True)) == ["h.1"]
    result = invoke("convert", tmp_path / "s.pt", "--position", -2, "--out", tmp_path / "end.safetensors")
    assert result.exit_code == 0, result.output
    first, last = demur.load_direction(grid[1]), demur.load_direction(tmp_path / "end.safetensors")
    assert torch.allclose(first.raw_vector(), last.raw_vector(), rtol=1e-6)
    assert (last.layer, last.site, last.position) == (1, "resid_post", -2)


def test_directions_reads_all_of_them(grid, tmp_path):
    files = []
    for name in FORMATS:
        out = {"arditi": "direction.pt", "mean-diffs": "mean_diffs.pt"}.get(name, name + FORMATS[name].endings[0])
        chosen = grid if name == "mean-diffs" else grid[4:5]
        result = invoke("convert", *chosen, "--out", tmp_path / out, "--format", name)
        assert result.exit_code == 0, result.output
        if name != "mean-diffs":
            files.append(tmp_path / out)
    result = invoke("directions", *files)
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    assert len(rows) == 2 * len(files)
    assert all(value == "1.0000" for row in rows[len(files) :] for value in row.split()[1:])
    places = [row.split("  ")[-1] for row in rows[: len(files)]]
    assert places == [
        "layer 2 resid_pre position -1",
        "layer unknown",
        "layer 2 resid_pre position -1",
        "layer 1 resid_post",
        "layer 1 resid_post",
        "layer unknown",
    ]
    result = invoke("directions", tmp_path / "mean_diffs.pt")
    assert len(result.stdout.splitlines()) == 12
    result = invoke("directions", tmp_path / "mean_diffs.pt", "--layer", 3)
    assert [row.split("  ")[-1] for row in result.stdout.splitlines()[:2]] == [
        "layer 3 resid_pre position -2",
        "layer 3 resid_pre position -1",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "v.npz"], "no format of direction files ends like 'v.npz'"),
        (["--out", "v.pt"], "'v.pt' could be post, arditi"),
        (["--out", "v.pt", "--format", "lmeval"], "did you mean 'lm-eval'"),
        (["--out", "v.safetensors"], "holds one direction, but 6 were given; choose by layer and position"),
        (["--out", "v.safetensors", "--layer", "9"], "has no direction of layer 9; it has layer 1"),
        (["--out", "v.gguf"], "adds to the output of block 1 and later ones only"),
    ],
)
def test_refusals(grid, tmp_path, arguments, message):
    arguments = [tmp_path / a if a.startswith("v.") else a for a in arguments]
    result = invoke("convert", *grid, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("v.*"))


def test_help_names_every_format():
    text = " ".join(invoke("convert", "--help").stdout.split())
    assert all(name in text for name in FORMATS)


def test_extract_writes_its_own_format_only(tmp_path):
    files = ["--harmful", "contrast-harmful", "--harmless", "contrast-harmless", "--out", tmp_path / "v.gguf"]
    result = invoke("extract", "--model", "nowhere", "--prompt", "chatml", *files)
    assert result.exit_code == 2
    assert "demur extract writes .safetensors files, not 'v.gguf'" in result.stderr
