"""Sparse autoencoders in each public format: latents as a naive loop computes them, and everything else refused by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

import demur
from demur.core.errors import InputError
from demur.directions.sae.read_autoencoder import read_autoencoder
from tests.autoencoders import random_weights, write_gemma_scope, write_qwen_scope, write_sae_lens

WEIGHTS = random_weights(8, 20)
STREAM = 3 * torch.randn(6, 8, generator=torch.Generator().manual_seed(2))


def naive(x, *, threshold=False, k=None, centred=False):
    """The latents of one position, one by one."""
    if centred:
        x = x - WEIGHTS["b_dec"]
    before = [float(x @ WEIGHTS["W_enc"][:, j] + WEIGHTS["b_enc"][j]) for j in range(20)]
    kept = set(range(20)) if k is None else set(sorted(range(20), key=lambda j: -before[j])[:k])
    least = WEIGHTS["threshold"].tolist() if threshold else [0.0] * 20
    return [z if j in kept and z > max(0.0, least[j]) else 0.0 for j, z in enumerate(before)]


@pytest.mark.parametrize(
    ("write", "rule"),
    [
        (lambda folder: write_gemma_scope(folder, WEIGHTS, 12), {"threshold": True}),
        (lambda folder: write_qwen_scope(folder, WEIGHTS, 12, 4), {"k": 4}),
        (lambda folder: write_sae_lens(folder, WEIGHTS, 12, "jumprelu"), {"threshold": True}),
        (lambda folder: write_sae_lens(folder, WEIGHTS, 12, "standard"), {}),
        (lambda folder: write_sae_lens(folder, WEIGHTS, 12, "standard", apply_b_dec_to_input=True), {"centred": True}),
        (lambda folder: write_sae_lens(folder, WEIGHTS, 12, "topk", k=4), {"k": 4}),
        (
            lambda folder: write_sae_lens(
                folder, WEIGHTS, 12, "standard", activation_fn_str="topk", activation_fn_kwargs={"k": 4}
            ),
            {"k": 4},
        ),
    ],
    ids=["gemma-scope", "qwen-scope", "jumprelu", "standard", "centred", "topk", "old-topk"],
)
def test_latents_and_reconstruction_are_those_of_a_naive_loop(tmp_path, write, rule):
    sae = read_autoencoder(write(tmp_path))
    expected = torch.tensor([naive(x, **rule) for x in STREAM])
    found = sae.encode(STREAM)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert 0 < int((found > 0).sum()) < found.numel()
    torch.testing.assert_close(sae.some(STREAM, (3, 17)), expected[:, [3, 17]], atol=1e-5, rtol=1e-5)
    rows = [sum(f * row for f, row in zip(one, WEIGHTS["W_dec"], strict=True)) + WEIGHTS["b_dec"] for one in expected]
    torch.testing.assert_close(sae.decode(found), torch.stack(rows), atol=1e-5, rtol=1e-5)
    assert (sae.place, sae.off_stream, sae.latents) == ((12, "resid_post"), "", 20)


@pytest.mark.parametrize(
    "write", [write_gemma_scope, lambda folder, weights, layer: write_qwen_scope(folder, weights, layer, 4), write_sae_lens]
)
def test_a_feature_of_each_format_is_a_direction(tmp_path, write):
    found = demur.load_direction(write(tmp_path, WEIGHTS, 5), feature=3)
    assert torch.allclose(found.vector, WEIGHTS["W_dec"][3])
    assert (found.layer, found.site, found.says("layer")) == (5, "resid_post", True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "gated"}, "has the architecture 'gated'; demur computes standard, jumprelu and topk"),
        ({"activation_fn_str": "tanh-relu"}, "has the activation function 'tanh-relu'"),
        ({"normalize_activations": "layer_norm"}, "has normalize_activations = 'layer_norm' in its cfg.json"),
        ({"rescale_acts_by_decoder_norm": True}, "has rescale_acts_by_decoder_norm = True"),
        ({"metadata": {"reshape_activations": "hook_z"}}, "has reshape_activations = 'hook_z'"),
        ({"apply_b_dec_to_input": None}, "does not say whether apply_b_dec_to_input is true"),
        ({"architecture": "topk"}, "does not say k"),
        ({"architecture": "topk", "k": 21}, "has 20 latents, so k cannot be 21"),
    ],
)
def test_what_sae_lens_says_and_demur_does_not_compute_is_refused(tmp_path, changes, said):
    file = write_sae_lens(tmp_path, WEIGHTS, 12, **{"architecture": "standard", **changes})
    with pytest.raises(InputError, match=said):
        read_autoencoder(file)


def test_an_unknown_tensor_and_a_missing_config_are_refused(tmp_path):
    file = write_sae_lens(tmp_path, WEIGHTS, 12, "standard")
    save_file({**{name: one for name, one in WEIGHTS.items() if name != "threshold"}, "b_gate": torch.zeros(20)}, file)
    with pytest.raises(InputError, match="has a tensor 'b_gate', which this architecture does not have"):
        read_autoencoder(file)
    with pytest.raises(InputError, match="has no tensor 'threshold'"):
        read_autoencoder(write_sae_lens(tmp_path, {k: v for k, v in WEIGHTS.items() if k != "threshold"}, 12))
    (tmp_path / "cfg.json").unlink()
    with pytest.raises(InputError, match=r"there is no cfg\.json"):
        read_autoencoder(file)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hf_hook_point_out": "model.layers.12.mlp.output"}, "it is a transcoder"),
        ({"hf_hook_point_in": "model.layers.12.self_attn.o_proj.input"}, "which is no point of the residual stream"),
        ({"affine_connection": True}, "it has an affine connection"),
    ],
)
def test_what_does_not_read_the_stream_says_so(tmp_path, config, said):
    assert said in read_autoencoder(write_gemma_scope(tmp_path, WEIGHTS, 12, **config)).off_stream


def test_transcoders_and_other_points_of_sae_lens_say_so(tmp_path):
    for name in ("transcoder", "jumprelu_skip_transcoder"):
        assert "it is a transcoder" in read_autoencoder(write_sae_lens(tmp_path / name, WEIGHTS, 12, name)).off_stream
    other = write_sae_lens(tmp_path / "mlp", WEIGHTS, 12, "standard", metadata={"hook_name": "blocks.12.hook_mlp_out"})
    assert "'blocks.12.hook_mlp_out', which is no point of the residual stream" in read_autoencoder(other).off_stream


def test_gemma_scope_of_another_architecture_is_refused(tmp_path):
    with pytest.raises(InputError, match="has the architecture 'topk'; Gemma Scope 2 has 'jump_relu'"):
        read_autoencoder(write_gemma_scope(tmp_path, WEIGHTS, 12, architecture="topk"))


def test_qwen_scope_needs_its_k_and_plain_tensors(tmp_path):
    file = write_qwen_scope(tmp_path, WEIGHTS, 3, 4)
    assert read_autoencoder(file, k=4).k == 4
    with pytest.raises(InputError, match="says L0_4, but k is given as 5"):
        read_autoencoder(file, k=5)
    plain = tmp_path / "plain"
    plain.mkdir()
    other = file.rename(plain / "layer3.sae.pt")
    with pytest.raises(InputError, match="has no L0_ with a number"):
        read_autoencoder(other)
    assert read_autoencoder(other, k=4).place == (3, "resid_post")
    torch.save({"W_enc": print}, other)
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        read_autoencoder(other, k=4)


def test_shapes_that_do_not_fit_and_unknown_files_are_refused(tmp_path):
    wrong = write_gemma_scope(tmp_path / "shapes", {**WEIGHTS, "b_enc": torch.zeros(19)}, 12)
    with pytest.raises(InputError, match=r"has b_enc of shape \(19,\), but its W_dec of shape \(20, 8\) needs \(20,\)"):
        read_autoencoder(wrong)
    flat = write_gemma_scope(tmp_path / "flat", {**WEIGHTS, "W_dec": torch.zeros(20)}, 12)
    with pytest.raises(InputError, match=r"has W_dec of shape \(20,\); expected a matrix"):
        read_autoencoder(flat)
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"holds weight; expected w_enc and w_dec \(Gemma Scope 2\)"):
        read_autoencoder(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="there is no file"):
        read_autoencoder(tmp_path / "missing.safetensors")
    with pytest.raises(InputError, match="k is for files of Qwen-Scope"):
        read_autoencoder(write_gemma_scope(tmp_path / "k", WEIGHTS, 12), k=3)


def test_a_config_that_is_no_object_counts_as_missing(tmp_path):
    file = write_sae_lens(tmp_path, WEIGHTS, 12)
    (tmp_path / "cfg.json").write_text(json.dumps(["jumprelu"]), encoding="utf-8")
    with pytest.raises(InputError, match="with a JSON object beside"):
        read_autoencoder(file)
