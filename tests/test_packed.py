"""Packed weights: the same products up to rounding, only where a map is plain and float32 on a processor, and never stale."""

import gc
import json

import pytest
import torch
from torch import nn

from demur.engine.checkpoints import wrap
from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.models import memory_budget, prepacked_weights
from demur.models.families import layout_of
from demur.models.model_size import _of_config
from tests import reference
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 5, 9, 11], [1, 6, 7, 8]])
needs_packing = pytest.mark.skipif(not prepacked_weights.can_prepack("float32"), reason="torch has no oneDNN products here")
in_halves = pytest.mark.skipif(
    not prepacked_weights.can_prepack("bfloat16"), reason="no oneDNN products in bfloat16 on this processor"
)


@pytest.fixture(autouse=True)
def none_kept():
    prepacked_weights._kept.clear()


def logits(model, *, ahead=True):
    layout = layout_of(model.config)
    with torch.inference_mode():
        if not ahead:
            return model(IDS).logits
        with prepacked_weights.prepacked(model, layout):
            return model(IDS).logits


def linears(model):
    return [one for one in model.modules() if type(one) is nn.Linear]


@needs_packing
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_its_logits(family):
    # Families put scales and caps behind their heads, and biases into their maps.
    model = tiny_model(family)
    expected = logits(model, ahead=False)
    torch.testing.assert_close(logits(model), expected)
    # Routers and vision towers may be plain maps elsewhere; of the blocks and the head none is left out.
    inside = {m for block in layout_of(model.config).find_blocks(model) for m in block.modules() if type(m) is nn.Linear}
    assert set(prepacked_weights._kept) == inside | ({model.get_output_embeddings()} & set(linears(model)))
    assert len(prepacked_weights._kept) > 0


@in_halves
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "opt"])
def test_bfloat16_is_packed_where_the_processor_multiplies_it(family):
    model = tiny_model(family).to(torch.bfloat16)
    # Sums are rounded once in either way; where they are made in another order, by one unit in the last place.
    torch.testing.assert_close(logits(model), logits(model, ahead=False), rtol=2**-7, atol=0.02)
    assert {one.weight.dtype for one in prepacked_weights._kept.values()} == {torch.bfloat16}
    assert len(prepacked_weights._kept) > 0


@needs_packing
@pytest.mark.parametrize("shape", [(576, 9000), (9000, 576), (64, 64), (3, 1)])
def test_of_every_row_and_column_an_entry_is_compared(shape):
    one = nn.Linear(shape[1], shape[0])
    with torch.no_grad():
        one.weight.copy_(torch.arange(one.weight.numel()).reshape(shape))
    sample = prepacked_weights._sample(one).long()
    assert len(sample) == max(shape)
    assert set((sample // shape[1]).tolist()) == set(range(shape[0]))
    assert set((sample % shape[1]).tolist()) == set(range(shape[1]))


@needs_packing
@pytest.mark.parametrize("place", [(7, slice(None)), (slice(None), 11)])
def test_a_neuron_that_is_switched_off_through_data_is_seen(place):
    model = tiny_model("llama")
    before = logits(model)
    model.model.layers[1].mlp.down_proj.weight.data[place] = 0
    after = logits(model)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, logits(model, ahead=False))


@needs_packing
def test_shapes_that_maps_meet():
    torch.manual_seed(0)
    one = nn.Linear(24, 40)
    with torch.inference_mode():
        assert prepacked_weights._prepack([one])
        multiply = prepacked_weights._forward(one, prepacked_weights._kept[one].weight)
        for states in (torch.randn(3, 5, 24), torch.randn(5, 24, 3).transpose(1, 2), torch.randn(7, 48)[:, ::2], torch.randn(24)):
            torch.testing.assert_close(multiply(states), one(states))
        assert multiply(torch.empty(0, 24)).shape == (0, 40)
        wrong = torch.randn(3, 24)
        wrong[1, 2] = torch.nan
        assert torch.isnan(multiply(wrong)).all(1).tolist() == [False, True, False]


@needs_packing
@pytest.mark.parametrize("change", ["in place", "in place under inference", "another tensor", "through data"])
def test_changed_weights_are_packed_anew(change):
    model = tiny_model("llama")
    before = logits(model)
    weight = model.model.layers[1].mlp.down_proj.weight
    if change == "another tensor":
        model.model.layers[1].mlp.down_proj.weight = nn.Parameter(weight.detach() * 3)
    elif change == "through data":
        # As peft merges an adapter: neither place nor version changes.
        before_it = prepacked_weights._state(model.model.layers[1].mlp.down_proj)
        weight.data += torch.outer(torch.randn(weight.shape[0]), torch.randn(weight.shape[1]))
        assert prepacked_weights._state(model.model.layers[1].mlp.down_proj) == before_it
    else:
        with torch.inference_mode(change == "in place under inference"), torch.no_grad():
            weight.mul_(3)
    after = logits(model)
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, logits(model, ahead=False))


@needs_packing
def test_a_checkpoint_that_is_wrapped_anew_is_packed_anew():
    model = tiny_model("llama")
    before = logits(model)
    # One entry, and none that is compared.
    model.model.layers[1].mlp.down_proj.weight.data[0, 1] += 50.0
    wrap(model, tiny_tokenizer())
    after = logits(model)
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, logits(model, ahead=False))


