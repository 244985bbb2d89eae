"""Features of sparse autoencoders as directions: the decoder's row, its place, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError

DECODER = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "sae_weights.safetensors"
    decoder = DECODER.clone()
    decoder[4] = 0
    save_file({"W_dec": decoder, "W_enc": DECODER.T.contiguous(), "b_dec": torch.zeros(8)}, path)
    return path


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"hook_name": "blocks.12.hook_resid_post"}, (12, "resid_post")),
        ({"metadata": {"hook_name": "blocks.3.hook_resid_pre"}}, (3, "resid_pre")),
        ({"hook_name": "blocks.3.hook_mlp_out"}, None),
        (["blocks.3.hook_resid_pre"], None),
        (None, None),
    ],
)
def test_a_feature_is_its_row_of_the_decoder(weights, config, place):
    if config is not None:
        (weights.parent / "cfg.json").write_text(json.dumps(config))
    found = demur.load_direction(weights, feature=2)
    assert torch.allclose(found.vector, DECODER[2] / DECODER[2].norm())
    assert (found.name, found.says("raw norm"), found.says("layer")) == ("sae_weights.feature2", False, place is not None)
    if place is not None:
        assert (found.layer, found.site) == place
    given = demur.load_direction(weights, feature=2, layer=place[0] if place else 7)
    assert given.layer == (place[0] if place else 7)
    assert given.says("layer")


def test_demur_convert_writes_it(weights):
    out = weights.parent / "d.safetensors"
    result = CliRunner().invoke(app, ["convert", str(weights), "--feature", "1", "--layer", "3", "--out", str(out)])
    assert result.exit_code == 0, result.output
    read = demur.load_direction(out)
    assert (read.layer, read.provenance.method) == (3, "decoder row of feature 1 of a sparse autoencoder")
    assert torch.allclose(read.vector, DECODER[1] / DECODER[1].norm())


def test_what_is_no_feature_is_refused(weights):
    with pytest.raises(InputError, match="holds a sparse autoencoder, each of whose features is a direction; choose one"):
        demur.load_direction(weights)
    with pytest.raises(InputError, match="has no feature 5; its decoder has 0 to 4"):
        demur.load_direction(weights, feature=5)
    with pytest.raises(InputError, match="feature 4 has a decoder row of zeros"):
        demur.load_direction(weights, feature=4)
    own = weights.parent / "own.safetensors"
    demur.from_raw(DECODER[0], name="d", layer=1).save(own)
    with pytest.raises(InputError, match="holds direction, not the tensor 'W_dec'"):
        demur.load_direction(own, feature=0)
    torch.save(DECODER[0], weights.parent / "d.pt")
    with pytest.raises(InputError, match="has no tensor 'W_enc'; a file of Qwen-Scope is a dict of"):
        demur.load_direction(weights.parent / "d.pt", feature=0)
    (weights.parent / "d.gguf").write_bytes(b"")
    with pytest.raises(InputError, match="features are of a sparse autoencoder in a .safetensors or .pt file"):
        demur.load_direction(weights.parent / "d.gguf", feature=0)
    save_file({"W_dec": torch.zeros(3)}, weights)
    with pytest.raises(InputError, match=r"has the shape \(3,\); expected \(feature, d_model\)"):
        demur.load_direction(weights, feature=0)
