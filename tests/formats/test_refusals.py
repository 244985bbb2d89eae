"""Files that are damaged, hostile or something else: refused in one sentence, before anything large is made of them."""

import json
import pickle
import struct
import tracemalloc
import zipfile

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import demur
from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.directions.files.load_and_save import load_direction, load_directions
from demur.directions.files.safetensors_file import from_bytes

GOOD = from_raw(torch.arange(1, 17.0), name="good", layer=2, provenance={"architecture": {"family": "llama", "layers": 4}})


def refused(path, message):
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as caught:
        load_directions(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self):
        return (print, ("never",))


def test_trap_26_pickles_are_never_run(tmp_path, capsys):
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save(Hostile(), tmp_path / "object.pt")
    torch.save({"layers.1": {"steering_vector": torch.ones(4), "action": Hostile()}}, tmp_path / "inside.pt")
    torch.save(torch.ones(4), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("raw.pt", "object.pt", "inside.pt", "old.pt"):
        refused(tmp_path / name, "cannot be read as plain tensors")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(4)], "holds a list, not a direction"),
        ({}, "steers nothing"),
        (torch.ones(3, 8), r"a tensor of shape \(3, 8\); expected one vector"),
        (torch.tensor(1.0), "a tensor of shape"),
        (torch.zeros(8), "zero or not finite"),
        (torch.ones(2, 2, 8), r"a tensor of shape \(2, 2, 8\); expected one vector .* say what the axes are with axes="),
        (torch.ones(12, 1, 8), r"a tensor of shape \(12, 1, 8\)"),
        (torch.full((8,), float("nan")), "not finite"),
        (torch.tensor([1.0, float("inf")]), "not finite"),
        (torch.ones(2, 2, 8).fill_(float("nan")), "not finite"),
        (torch.ones(8, dtype=torch.int64), "expected plain floating point"),
        (torch.ones(8, dtype=torch.complex64), "expected plain floating point"),
        (torch.ones(8).to_sparse(), "expected plain floating point"),
        (torch.ones(8, device="meta"), "expected plain floating point"),
        (torch.ones(1).expand(2**40), "more than the file holds"),
        (torch.ones(1, 1, 1).expand(2**20, 2**20, 8), "more than the file holds"),
        (torch.ones(0), "zero or not finite"),
    ],
)
def test_tensors_that_are_no_directions(tmp_path, content, message):
    torch.save(content, tmp_path / "d.pt")
    refused(tmp_path / "d.pt", message)


def steering(**changes):
    entry = {"steering_vector": torch.ones(8), "steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}
    return {"layers.1": {**entry, **changes}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(8)}, "a dict, but not one of steering vectors"),
        ({3: {"steering_vector": torch.ones(8), "action": "add"}}, "a dict, but not one of steering vectors"),
        (steering(action="multiply"), "action of 'layers.1' is 'multiply'; expected add or clamp"),
        (steering(steering_coefficient="2"), "coefficient of 'layers.1' is '2'"),
        (steering(steering_coefficient=True), "coefficient of 'layers.1' is True"),
        (steering(steering_coefficient=float("nan")), "coefficient of 'layers.1' is nan"),
        (steering(steering_coefficient=10**400), "coefficient of 'layers.1' is 1000"),
        (steering(steering_coefficient=0.0), "zero or not finite"),
        ({**steering(), "layers.2": steering(steering_vector=torch.ones(9))["layers.1"]}, r"directions of widths \[8, 9\]"),
        (steering(bias=torch.ones(8)), "has a bias"),
        (steering(head_index=0), "has a head_index"),
        (steering(steering_vector=torch.ones(3, 8)), r"has the shape \(3, 8\)"),
        (steering(steering_vector=[1.0]), "holds a list where a tensor is expected"),
        ({"layers.1.mlp": steering()["layers.1"]}, "steers the output of 'layers.1.mlp', which is not a block;"),
        ({"norm": steering(action="clamp")["layers.1"]}, "steers the output of 'norm'"),
    ],
)
def test_steering_files_that_hold_no_direction_of_the_stream(tmp_path, content, message):
    torch.save(content, tmp_path / "s.pt")
    refused(tmp_path / "s.pt", message)


