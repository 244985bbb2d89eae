"""`demur.steer` on a plain transformers model: what `generate` offers, with the edits and nothing left behind."""

import pytest
import torch

import demur
from demur.directions import from_raw
from demur.errors import InputError
from demur.families import layout_of
from demur.generation import Decoding, Row, decode_batch
from tests.tiny import tiny_model

PROMPTS = torch.tensor([[1, 5, 9, 30], [1, 40, 41, 7]])
SETTINGS = {"attention_mask": torch.ones_like(PROMPTS), "pad_token_id": 0, "eos_token_id": None, "max_new_tokens": 5}


def direction():
    return from_raw(torch.randn(32, generator=torch.Generator().manual_seed(5)), name="d", layer=1)


def expected(model, edit):
    rows = [Row(tuple(row), edit) for row in PROMPTS.tolist()]
    return decode_batch(model, layout_of(model.config), rows, Decoding(5))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_generate_equals_demurs_own(family, use_cache, positions):
    model = tiny_model(family)
    edit = demur.add(direction(), 6.0, positions=positions)
    with demur.steer(model, edit):
        found = model.generate(PROMPTS, do_sample=False, use_cache=use_cache, **SETTINGS)[:, 4:].tolist()
    assert found == expected(model, edit)
    assert found != expected(model, None)


def test_static_cache():
    model, edit = tiny_model("llama"), demur.ablate(direction())
    with demur.steer(model, edit):
        found = model.generate(PROMPTS, do_sample=False, cache_implementation="static", **SETTINGS)[:, 4:].tolist()
    assert found == expected(model, edit)


def test_two_prompts_in_one_context_are_two_prompts():
    model, edit = tiny_model("llama"), demur.add(direction(), 6.0, positions="prompt")
    with demur.steer(model, edit):
        first = model.generate(PROMPTS, do_sample=False, use_cache=False, **SETTINGS)[:, 4:].tolist()
        second = model.generate(PROMPTS, do_sample=False, use_cache=True, **SETTINGS)[:, 4:].tolist()
    assert first == second == expected(model, edit)


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_longer_prompt_that_begins_alike_is_a_new_prompt(use_cache):
    model, edit = tiny_model("llama"), demur.add(direction(), 6.0, positions="prompt")
    second = torch.cat((PROMPTS, torch.tensor([[8, 30, 12], [9, 6, 50]])), dim=1)
    settings = {**SETTINGS, "do_sample": False, "use_cache": use_cache}
    with demur.steer(model, edit):
        fresh = model.generate(second, **{**settings, "attention_mask": torch.ones_like(second)}).tolist()
    with demur.steer(model, edit):
        model.generate(PROMPTS, **{**settings, "attention_mask": torch.ones_like(PROMPTS)})
        again = model.generate(second, **{**settings, "attention_mask": torch.ones_like(second)}).tolist()
    assert again == fresh


def test_the_model_is_as_it_was():
    model = tiny_model("llama")
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    before = expected(model, None)
    with demur.steer(model, demur.ablate(direction())), torch.no_grad():
        model(PROMPTS)
    assert expected(model, None) == before
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_a_peft_model_is_steered_inside():
    from peft import LoraConfig, get_peft_model

    model, edit = tiny_model("llama"), demur.ablate(direction())
    rows = expected(model, edit)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).eval()
    with demur.steer(wrapped, edit):
        assert wrapped.generate(input_ids=PROMPTS, do_sample=False, **SETTINGS)[:, 4:].tolist() == rows


def test_nested_contexts_act_both():
    model, one = tiny_model("llama"), direction()
    two = from_raw(torch.randn(32, generator=torch.Generator().manual_seed(6)), name="e", layer=2)
    with torch.no_grad():
        with demur.steer(model, demur.add(one, 2.0)), demur.steer(model, demur.add(two, 3.0)):
            nested = model(PROMPTS).logits
        with demur.steer(model, demur.add(one, 2.0), demur.add(two, 3.0)):
            together = model(PROMPTS).logits
    assert torch.allclose(nested, together, atol=1e-5)


def test_refusals():
    model = tiny_model("llama")
    narrow = from_raw(torch.randn(16), name="narrow", layer=0)
    with pytest.raises(InputError, match="width 16, but"), demur.steer(model, demur.ablate(narrow)):
        pass
    with pytest.raises(InputError, match="at least one edit"), demur.steer(model):
        pass
    with pytest.raises(InputError, match="compiled"), demur.steer(torch.compile(model), demur.ablate(direction())):
        pass
    with pytest.raises(InputError, match="mean residual norm"), demur.steer(model, demur.add(direction(), 1.0, unit="residual")):
        pass
