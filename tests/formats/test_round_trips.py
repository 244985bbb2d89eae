"""Every format written and read back: what it keeps comes back as it was, what it loses is said to be lost."""

import errno
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

import demur
from demur.core.errors import InputError
from demur.directions.direction import UNSAID, Direction, from_raw
from demur.directions.file_formats import FORMATS, format_for
from demur.directions.files.safetensors_file import from_bytes
from demur.models.layouts import point

LLAMA = {"architecture": {"family": "llama", "layers": 4}}


def made(layer=2, position=-1, site="resid_pre", width=16, seed=0, provenance=LLAMA) -> Direction:
    raw = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 7
    return from_raw(raw, name=f"made-{layer}", layer=layer, position=position, site=site, provenance=provenance)


def same_vector(found, expected):
    """The same float32 vector and length, up to the last bit that storing their product in float32 can cost."""
    assert torch.allclose(found.vector, expected.vector, rtol=2e-7, atol=1e-9)
    assert found.raw_norm == pytest.approx(expected.raw_norm, rel=1e-6)


def same_point(found, expected):
    assert point(found.layer, found.site) == point(expected.layer, expected.site)


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_demur_keeps_everything(tmp_path, site):
    direction = made(layer=16, position=-2, site=site, provenance={"n": 32, "prompt text": "user: {instruction}\n\u00fc"})
    found = demur.load_direction(direction.save(tmp_path / "sub" / "d.safetensors"))
    assert torch.equal(found.vector, direction.vector)
    for key in ("name", "raw_norm", "layer", "position", "site", "provenance"):
        assert getattr(found, key) == getattr(direction, key)
    assert all(found.says(fact) for fact in ("layer", "site", "position", "raw norm"))


def test_bytes_are_read_as_the_file_of_them(tmp_path):
    direction = made(provenance={**LLAMA, "adapter": None, "prompt text": "{instruction}", "mean residual norm": 3.5})
    path = direction.save(tmp_path / "d.safetensors")
    for found in (from_bytes(path.read_bytes(), "the store"), demur.load_direction(path)):
        assert found.to_bytes() == direction.to_bytes() == path.read_bytes()
        assert found.provenance.mean_residual_norm == 3.5


def test_a_file_of_the_version_before_provenance_had_types(tmp_path):
    facts = {**LLAMA, "method": "difference of means", "adapter": None, "harmful": {"n": 2, "sha256": "ab"}, "grid": [1, 2]}
    header = {"format": "demur-direction-1", "layer": 1, "name": "old", "position": -1, "provenance": facts, "raw_norm": 2.0}
    content = save(
        {"direction": torch.eye(4)[0]}, metadata={"demur": json.dumps({**header, "site": "resid_pre"}, sort_keys=True)}
    )
    (tmp_path / "old.safetensors").write_bytes(content)
    found = demur.load_direction(tmp_path / "old.safetensors")
    assert found.provenance == facts
    assert (found.provenance.harmful.n, found.provenance["grid"]) == (2, [1, 2])
    assert found.to_bytes() == content


def test_a_file_may_be_written_over_while_its_direction_lives(tmp_path):
    path = made(seed=1).save(tmp_path / "d.safetensors")
    found = demur.load_direction(path)
    made(seed=2, width=64).save(path)
    assert torch.equal(found.vector, made(seed=1).vector)


def test_post_keeps_the_unit_vector(tmp_path):
    direction = made(layer=13)
    path = demur.save_directions([direction], tmp_path / "refusal_dir_tiny.pt", format="post")
    stored = torch.load(path, weights_only=True)
    assert torch.equal(stored, direction.vector)
    found = demur.load_direction(path)
    assert torch.allclose(found.vector, direction.vector, rtol=2e-7, atol=1e-9)
    assert found.provenance[UNSAID] == ["layer", "site", "position", "raw norm"]
    said = demur.load_direction(path, layer=13)
    assert said.layer == 13
    assert said.says("layer")
    assert not said.says("position")


@pytest.mark.parametrize(("site", "layer"), [("resid_pre", 2), ("resid_post", 1)])
def test_arditi_keeps_vector_norm_layer_and_position(tmp_path, site, layer):
    direction = made(layer=layer, position=-3, site=site)
    path = direction.save(tmp_path / "direction.pt")
    stored = torch.load(path, weights_only=True)
    assert stored.dtype == torch.float64
    assert torch.equal(stored, direction.vector.double() * direction.raw_norm)
    assert json.loads((tmp_path / "direction_metadata.json").read_text()) == {"pos": -3, "layer": 2}
    found = demur.load_direction(path)
    assert torch.allclose(found.vector, direction.vector, rtol=2e-7, atol=1e-9)
    assert found.raw_norm == pytest.approx(direction.raw_norm, rel=1e-7)
    assert (found.layer, found.position, found.site) == (2, -3, "resid_pre")
    assert all(found.says(fact) for fact in ("layer", "site", "position", "raw norm"))
    (tmp_path / "direction_metadata.json").unlink()
    assert demur.load_direction(path).provenance[UNSAID] == ["layer", "site", "position"]