def test_archives_that_unpack_to_more_than_they_are(tmp_path):
    torch.save(torch.zeros(2**25), tmp_path / "large.pt")
    with (
        zipfile.ZipFile(tmp_path / "large.pt") as large,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in large.namelist():
            bomb.writestr(name, large.read(name))
    (tmp_path / "large.pt").unlink()
    refused(tmp_path / "bomb.pt", "may unpack to far more than its size")


def test_a_refusal_is_all_that_is_said(tmp_path, recwarn):
    """torch warns of a pickle of an odd protocol before it gives up on it."""
    whole = GOOD.save(tmp_path / "direction.pt").read_bytes()
    assert whole.count(b"\x80\x02c") == 1
    (tmp_path / "odd.pt").write_bytes(whole.replace(b"\x80\x02c", b"\x80\x07\xff"))
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        load_direction(tmp_path / "odd.pt")
    assert not recwarn.list


@pytest.mark.parametrize("file", ["d.safetensors", "direction.pt", "v.gguf"])
def test_cut_short_or_empty(tmp_path, file):
    path = GOOD.save(tmp_path / file)
    whole = path.read_bytes()
    for length in (0, 3, 9, len(whole) // 2, len(whole) - 1 - (40 if file == "v.gguf" else 0)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_direction(path)


def header(**changes):
    facts = {"format": "demur-direction-1", "name": "d", "raw_norm": 1.0, "layer": 1, "position": -1, "site": "resid_pre"}
    return {"demur": json.dumps({**facts, "provenance": {}, **changes})}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"other": torch.ones(4)}, header(), "holds other, not a tensor 'direction'"),
        ({"direction": torch.ones(4)}, None, "not a tensor 'direction' with demur's metadata"),
        ({"direction": torch.ones(4)}, {"demur": "{"}, "demur's metadata, but it cannot be read"),
        ({"direction": torch.ones(4)}, {"demur": "[]"}, "demur's metadata, but it cannot be read"),
        ({"direction": torch.ones(4)}, header(format="demur-direction-9"), "demur-direction-9"),
        ({"direction": torch.ones(4)}, header(site="resid"), "site 'resid'"),
        ({"direction": torch.ones(4)}, header(layer="1"), "'layer' is missing or of a wrong kind"),
        ({"direction": torch.ones(4)}, header(layer=True), "'layer' is missing or of a wrong kind"),
        ({"direction": torch.ones(4)}, header(raw_norm=10**400), "'raw_norm' is missing or of a wrong kind"),
        ({"direction": torch.ones(4)}, header(provenance={"architecture": {"family": "llama", "layers": 10**9}}), "provenance"),
        ({"direction": torch.ones(4)}, header(raw_norm=None), "'raw_norm' is missing or of a wrong kind"),
        ({"direction": torch.ones(4)}, header(provenance={"not in the file": 3}), "'provenance' is missing or of a wrong kind"),
        ({"direction": torch.ones(4)}, header(provenance={"architecture": "llama"}), "'provenance' is missing or of a wrong"),
        ({"direction": torch.ones(4)}, header(provenance=[]), "'provenance' is missing or of a wrong kind"),
        ({"direction": torch.ones(4)}, header(), "must be a float32 unit vector"),
        ({"direction": torch.ones(1)}, header(raw_norm=float("nan")), "zero or not finite"),
        ({"direction": torch.full((4,), float("nan"))}, header(), "not finite"),
        ({"direction": torch.ones(2, 2)}, header(), r"has the shape \(2, 2\)"),
        ({"direction": torch.ones(4, dtype=torch.int32)}, header(), "expected plain floating point"),
    ],
)
def test_safetensors_that_are_no_directions(tmp_path, tensors, metadata, message):
    save_file(tensors, tmp_path / "d.safetensors", metadata=metadata)
    refused(tmp_path / "d.safetensors", message)
    with pytest.raises(InputError, match=message) as caught:
        from_bytes((tmp_path / "d.safetensors").read_bytes(), "the store")
    assert "'the store'" in str(caught.value) or "direction 'd'" in str(caught.value)


