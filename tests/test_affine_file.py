"""The file of an affine edit: the same bits, the same tokens, and what is refused."""

import pytest
import torch
from safetensors.torch import save_file

import demur
from demur.core.errors import InputError
from demur.engine.checkpoints import wrap
from tests.test_affine import direction, random_means
from tests.test_several_directions import THREE
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def checkpoint():
    return wrap(tiny_model("llama"), tiny_tokenizer(), name="llama")


def edits(checkpoint):
    harmless, harmful = (
        demur.stream_means(checkpoint, texts[:4], "USER {instruction} ASSISTANT :", label=label)
        for label, texts in (("harmless", HARMLESS), ("harmful", HARMFUL))
    )
    return [
        demur.affine(direction(), to=harmless),
        demur.affine(direction(), to=harmful, layers=[1, 2], sites=["resid_mid"], positions="prompt"),
        demur.affine(demur.subspace(THREE, name="mine"), to=harmless),
    ]


@pytest.mark.parametrize("number", range(3))
def test_the_file_keeps_every_bit(checkpoint, tmp_path, number):
    made = edits(checkpoint)[number]
    path = demur.save_affine(made, tmp_path / "new" / "edit.safetensors")
    read = demur.load_affine(path, width=checkpoint.d_model, n_layers=checkpoint.n_layers)
    assert (read.kind, read.layers, read.sites, read.positions, read.settings) == (
        made.kind, made.layers, made.sites, made.positions, made.settings
    )  # fmt: skip
    for one, other in zip(read.artefacts, made.artefacts, strict=True):
        assert torch.equal(one.vector, other.vector)
        assert (one.name, one.layer, one.raw_norm, one.provenance) == (other.name, other.layer, other.raw_norm, other.provenance)
    mine, its = (one.facts.means(made.settings.to) for one in (read, made))
    assert torch.equal(mine.mean, its.mean)
    assert torch.equal(mine.mean_norm, its.mean_norm)
    assert (mine.points, mine.position, mine.count, mine.provenance) == (its.points, its.position, its.count, its.provenance)
    assert demur.save_affine(read, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    rows = demur.generate(checkpoint, HARMFUL[:2], "USER {instruction} ASSISTANT :", [None, made, read], max_new_tokens=4)
    assert [row.token_ids for row in rows[1]] == [row.token_ids for row in rows[2]]
    assert number == 1 or [row.token_ids for row in rows[0]] != [row.token_ids for row in rows[1]]


def test_an_edit_that_does_not_fit_the_model_is_refused(checkpoint, tmp_path):
    whole, some, _ = edits(checkpoint)
    path = demur.save_affine(whole, tmp_path / "whole.safetensors")
    for fits, said in (
        ({"width": 64}, "is of width 32, and the model's stream has width 64"),
        ({"n_layers": 2}, "has means up to layer 3, where a model of 2 layers"),
        ({"n_layers": 4}, "has means up to layer 3, where a model of 4 layers"),
    ):
        with pytest.raises(InputError, match=said):
            demur.load_affine(path, **fits)
    with pytest.raises(InputError, match="a model of 2 layers"):
        demur.load_affine(demur.save_affine(some, tmp_path / "some.safetensors"), n_layers=2)


def test_other_edits_and_other_files_are_refused(checkpoint, tmp_path):
    whole = edits(checkpoint)[0]
    gate = demur.Gate(direction(), 0.0)
    for made, said in (
        (demur.ablate(direction()), "not one of kind 'ablate'"),
        (demur.ablate(demur.subspace(THREE)), "not one of kind 'subspace'"),
        (demur.affine(direction()), "needs the target's mean activations over harmless"),
        (demur.when(whole, gate), "the gate of an edit cannot be stored"),
    ):
        with pytest.raises(InputError, match=said):
            demur.save_affine(made, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="ends with .safetensors, not to 'x.pt'"):
        demur.save_affine(whole, tmp_path / "x.pt")
    save_file({"direction": torch.ones(3)}, tmp_path / "bare.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors", encoding="utf-8")
    for path, said in (
        (direction().save(tmp_path / "d.safetensors"), "holds no affine edit that this version reads"),
        (tmp_path / "bare.safetensors", "holds no affine edit"),
        (tmp_path / "text.safetensors", "is not a safetensors file"),
        (tmp_path / "none.safetensors", "there is no file"),
    ):
        with pytest.raises(InputError, match=said):
            demur.load_affine(path)


def test_a_damaged_file_is_refused(tmp_path):
    from safetensors import safe_open

    means = random_means(wrap(tiny_model("llama"), tiny_tokenizer(), name="llama").layout)
    path = demur.save_affine(demur.affine(direction(), to=means), tmp_path / "whole.safetensors")
    with safe_open(path, framework="pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    for name, changed, said in (
        ("mean", tensors["mean"][1:], "not one mean for each of its points"),
        ("mean", tensors["mean"][:, :8], "different widths"),
        ("direction.0", None, "different widths or numbers"),
    ):
        kept = {**tensors, name: changed}
        save_file({key: one.contiguous() for key, one in kept.items() if one is not None}, tmp_path / "d.safetensors", header)
        with pytest.raises(InputError, match=said):
            demur.load_affine(tmp_path / "d.safetensors")