def test_a_view_of_a_larger_tensor_is_read_as_itself(tmp_path):
    """As select_direction.py saves it: torch.save writes the whole grid beside the view."""
    grid = torch.randn(5, 4, 16, dtype=torch.float64)
    torch.save(grid[-2, 1], tmp_path / "direction.pt")
    found = demur.load_direction(tmp_path / "direction.pt", layer=1, position=-2)
    assert torch.allclose(found.raw_vector(), grid[-2, 1], rtol=1e-6)


def test_mean_diffs_keeps_a_grid(tmp_path):
    grid = [made(layer, position, seed=10 * layer - position) for position in (-2, -1) for layer in (1, 2, 3)]
    path = demur.save_directions(reversed_order := list(reversed(grid)), tmp_path / "mean_diffs.pt")
    assert reversed_order[0] is grid[-1]
    stored = torch.load(path, weights_only=True)
    assert stored.shape == (2, 4, 16)
    assert stored.dtype == torch.float64
    assert not stored[:, 0].any()
    assert torch.equal(stored[-2, 3], grid[2].raw_vector())
    found = demur.load_directions(path)
    assert [(d.layer, d.position) for d in found] == [(d.layer, d.position) for d in grid]
    for one, other in zip(found, grid, strict=True):
        same_vector(one, other)
        assert one.says("position")
    assert demur.load_direction(path, layer=3, position=-2).vector.equal(found[2].vector)


@pytest.mark.parametrize("folder", ["", "generate_directions"])
def test_mean_diffs_follow_the_metadata_of_their_run(tmp_path, folder):
    grid = torch.randn(3, 4, 16, dtype=torch.float64)
    path = tmp_path / folder / "mean_diffs.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save(grid, path)
    with pytest.raises(InputError, match="holds 12 directions, of layer 0 to 3 and position -3 to -1; choose one"):
        demur.load_direction(path)
    (tmp_path / "direction_metadata.json").write_text('{"pos": -2, "layer": 3}')
    found = demur.load_direction(path)
    assert (found.layer, found.position) == (3, -2)
    assert torch.allclose(found.raw_vector(), grid[-2, 3], rtol=1e-6)
    assert demur.load_direction(path, layer=1, position=-1).layer == 1
    assert len(demur.load_directions(path, position=-3)) == 4


@pytest.mark.parametrize(("format", "file"), [("gguf", "v.gguf"), ("lm-eval", "v.pt")])
def test_one_vector_a_block_keeps_norms_and_points(tmp_path, format, file):
    written = [made(2, seed=1), made(2, site="resid_post", seed=2), made(9, seed=3)]
    path = demur.save_directions(written, tmp_path / file, format=format)
    found = demur.load_directions(path)
    assert [(d.layer, d.site) for d in found] == [(1, "resid_post"), (2, "resid_post"), (8, "resid_post")]
    for one, other in zip(found, written, strict=True):
        same_vector(one, other)
        same_point(one, other)
        assert one.provenance[UNSAID] == ["position"]
    assert demur.load_direction(path, layer=8).raw_norm == found[2].raw_norm
    assert demur.load_direction(path, layer=8, position=-1).says("position")
    with pytest.raises(InputError, match="holds 3 directions, of layer 1, 2, 8; choose one"):
        demur.load_direction(path)
    with pytest.raises(InputError, match="has no direction of layer 3; it has layer 1, 2, 8"):
        demur.load_direction(path, layer=3)


def test_an_ablation_file_keeps_the_unit_vector(tmp_path):
    direction = made(2)
    path = demur.save_directions([direction], tmp_path / "a.pt", format="lm-eval-ablation")
    found = demur.load_direction(path)
    assert torch.allclose(found.vector, direction.vector, rtol=2e-7, atol=1e-9)
    assert found.provenance[UNSAID] == ["layer", "site", "position", "raw norm"]
    assert (found.provenance["action"], found.provenance["modules"]) == ("ablation", 9)


def test_a_lost_fact_is_never_written_as_known(tmp_path):
    bare = demur.load_direction(demur.save_directions([made()], tmp_path / "bare.pt", format="post"))
    with pytest.raises(InputError, match=r"does not say its layer, which this format needs; give it with layer"):
        demur.save_directions([bare], tmp_path / "v.gguf")
    bare = demur.load_direction(tmp_path / "bare.pt", layer=3)
    with pytest.raises(InputError, match="does not say its raw norm"):
        demur.save_directions([bare], tmp_path / "v.gguf")
    vector = demur.load_direction(demur.save_directions([made()], tmp_path / "v.gguf"))
    with pytest.raises(InputError, match="does not say its position"):
        vector.save(tmp_path / "direction.pt")
    with pytest.raises(InputError, match=r"does not say its layer; say where to add it, with layers=\[...\]"):
        demur.add(demur.load_direction(tmp_path / "bare.pt"), 1.0)
    assert demur.add(demur.load_direction(tmp_path / "bare.pt"), 1.0, layers=[2]).layers == (2,)
    assert not (tmp_path / "direction.pt").exists()
    # demur's own file says that it was not known, too.
    again = demur.load_direction(vector.save(tmp_path / "v.safetensors"))
    assert not again.says("position")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_stored_dtypes(tmp_path, dtype):
    raw = torch.randn(16).to(dtype) * 5
    torch.save(raw, tmp_path / "d.pt")
    found = demur.load_direction(tmp_path / "d.pt")
    assert torch.allclose(found.raw_vector(), raw.double(), rtol=1e-6)
    assert found.provenance["stored dtype"] == str(dtype)
    assert found.says("raw norm")