@pytest.mark.parametrize("cut", [0, 3, 9, 60, -1])
def test_bytes_cut_short(cut):
    whole = GOOD.to_bytes()
    with pytest.raises(InputError, match="'the store' is not a safetensors file"):
        from_bytes(whole[:cut], "the store")
    with pytest.raises(InputError, match="'the store' is not a safetensors file"):
        from_bytes(whole[:8] + b"x" * (len(whole) - 8), "the store")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not say pos and layer"),
        ("[]", "does not say pos and layer"),
        ('{"pos": -1}', "does not say pos and layer"),
        ('{"pos": 1, "layer": 3}', "expected a layer from 0 and a position below 0"),
        ('{"pos": -1, "layer": "3"}', "expected a layer from 0 and a position below 0"),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path, text, message):
    torch.save(torch.ones(4, dtype=torch.float64), tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_direction(tmp_path / "direction.pt")


def test_mean_diffs_of_zeros(tmp_path):
    torch.save(torch.zeros(2, 2, 8), tmp_path / "mean_diffs.pt")
    refused(tmp_path / "mean_diffs.pt", "holds only zeros")


def test_metadata_that_names_what_is_not_there(tmp_path):
    torch.save(torch.randn(2, 3, 8, dtype=torch.float64), tmp_path / "mean_diffs.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -5, "layer": 1}')
    with pytest.raises(InputError, match="has no direction of position -5; it has position -2, -1"):
        load_direction(tmp_path / "mean_diffs.pt")


def control_vector(path, tensors, architecture="controlvector"):
    writer = gguf.GGUFWriter(path, architecture)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ONES = np.ones(32, dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no direction"),
        ({"direction.x": ONES}, "holds the tensor 'direction.x'"),
        ({"direction.-1": ONES}, "holds the tensor 'direction.-1'"),
        ({"direction.1": ONES, "token_embd.weight": ONES}, "holds the tensor 'token_embd.weight'"),
        ({"direction.1": ONES.reshape(4, 8)}, r"direction.1 has the shape \(4, 8\)"),
        ({"direction.1": ONES, "direction.2": ONES[:8]}, r"directions of widths \[8, 32\]"),
        ({"direction.1": ONES.astype(np.int32)}, "expected plain floating point"),
        ({"direction.1": 0 * ONES}, "zero or not finite"),
        ({"direction.1": ONES * np.float32("nan")}, "not finite"),
    ],
)
def test_control_vectors_that_are_none(tmp_path, tensors, message):
    refused(control_vector(tmp_path / "v.gguf", tensors), message)


def test_other_gguf_files(tmp_path):
    path = control_vector(tmp_path / "model.gguf", {"direction.1": ONES}, architecture="llama")
    refused(path, "of architecture 'llama', not of control vectors")
    (tmp_path / "text.gguf").write_text("GGUF is a format")
    refused(tmp_path / "text.gguf", "cannot be read as a GGUF file")


def test_gguf_files_that_claim_more_than_they_hold(tmp_path):
    """An array of 2**60 numbers, a text of 2**60 letters, 2**60 entries, a tensor of 2**60 numbers: each in a hundred bytes."""
    magic = b"GGUF" + struct.pack("<I", 3)
    key = struct.pack("<Q", 1) + b"k"
    tensor = struct.pack("<Q", 11) + b"direction.1" + struct.pack("<IQIQ", 1, 2**60, 0, 0)
    kind = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 13) + b"controlvector"
    for claim in (
        struct.pack("<QQ", 0, 1) + key + struct.pack("<IIQ", 9, 4, 2**60),
        struct.pack("<QQ", 0, 1) + key + struct.pack("<IQ", 8, 2**60),
        struct.pack("<QQ", 0, 2**60) + kind,
        struct.pack("<QQ", 1, 1) + kind + tensor,
        struct.pack("<QQ", 0, 1) + key + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000,
    ):
        (tmp_path / "claim.gguf").write_bytes(magic + claim)
        refused(tmp_path / "claim.gguf", "cannot be read as a GGUF file: (Value|Index|Recursion)Error")


def test_missing_files_and_folders(tmp_path):
    for name in ("missing.safetensors", "missing.pt", ""):
        with pytest.raises(InputError, match="there is no direction file"):
            demur.load_direction(tmp_path / name)
    (tmp_path / "text.safetensors").write_text("no")
    refused(tmp_path / "text.safetensors", "not a safetensors file")
