"""Tensors of several vectors: their axes are said by the file's name, by its run's metadata, or by the caller."""

import json

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from tests.tiny import tiny_model

LAYERS, POSITIONS, WIDTH = 4, 3, 16
GRID = torch.randn(POSITIONS, LAYERS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def saved(path, tensor):
    torch.save(tensor, path)
    return path


def places(found):
    return {(direction.position, direction.layer): direction for direction in found}


@pytest.mark.parametrize("place", ["mean_diffs.pt", "generate_directions/mean_diffs.pt", "other.pt"])
def test_the_name_or_the_metadata_of_the_run_say_the_axes(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    if place != "mean_diffs.pt":
        (tmp_path / "direction_metadata.json").write_text('{"pos": -2, "layer": 1}')
    found = places(demur.load_directions(saved(tmp_path / place, GRID)))
    assert sorted(found) == [(p, n) for p in range(-POSITIONS, 0) for n in range(LAYERS)]
    assert torch.allclose(found[-2, 1].raw_vector(), GRID[-2, 1], rtol=1e-6)


ORDERS = {
    "position,layer,d_model": GRID,
    "layer,position,d_model": GRID.permute(1, 0, 2),
    "d_model,layer,position": GRID.permute(2, 1, 0),
    "position, layer, 1, d_model": GRID[:, :, None],
}


@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_axes_that_are_said(tmp_path, axes, dtype):
    path = saved(tmp_path / "grid.pt", ORDERS[axes].to(dtype).clone().requires_grad_())
    with pytest.raises(InputError, match=r"holds a tensor of shape .* say what the axes are with axes=..., or in demur convert"):
        demur.load_directions(path)
    found = places(demur.load_directions(path, axes=axes))
    assert sorted(found) == [(p, n) for p in range(-POSITIONS, 0) for n in range(LAYERS)]
    for (position, layer), direction in found.items():
        assert torch.allclose(direction.raw_vector(), GRID[position, layer].to(dtype).double(), rtol=1e-6)
        assert (direction.site, direction.says("layer"), direction.says("position")) == ("resid_pre", True, True)
    one = demur.load_direction(path, axes=axes, layer=2, position=-3)
    assert torch.equal(one.vector, found[-3, 2].vector)


@pytest.mark.parametrize(
    ("axes", "tensor", "layers", "site"),
    [
        ("layer,d_model", GRID[0], range(LAYERS), "resid_pre"),
        ("d_model,layer", GRID[0].T, range(LAYERS), "resid_pre"),
        ("layer,1,d_model", GRID[0][:, None], range(LAYERS), "resid_pre"),
        ("layer_output,d_model", GRID[0], range(LAYERS), "resid_post"),
        ("hidden_state,d_model", torch.cat([GRID[0], torch.ones(1, WIDTH)]), range(LAYERS), "resid_pre"),
    ],
)
def test_one_vector_a_layer(tmp_path, axes, tensor, layers, site):
    found = demur.load_directions(saved(tmp_path / "grid.pt", tensor), axes=axes)
    assert [direction.layer for direction in found] == list(layers)
    assert {(direction.site, direction.says("position")) for direction in found} == {(site, False)}
    assert all(torch.allclose(direction.raw_vector(), GRID[0][direction.layer], rtol=1e-6) for direction in found)


def test_positions_alone_leave_the_layer_open(tmp_path):
    found = demur.load_directions(saved(tmp_path / "grid.pt", GRID[:, 1]), axes="position,d_model")
    assert [direction.position for direction in found] == [-3, -2, -1]
    assert {(direction.says("layer"), direction.says("site")) for direction in found} == {(False, False)}


def test_vectors_of_zeros_are_left_out_and_unit_vectors_have_no_norm(tmp_path):
    grid = torch.nn.functional.normalize(GRID[0], dim=-1)
    grid[1] = 0
    found = demur.load_directions(saved(tmp_path / "grid.pt", grid), axes="layer,d_model")
    assert [direction.layer for direction in found] == [0, 2, 3]
    assert not any(direction.says("raw norm") for direction in found)
    with pytest.raises(InputError, match="has no direction of layer 1; it has layer 0, 2, 3"):
        demur.load_directions(tmp_path / "grid.pt", axes="layer,d_model", layer=1)


@pytest.mark.parametrize("shape", [(1, WIDTH), (WIDTH, 1), (1, 1, WIDTH)])
def test_one_vector_with_axes_of_length_one(tmp_path, shape):
    direction = demur.load_direction(saved(tmp_path / "one.pt", GRID[0, 0].reshape(shape)), layer=2)
    assert torch.allclose(direction.raw_vector(), GRID[0, 0], rtol=1e-6)
    assert direction.layer == 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("layer,d_model", r"holds a tensor of shape \(3, 4, 16\), which does not have the axes layer, d_model"),
        ("1,layer,d_model", "does not have the axes 1, layer, d_model"),
        ("layers,position,d_model", "'layers' is not the name of an axis; did you mean 'layer'?"),
        ("layer,layer,d_model", "have layer twice"),
        ("layer,position,1", "must have d_model, and may have one of"),
        ("layer,hidden_state,d_model", "must have d_model, and may have one of"),
    ],
)
def test_axes_that_are_not_those_of_the_tensor(tmp_path, axes, message):
    with pytest.raises(InputError, match=message):
        demur.load_directions(saved(tmp_path / "grid.pt", GRID), axes=axes)


@pytest.mark.parametrize(
    "content", [torch.zeros(2, 2, 8), torch.full((2, 2, 8), float("nan")), torch.ones(2, 2, 8, dtype=torch.int64)]
)
def test_tensors_that_hold_no_vectors(tmp_path, content):
    with pytest.raises(InputError, match="holds only zeros|not finite|expected plain floating point"):
        demur.load_directions(saved(tmp_path / "grid.pt", content), axes="layer,position,d_model")


