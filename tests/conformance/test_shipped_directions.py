"""The six directions that "Base LLMs refuse too" ships, as stored, as read and as `demur directions` prints them."""

import pytest
import torch
from typer.testing import CliRunner

from demur.cli.main import app
from demur.directions.direction import UNSAID
from demur.directions.files.load_and_save import load_direction, save_directions

# Name, width, dtype, first four entries, index and value of the entry of largest size: literature.md, section 1.2.
STORED = [
    ("qwen1.5-0.5b-chat", 1024, torch.float32, (0.02258, -0.00060, -0.07165, 0.03361), 879, 0.1689),
    ("qwen1.5-0.5b", 1024, torch.float32, (0.03285, 0.01546, -0.04654, 0.01216), 879, 0.2382),
    ("gemma-2-9b-it", 3584, torch.float16, (-0.01147, 0.01539, -0.00342, 0.01698), 2422, -0.1089),
    ("gemma-2-9b", 3584, torch.float16, (-0.00726, 0.00154, 0.00373, 0.00431), 1279, -0.1343),
    ("vicuna-7b-v1.1", 4096, torch.float16, (0.00365, 0.00768, 0.00467, 0.01335), 3741, 0.0646),
    ("llama-7b", 4096, torch.float16, (0.00653, 0.03580, -0.01546, 0.02199), 2708, 0.0687),
]


def path_of(shared, name):
    return shared / "reference/base-models-refuse" / f"refusal_dir_{name}.pt"


@pytest.mark.parametrize(("name", "width", "dtype", "first", "index", "value"), STORED)
def test_as_stored_and_as_read(shared, tmp_path, name, width, dtype, first, index, value):
    stored = torch.load(path_of(shared, name), map_location="cpu", weights_only=True)
    found = load_direction(path_of(shared, name))
    assert found.provenance["stored dtype"] == str(stored.dtype) == str(dtype)
    assert found.vector.shape == stored.shape == (width,)
    raw = found.raw_vector()
    assert torch.allclose(raw, stored.double(), rtol=2e-7, atol=0)
    assert raw[:4].tolist() == pytest.approx(first, abs=6e-6)
    assert int(raw.abs().argmax()) == index
    assert float(raw[index]) == pytest.approx(value, abs=6e-5)
    assert found.raw_norm == pytest.approx(1, abs=1e-3)
    assert found.provenance[UNSAID] == ["layer", "site", "position", "raw norm"]
    again = load_direction(save_directions([found], tmp_path / "again.pt", format="post"))
    assert torch.allclose(again.vector, found.vector, rtol=2e-7, atol=0)


@pytest.mark.parametrize(
    ("chat", "base", "digits", "published"),
    [
        ("qwen1.5-0.5b-chat", "qwen1.5-0.5b", 3, "0.770"),
        ("gemma-2-9b-it", "gemma-2-9b", 3, "0.359"),
        ("vicuna-7b-v1.1", "llama-7b", 4, "0.2245"),
    ],
)
def test_demur_directions_prints_the_cosines(shared, chat, base, digits, published):
    result = CliRunner().invoke(app, ["directions", str(path_of(shared, chat)), str(path_of(shared, base))])
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    printed = rows[2].split()[2]
    assert rows[2].split()[1] == "1.0000"
    assert printed == rows[3].split()[1]
    assert f"{float(printed):.{digits}f}" == published
