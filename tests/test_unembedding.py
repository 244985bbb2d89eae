"""The head in pieces: the same bits, only where it is a plain float32 map on a processor, and gone afterwards."""

import pytest
import torch
from torch import nn

from demur import unembedding
from demur.unembedding import in_pieces
from tests.tiny import FAMILIES, tiny_model

IDS = torch.tensor([[1, 5, 9, 11], [1, 6, 7, 8]])


def with_large_head(family, width=2500, bias=False):
    """A tiny model whose vocabulary is no multiple of a piece."""
    model = tiny_model(family)
    head = nn.Linear(model.get_output_embeddings().in_features, width, bias=bias)
    model.set_output_embeddings(head)
    return model, head


@pytest.fixture
def products(monkeypatch):
    """Widths of the products inside."""
    seen = []
    for name in ("mm", "addmm"):
        plain = getattr(torch, name)

        def counted(*inputs, plain=plain, out=None):
            seen.append(out.shape[1])
            return plain(*inputs, out=out)

        monkeypatch.setattr(torch, name, counted)
    return seen


@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_the_same_to_the_last_bit(bias, products):
    torch.manual_seed(0)
    model, _ = with_large_head("llama", bias=bias)
    with torch.inference_mode():
        expected = model(IDS).logits
        assert products == []
        with in_pieces(model):
            found = model(IDS).logits
    assert products == [1024, 1024, 452]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_its_logits(family, monkeypatch):
    # Families put scales and caps behind their heads.
    monkeypatch.setattr(unembedding, "PIECE", 40)
    model = tiny_model(family)
    with torch.inference_mode():
        expected = model(IDS).logits
        with in_pieces(model):
            assert torch.equal(model(IDS).logits, expected)


def test_it_is_gone_after_an_error():
    model, head = with_large_head("llama")
    with pytest.raises(RuntimeError), in_pieces(model):
        assert "forward" in vars(head)
        raise RuntimeError
    assert "forward" not in vars(head)


@pytest.mark.parametrize("kind", ["bfloat16", "moved by another", "another map"])
def test_other_heads_are_left_alone(kind):
    model, head = with_large_head("llama")
    if kind == "bfloat16":
        model.to(torch.bfloat16)
    elif kind == "moved by another":
        head.forward = head.forward
    else:
        model.set_output_embeddings(nn.Sequential(head))
    before = model.get_output_embeddings().forward
    with in_pieces(model):
        assert model.get_output_embeddings().forward == before