@pytest.mark.parametrize(
    ("directions", "file", "format", "message"),
    [
        ([made(), made()], "d.safetensors", None, "holds one direction, but 2 were given"),
        ([made(), made()], "direction.pt", None, "holds one direction, but 2 were given"),
        ([made(), made(width=8, layer=3)], "v.gguf", None, r"widths \[8, 16\]"),
        ([], "v.gguf", None, "no direction to write"),
        ([made(site="resid_mid")], "v.gguf", None, "inside block 2; this format has only points between blocks"),
        ([made(1)], "v.gguf", None, "adds to the output of block 1 and later ones only"),
        ([made(2), made(1, site="resid_post")], "v.gguf", None, "are both of the output of block 1"),
        ([made(0)], "v.pt", "lm-eval", "adds to outputs of blocks only, not to the first block's input"),
        ([made(2), made(1, site="resid_post")], "v.pt", "lm-eval", "are both of the output of block 1"),
        ([made(provenance={})], "v.pt", "lm-eval", "do not say which family it is of; give the model_type"),
        ([made(provenance={})], "v.pt", "lm-eval-ablation", "do not say which family"),
        ([made(3, site="resid_post")], "direction.pt", None, "at the output of the last block"),
        ([made(position=0)], "direction.pt", None, "counts from the end"),
        ([made()], "other.pt", "arditi", "name the file direction.pt, not 'other.pt'"),
        ([made(3)], "mean_diffs.pt", None, "no direction of position -1 and layer 1 was given"),
        ([made(1), made(1)], "mean_diffs.pt", None, "two directions are of position -1 and layer 1"),
        ([made()], "d.pt", None, "'d.pt' could be post, arditi, mean-diffs, lm-eval, lm-eval-ablation; name one with"),
        ([made()], "d.npz", None, "no format of direction files ends like 'd.npz'"),
        ([made()], "d.gguf", "demur", "ends with .safetensors, not 'd.gguf'"),
        ([made()], "d.gguf", "guff", "not a format of direction files; did you mean 'gguf'"),
        ([made()], "folder.gguf", None, "is a folder"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_say_is_refused(tmp_path, directions, file, format, message):
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(InputError, match=message):
        demur.save_directions(directions, tmp_path / file, format=format)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.gguf"]


def test_a_family_that_no_one_knows(tmp_path):
    for family, message in {"lama": "transformers knows no model_type 'lama'", "bert": "no layout is known"}.items():
        with pytest.raises(InputError, match=message):
            demur.save_directions([made()], tmp_path / "v.pt", format="lm-eval", family=family)
    with pytest.raises(InputError, match="does not say how many its model has; give the number with n_layers"):
        demur.save_directions([made(provenance={})], tmp_path / "v.pt", format="lm-eval-ablation", family="llama")


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    for file in ("d.safetensors", "d.gguf", "direction.pt"):
        with pytest.raises(InputError, match="cannot be written"):
            made().save(tmp_path / "file" / file)
        (tmp_path / "folder" / file).mkdir(parents=True)
        with pytest.raises(InputError, match="cannot be written: it is a folder"):
            made().save(tmp_path / "folder" / file)
    with pytest.raises(InputError, match="at least one layer, not -3"):
        demur.save_directions([made()], tmp_path / "a.pt", format="lm-eval-ablation", n_layers=-3)


@pytest.mark.parametrize("file", ["d.safetensors", "d.gguf", "direction.pt"])
def test_a_full_disk_keeps_the_old_file(file, tmp_path, monkeypatch):
    path = made().save(tmp_path / file)
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(demur.WorkError, match="could not be written: No space left"):
        made(seed=1).save(path)
    assert (path.read_bytes(), list(tmp_path.glob("*.partial"))) == (before, [])


def test_guessed_formats():
    for file, expected in {
        "a.safetensors": "demur", "a.gguf": "gguf", "direction.pt": "arditi", "mean_diffs.pt": "mean-diffs",
    }.items():  # fmt: skip
        assert format_for(file) == expected
    assert all(format_for(f"a{entry.endings[0]}", name) == name for name, entry in FORMATS.items())


def test_an_extracted_direction_knows_its_model(checkpoint, tmp_path):
    from tests.tiny import HARMFUL, HARMLESS

    prompt = demur.prompt_format("native", checkpoint)
    direction = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=2)
    entries = torch.load(demur.save_directions([direction], tmp_path / "v.pt", format="lm-eval"), weights_only=True)
    assert list(entries) == ["layers.1"]
    assert np.isclose(entries["layers.1"]["steering_coefficient"], direction.raw_norm)
