"""Where a weight edit equals ablation by hooks, and where it does not."""

import pytest
import torch

from demur.core.errors import InputError, WorkError
from demur.directions.direction import from_raw
from demur.engine.checkpoints import wrap
from demur.measurements.weight_equivalence import equivalence
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

NORMED = ("bloom", "gemma2", "gemma3_text", "glm4", "olmo2")
"""A norm stands behind each branch, in BLOOM behind the embedding."""


def _direction(width=32):
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(1)), name="d", layer=1)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "opt-projected"])
def test_trap_07_equal_in_pre_norm_families_only(family):
    checkpoint = wrap(tiny_model(family), tiny_tokenizer())
    before = {name: weight.clone() for name, weight in checkpoint.model.named_parameters()}
    found = equivalence(checkpoint, _direction())
    assert found.effect > 0.1
    if family in NORMED:
        assert found.left > 0.05
        assert found.untied > 0.1
        assert "norm with a gain" in found.explanation
    else:
        assert found.left < 1e-6
        assert found.untied < 1e-4
        if found.tied is not None:
            assert found.tied > 0.01
            assert "unembedding" in found.explanation
    assert found.holds == (family not in NORMED and found.tied is None)
    assert all(torch.equal(weight, before[name]) for name, weight in checkpoint.model.named_parameters())


def test_unknown_writers_are_refused(checkpoint):
    import copy

    model = copy.deepcopy(checkpoint.model)
    for block in model.model.layers:
        block.mlp.renamed = block.mlp.down_proj
        block.mlp.forward = lambda x, mlp=block.mlp: mlp.renamed(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))
        del block.mlp.down_proj
    with pytest.raises(WorkError, match="block 0"):
        equivalence(wrap(model, checkpoint.tokenizer), _direction())


def test_an_embedding_of_another_width_is_refused():
    with pytest.raises(WorkError, match="embedding of width 16"):
        equivalence(wrap(tiny_model("opt-projected"), tiny_tokenizer()), _direction())


def test_another_width_is_refused(checkpoint):
    with pytest.raises(InputError, match="width 16"):
        equivalence(checkpoint, _direction(16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_that_are_rounded_by_more_than_is_looked_for_are_refused(dtype):
    checkpoint = wrap(tiny_model("llama").to(dtype), tiny_tokenizer())
    with pytest.raises(InputError, match="load the weights in float32"):
        equivalence(checkpoint, _direction())