@needs_packing
def test_weights_made_under_inference_mode_are_used_as_they_are():
    with torch.inference_mode():
        model = tiny_model("llama")
    torch.testing.assert_close(logits(model), logits(model, ahead=False))
    assert not prepacked_weights._kept


@needs_packing
def test_another_tensor_in_the_place_of_one_that_is_gone_is_packed():
    one = nn.Linear(8, 8)
    assert prepacked_weights._prepack([one])
    before = prepacked_weights._kept[one]
    # The same storage and version under another tensor, as if memory had been given out again.
    one.weight = nn.Parameter(one.weight.detach())
    assert prepacked_weights._state(one) == before.state
    assert prepacked_weights._prepack([one])
    assert prepacked_weights._kept[one] is not before


@needs_packing
def test_one_model_at_a_time_is_kept_and_goes_with_it():
    first, second = tiny_model("llama"), tiny_model("qwen2")
    logits(first)
    assert set(prepacked_weights._kept) == set(linears(first))
    logits(second)
    assert set(prepacked_weights._kept) == set(linears(second))
    del second
    gc.collect()
    assert len(prepacked_weights._kept) == 0


@needs_packing
def test_none_is_packed_where_two_models_are_at_work():
    model = tiny_model("llama")
    plain, packed = logits(model, ahead=False), logits(model)
    assert prepacked_weights._kept
    with prepacked_weights.as_stored():
        assert not prepacked_weights._kept
        assert torch.equal(logits(model), plain)
        assert not prepacked_weights._kept
    assert torch.equal(logits(model), packed)
    assert prepacked_weights._kept


@needs_packing
def test_what_little_memory_there_is_stays_free(monkeypatch):
    model = tiny_model("llama")
    needed = sum(one.weight.nbytes for one in linears(model))
    assert prepacked_weights.bytes_prepacked(needed // 4, "float32", "cpu") == needed
    assert prepacked_weights.bytes_prepacked(needed // 4, "bfloat16", "cpu") == (
        needed // 2 if prepacked_weights.can_prepack("bfloat16") else 0
    )
    assert (
        prepacked_weights.bytes_prepacked(needed // 4, "float16", "cpu")
        == prepacked_weights.bytes_prepacked(needed // 4, "float32", "cuda")
        == 0
    )
    monkeypatch.setattr(memory_budget, "free", lambda device: prepacked_weights.PART * needed - 1)
    assert prepacked_weights.bytes_prepacked(needed // 4, "float32", "cpu") == 0
    assert torch.equal(logits(model), logits(model, ahead=False))
    assert len(prepacked_weights._kept) == 0


def test_it_is_gone_after_an_error():
    model = tiny_model("llama")
    with pytest.raises(RuntimeError), torch.inference_mode(), prepacked_weights.prepacked(model, layout_of(model.config)):
        assert [("forward" in vars(one)) for one in linears(model)] == [prepacked_weights.can_prepack("float32")] * len(
            linears(model)
        )
        raise RuntimeError
    assert not any("forward" in vars(one) for one in linears(model))


@pytest.mark.parametrize("kind", ["float16", "float64", "moved by another", "another map"])
def test_other_maps_are_left_alone(kind):
    model = tiny_model("llama")
    head = model.get_output_embeddings()
    if kind in ("float16", "float64"):
        model.to(getattr(torch, kind))
    elif kind == "moved by another":
        head.forward = head.forward
    else:
        model.set_output_embeddings(nn.Sequential(head))
    before = model.get_output_embeddings().forward
    with torch.inference_mode(), prepacked_weights.prepacked(model, layout_of(model.config)):
        assert model.get_output_embeddings().forward == before
        if kind in ("float16", "float64"):
            assert not any("forward" in vars(one) for one in linears(model))


@pytest.mark.parametrize("ahead", [True, False])
def test_tokens_are_those_of_the_naive_loop_either_way(ahead, monkeypatch):
    monkeypatch.setattr(prepacked_weights, "can_prepack", lambda dtype: ahead and hasattr(torch.ops.mkldnn, "_linear_pointwise"))
    model = tiny_model("llama")
    prompts = [(1, *range(4, 4 + n)) for n in (2, 7, 3, 11)]
    expected = [reference.decode(model, list(prompt), reference.leave, 6) for prompt in prompts]
    assert decode_batch(model, layout_of(model.config), [Row(prompt) for prompt in prompts], Decoding(6)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_counts_what_is_packed(family):
    model = tiny_model(family)
    can = prepacked_weights.can_prepack("float32")
    modules = prepacked_weights._linear_modules(model, layout_of(model.config)) if can else []
    found = _of_config(json.loads(model.config.to_json_string(use_diff=False)))
    assert found.packable == sum(one.weight.numel() for one in modules) or not prepacked_weights.can_prepack("float32")
    assert 0 < found.packable <= found.blocks + found.head or family == "falcon"


def test_what_is_still_to_be_loaded_is_not_free(monkeypatch):
    monkeypatch.setattr(memory_budget, "free", lambda device: prepacked_weights.PART * 400 + 300)
    expected = 400 if prepacked_weights.can_prepack("float32") else 0
    assert prepacked_weights.bytes_prepacked(100, "float32", "cpu", still_to_load=300) == expected
    assert prepacked_weights.bytes_prepacked(100, "float32", "cpu", still_to_load=301) == 0
