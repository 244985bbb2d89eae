"""What the programs that own a format make of demur's files: their rules written out once more, and the same logits asked for.

llama.cpp's loader (common/common.cpp, src/llama-adapter.cpp), repeng's (repeng/extract.py, repeng/control.py) and
lm-evaluation-harness's (lm_eval/models/hf_steered.py) are restated here without any code of demur's.
"""

import re
from contextlib import contextmanager

import gguf
import numpy as np
import pytest
import torch

import demur
from demur.directions.direction import from_raw
from tests.tiny import EXPERTS, FAMILIES, tiny_model

IDS = torch.tensor([[1, 5, 9, 30, 22, 7]])


def direction(layer=2, site="resid_pre", seed=0):
    raw = torch.randn(32, generator=torch.Generator().manual_seed(seed)) * 3
    return from_raw(raw, name="d", layer=layer, site=site)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def steered(model, *edits):
    with demur.steer(model, *edits):
        return logits(model)


@contextmanager
def hooks(pairs):
    handles = [
        module.register_forward_hook(lambda _, __, out, act=act: (act(out[0]), *out[1:]) if isinstance(out, tuple) else act(out))
        for module, act in pairs
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def llama_cpp_control_vectors(path):
    """Block -> vector, by llama.cpp's rules: every tensor direction.N with N above 0, F32, one dimension, one length."""
    reader = gguf.GGUFReader(path)
    vectors, width = {}, None
    assert reader.tensors
    for tensor in reader.tensors:
        match = re.fullmatch(r"direction\.(\d+)", tensor.name)
        assert match, tensor.name
        assert int(match[1]) > 0
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert len(tensor.shape) == 1
        assert width in (None, int(tensor.shape[0]))
        width = int(tensor.shape[0])
        vectors[int(match[1])] = np.array(tensor.data)
    return vectors, {key: field.contents() for key, field in reader.fields.items()}


def test_llama_cpp_adds_behind_block_n(tmp_path):
    made = [direction(2, seed=1), direction(2, "resid_post", seed=2)]
    vectors, facts = llama_cpp_control_vectors(demur.save_directions(made, tmp_path / "v.gguf", family="llama"))
    assert facts["general.architecture"] == "controlvector"
    assert facts["controlvector.model_hint"] == "llama"
    assert facts["controlvector.layer_count"] == 2
    assert sorted(vectors) == [1, 2]
    model = tiny_model("llama").double()
    with hooks([(model.model.layers[n], lambda x, n=n: x + torch.from_numpy(vectors[n])) for n in vectors]):
        expected = logits(model)
    for edits in (
        [demur.add(d, 1, unit="raw") for d in made],
        [demur.add(d, 1, unit="raw") for d in demur.load_directions(tmp_path / "v.gguf")],
    ):
        assert (steered(model, *edits) - expected).abs().max() < 1e-5
    assert (logits(model) - expected).abs().max() > 0.1


def test_files_of_repeng_and_of_the_generator(tmp_path):
    """repeng writes a uint32 count and the layers in the order of its dict; llama.cpp's generator an int32 count."""
    vectors = {n: np.random.default_rng(n).normal(size=32).astype(np.float32) for n in (2, 1)}
    for kind, order in (("add_uint32", "LITTLE"), ("add_int32", "LITTLE"), ("add_uint32", "BIG")):
        path = tmp_path / f"{kind}{order}.gguf"
        writer = gguf.GGUFWriter(path, "controlvector", endianess=gguf.GGUFEndian[order])
        writer.add_string("controlvector.model_hint", "mistral")
        getattr(writer, kind)("controlvector.layer_count", len(vectors))
        for n, vector in vectors.items():
            writer.add_tensor(f"direction.{n}", vector)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found = demur.load_directions(path)
        assert [(d.layer, d.site, d.provenance["model hint"]) for d in found] == [
            (1, "resid_post", "mistral"),
            (2, "resid_post", "mistral"),
        ]
        for d in found:
            assert np.allclose(d.raw_vector().numpy(), vectors[d.layer], rtol=1e-6, atol=1e-7)


def harness(model, path):
    """Logits as `lm_eval --model steered` computes them from a file."""
    entries = torch.load(path, weights_only=True)
    modules = dict(model.base_model.named_modules())
    pairs = []
    for name, info in entries.items():
        assert info["head_index"] is None
        assert info["bias"] is None
        vector, coefficient = info["steering_vector"].to(model.dtype), float(info["steering_coefficient"])
        if info["action"] == "add":
            pairs.append((modules[name], lambda x, v=vector * coefficient: x + v))
        else:
            assert info["action"] == "clamp"
            unit = vector / torch.norm(vector)
            pairs.append((modules[name], lambda x, u=unit, c=coefficient: x + u * (c - (x * u).sum(-1, keepdim=True))))
    with hooks(pairs):
        return logits(model)


# Where embeddings are projected on their way into the stream, the harness has no module to clamp.
@pytest.mark.parametrize("variant", [family for family in FAMILIES if family != "opt-projected"])
def test_the_harness_does_what_demur_does(variant, tmp_path):
    model, family = tiny_model(variant), variant.partition("-")[0]
    # Experts are computed in float32 at most.
    model = model if variant in EXPERTS else model.double()
    d = direction()
    added = demur.save_directions([d], tmp_path / "add.pt", format="lm-eval", family=family)
    expected, plain = harness(model, added), logits(model)
    for one in (d, demur.load_direction(added)):
        assert (steered(model, demur.add(one, 1, unit="raw")) - expected).abs().max() < 1e-5
    assert (expected - plain).abs().max() > 0.1
    ablated = demur.save_directions([d], tmp_path / "ablate.pt", format="lm-eval-ablation", family=family, n_layers=3)
    expected = harness(model, ablated)
    for one in (d, demur.load_direction(ablated)):
        assert (steered(model, demur.ablate(one)) - expected).abs().max() < 1e-5
    assert (expected - plain).abs().max() > 0.1


def test_a_steering_file_as_the_harness_documents_it(tmp_path):
    """A row of shape (1, d_model), a whole coefficient, keys left out; a negative coefficient turns the vector."""
    vector = torch.randn(1, 32)
    torch.save({"layers.2": {"steering_vector": vector, "steering_coefficient": -4, "action": "add"}}, tmp_path / "s.pt")
    found = demur.load_direction(tmp_path / "s.pt")
    assert (found.layer, found.site) == (2, "resid_post")
    assert torch.allclose(found.raw_vector(), -4 * vector[0].double(), rtol=1e-6)
    assert found.provenance["steering coefficient"] == -4
    torch.save({"h.1": {"steering_vector": vector[0], "steering_coefficient": 2.5, "action": "clamp"}}, tmp_path / "c.pt")
    found = demur.load_direction(tmp_path / "c.pt")
    assert found.layer == 1
    assert found.provenance["action"] == "clamp"
    assert not found.says("raw norm")
    assert torch.allclose(found.raw_vector(), vector[0].double(), rtol=1e-6)