def test_axes_are_for_tensors(tmp_path):
    path = demur.load_direction(saved(tmp_path / "one.pt", GRID[0, 0]), layer=1).save(tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="axes are for tensors in .pt files, so leave them out"):
        demur.load_directions(path, axes="layer,d_model")
    with pytest.raises(InputError, match="holds vectors by number; say what the numbers are"):
        demur.load_directions(saved(tmp_path / "dict.pt", {3: torch.ones(4)}))


@pytest.mark.parametrize(
    ("layers", "advice"),
    [(12, "its axes may be in another order"), (4, "the entry after the last block may be included; say axes with hidden_state")],
)
def test_a_grid_of_another_number_of_layers_is_refused_where_it_is_used(tmp_path, layers, advice):
    model = tiny_model("llama")
    n_layers, width = model.config.num_hidden_layers, model.config.hidden_size
    assert n_layers == 3
    grid = torch.randn(1, layers, width)
    loaded = demur.load_direction(saved(tmp_path / "mean_diffs.pt", grid), layer=1)
    stored = demur.load_direction(loaded.save(tmp_path / "kept.safetensors"))
    for direction in (loaded, stored):
        for edit in (demur.ablate(direction), demur.add(direction, 1.0)):
            with (
                pytest.raises(InputError, match=f"comes from a tensor with {layers} layers, and this model has 3; {advice}"),
                demur.steer(model, edit),
            ):
                pass
    fitting = demur.load_direction(saved(tmp_path / "mean_diffs.pt", grid[:, :3]), layer=1)
    with demur.steer(model, demur.ablate(fitting)):
        model(torch.tensor([[1, 2]]))


def test_convert_takes_axes(tmp_path):
    path = saved(tmp_path / "grid.pt", GRID[0][:, None])
    given = ["convert", str(path), "--axes", "layer,1,d_model", "--layer", "2", "--out", str(tmp_path / "d.safetensors")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert demur.load_direction(tmp_path / "d.safetensors").layer == 2
    result = CliRunner().invoke(app, ["directions", str(path), "--axes", "layer,1,d_model"])
    assert len(result.stdout.splitlines()) == 2 * LAYERS
    result = CliRunner().invoke(app, ["directions", str(path)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("d.npy", "is a NumPy array, not a direction file"),
        ("d.npz", "is an archive of NumPy arrays"),
        ("d.json", "is JSON"),
        ("d.svec", "is a steering vector of activation-steering, in JSON"),
        ("d.pkl", "is a Python pickle, which is never opened"),
        ("d.bin", "if torch.save wrote it, rename it to end with .pt"),
        ("d.csv", "is a table in text"),
        ("D.NPY", "is a NumPy array"),
    ],
)
def test_files_of_other_kinds_have_a_sentence_of_their_own(tmp_path, name, kind):
    (tmp_path / name).write_bytes(json.dumps([1.0, 2.0]).encode())
    with pytest.raises(InputError, match=kind) as caught:
        demur.load_direction(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["d.pt", "d.safetensors", "d.gguf"])
def test_pointers_and_web_pages_are_named(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="is a pointer of Git LFS"):
        demur.load_direction(tmp_path / name)
    (tmp_path / name).write_text("<!DOCTYPE html><html>")
    with pytest.raises(InputError, match="is a web page"):
        demur.load_direction(tmp_path / name)


def test_vectors_by_number_and_in_lists_are_read_by_the_axes_that_are_said(tmp_path):
    vectors = {3: torch.tensor([3.0, 4.0]), 1: torch.tensor([0.0, 2.0])}
    torch.save(vectors, tmp_path / "dict.pt")
    found = demur.load_directions(tmp_path / "dict.pt", axes="layer_output,d_model")
    assert [(one.name, one.layer, one.site, one.raw_norm) for one in found] == [
        ("dict.1", 1, "resid_post", 2.0),
        ("dict.3", 3, "resid_post", 5.0),
    ]
    assert not found[0].says("position")
    assert torch.equal(found[1].vector, torch.tensor([0.6, 0.8]))
    (inputs,) = demur.load_directions(tmp_path / "dict.pt", axes="hidden_state,d_model", layer=3)
    assert inputs.site == "resid_pre"
    torch.save([torch.eye(2)[:1] * 2, torch.eye(2)[1:] * 3], tmp_path / "list.pt")
    listed = demur.load_directions(tmp_path / "list.pt", axes="layer,1,d_model")
    assert [(one.layer, one.raw_norm) for one in listed] == [(0, 2.0), (1, 3.0)]


@pytest.mark.parametrize(
    ("content", "axes", "said"),
    [
        ({3: torch.ones(2)}, None, "holds vectors by number; say what the numbers are with axes="),
        ({3: torch.ones(2)}, "d_model", "holds vectors by number; say what the numbers are"),
        ({3: torch.ones(2, 2)}, "layer,d_model", r"a tensor of shape \(2, 2\) for the number 3"),
        ({-1: torch.ones(2)}, "layer,d_model", "for the number -1; expected a vector"),
        ([torch.ones(2), torch.ones(3)], "layer,d_model", r"tensors of shapes \[\(2,\), \(3,\)\]; expected tensors of one shape"),
        ([torch.ones(2)], None, "holds a list, not a direction.*say the axes of its tensors"),
        ([torch.ones(2), 3], "layer,d_model", "holds a int where a tensor is expected"),
    ],
)
def test_lists_and_dicts_that_are_no_directions_are_refused(tmp_path, content, axes, said):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=said):
        demur.load_directions(tmp_path / "x.pt", axes=axes)
