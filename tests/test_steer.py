"""`demur.steer` on a plain transformers model: what `generate` offers, with the edits and nothing left behind."""

import copy

import pytest
import torch
from transformers import CompileConfig, GenerationConfig

import demur
from demur.core.errors import InputError, WorkError
from demur.directions.direction import from_raw
from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.model_state import state_of
from demur.models.families import layout_of
from tests.tiny import HARMFUL, tiny_model

PROMPTS = torch.tensor([[1, 5, 9, 30], [1, 40, 41, 7]])
SETTINGS = {"attention_mask": torch.ones_like(PROMPTS), "pad_token_id": 0, "eos_token_id": None, "max_new_tokens": 5}


def direction():
    return from_raw(torch.randn(32, generator=torch.Generator().manual_seed(5)), name="d", layer=1)


def expected(model, edit):
    rows = [Row(tuple(row), edit) for row in PROMPTS.tolist()]
    return decode_batch(model, layout_of(model.config), rows, Decoding(5))


SHAPES = ("bloom", "cohere2", "falcon", "gemma2", "gpt2", "gpt_oss", "granite", "llama", "mpt", "opt", "qwen2_vl", "gemma3")


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_generate_equals_demurs_own(family, positions):
    model = tiny_model(family)
    edit = demur.add(direction(), 40.0, positions=positions)
    rows = expected(model, edit)
    for use_cache in (True, False):
        with demur.steer(model, edit):
            assert model.generate(PROMPTS, do_sample=False, use_cache=use_cache, **SETTINGS)[:, 4:].tolist() == rows
    assert rows != expected(model, None)


STATIC = tuple(family for family in SHAPES if family not in ("falcon", "mpt"))
"""transformers gives Falcon and MPT no static cache."""


@pytest.mark.parametrize("family", STATIC)
@pytest.mark.parametrize("positions", ["all", "generated"])
def test_static_cache(family, positions):
    model, edit = tiny_model(family), demur.add(direction(), 12.0, positions=positions)
    with demur.steer(model, edit):
        found = model.generate(PROMPTS, do_sample=False, cache_implementation="static", **SETTINGS)[:, 4:].tolist()
    assert found == expected(model, edit)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_sampling_draws_what_an_edited_model_would(positions):
    model, edit = tiny_model("llama"), demur.add(direction(), 6.0, positions=positions)
    found = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        with demur.steer(model, edit):
            settings = {**SETTINGS, "num_return_sequences": 3, "use_cache": use_cache}
            found.append(model.generate(PROMPTS, do_sample=True, top_p=0.9, temperature=1.5, **settings).tolist())
    torch.manual_seed(0)
    with torch.no_grad():
        plain = model.generate(PROMPTS, do_sample=True, top_p=0.9, temperature=1.5, num_return_sequences=3, **SETTINGS).tolist()
    assert len(found[0]) == 6
    assert found[0] == found[1] != plain


def test_one_token_at_a_time_by_hand():
    model, edit = tiny_model("llama"), demur.add(direction(), 6.0, positions="generated")
    rows = [list(row) for row in PROMPTS.tolist()]
    with demur.steer(model, edit), torch.no_grad():
        output = model(PROMPTS)
        for _ in range(5):
            token = output.logits[:, -1].argmax(-1)
            rows = [[*row, int(new)] for row, new in zip(rows, token, strict=True)]
            output = model(token[:, None], past_key_values=output.past_key_values)
    assert [row[4:] for row in rows] == expected(model, edit)


def test_where_the_prompt_ends_is_not_guessed():
    model, everywhere = tiny_model("llama"), demur.add(direction(), 6.0)
    scoped = demur.add(direction(), 6.0, positions="generated")
    with torch.no_grad():
        foreign = model(PROMPTS[:, :2]).past_key_values
    for edit, width in ((scoped, 1), (scoped, 2), (everywhere, 2)):
        cache = copy.deepcopy(foreign)
        if edit is scoped:
            with pytest.raises(InputError, match="where the prompt ends"), demur.steer(model, edit), torch.no_grad():
                model(PROMPTS[:, 2 : 2 + width], past_key_values=cache)
        else:
            with demur.steer(model, edit), torch.no_grad():
                model(PROMPTS[:, 2 : 2 + width], past_key_values=cache)
    with pytest.raises(InputError, match="where the prompt ends"), demur.steer(model, scoped):
        model.generate(PROMPTS, do_sample=False, prefill_chunk_size=2, **SETTINGS)
    # A last piece of one token would look like a token that was generated.
    with pytest.raises(InputError, match="where the prompt ends"), demur.steer(model, scoped):
        model.generate(PROMPTS, do_sample=False, prefill_chunk_size=3, **SETTINGS)
    with demur.steer(model, everywhere):
        chunked = model.generate(PROMPTS, do_sample=False, prefill_chunk_size=2, **SETTINGS)[:, 4:].tolist()
    assert chunked == expected(model, everywhere)


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


def test_an_outer_edit_of_the_middle_of_a_block_sees_an_inner_one_at_its_input():
    model, one = tiny_model("llama"), direction()
    inner = demur.add(one, 5.0)
    outer = demur.ablate(one, layers=[1], sites=["resid_mid"])
    with torch.no_grad():
        with demur.steer(model, outer), demur.steer(model, inner):
            nested = model(PROMPTS).logits
        with demur.steer(model, inner, outer):
            together = model(PROMPTS).logits
    assert torch.allclose(nested, together, atol=1e-5)


def test_a_model_that_was_steered_is_copied_and_saved_without_its_state(tmp_path):
    model, edit = tiny_model("llama"), demur.add(direction(), 4.0)
    with torch.no_grad():
        with demur.steer(model, edit):
            changed = model(PROMPTS).logits
        plain = model(PROMPTS).logits
        torch.save(model, tmp_path / "model.pt")
        assert b"demur" not in (tmp_path / "model.pt").read_bytes().replace(b"_demur_state", b"")
        for one in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
            assert state_of(one) is not state_of(model)
            assert torch.equal(one(PROMPTS).logits, plain)
            with demur.steer(one, edit):
                assert torch.equal(one(PROMPTS).logits, changed)
                assert torch.equal(model(PROMPTS).logits, plain)
    assert not state_of(model).block_inputs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"assistant_model": tiny_model("llama", seed=1)}, "assistant_model drafts tokens"),
        ({"prompt_lookup_num_tokens": 2}, "prompt_lookup_num_tokens drafts tokens"),
        ({"generation_config": GenerationConfig(prompt_lookup_num_tokens=2)}, "prompt_lookup_num_tokens drafts tokens"),
        ({"assistant_early_exit": 1}, "assistant_early_exit drafts tokens"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha replaces the decoding loop"),
        ({"dola_layers": "low"}, "dola_layers replaces the decoding loop"),
        ({"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, "num_beam_groups replaces the decoding loop"),
        ({"custom_generate": "owner/loop"}, "custom_generate replaces the decoding loop"),
        ({"custom_generate": lambda *_, **__: None}, "custom_generate replaces the decoding loop"),
        ({"cache_implementation": "paged"}, "continuous batching packs several sequences"),
    ],
)
def test_ways_of_decoding_that_are_refused(settings, message):
    model = tiny_model("llama")
    with pytest.raises(InputError, match=message), demur.steer(model, demur.ablate(direction())):
        model.generate(PROMPTS, **{**SETTINGS, **settings})
    # The model's own settings count as much as the call's.
    own = {name: value for name, value in settings.items() if hasattr(model.generation_config, name)}
    if own and "generation_config" not in settings:
        model.generation_config.update(**own)
        with pytest.raises(InputError, match=message), demur.steer(model, demur.ablate(direction())):
            model.generate(PROMPTS, **SETTINGS)


def test_the_assistant_cannot_be_steered_either():
    model, assistant = tiny_model("llama"), tiny_model("llama", seed=1)
    with pytest.raises(InputError, match="assistant_model"), demur.steer(assistant, demur.ablate(direction())):
        assistant.generate(PROMPTS, assistant_model=model, **SETTINGS)


def test_continuous_batching_is_refused():
    model = tiny_model("llama")
    with pytest.raises(InputError, match="continuous batching"), demur.steer(model, demur.ablate(direction())):
        model.generate_batch(PROMPTS.tolist())
    assert "generate_batch" not in vars(model)


def test_guidance_is_for_edits_at_all_positions():
    model, settings = tiny_model("llama"), {**SETTINGS, "guidance_scale": 1.5, "negative_prompt_ids": PROMPTS[:, :3]}
    with demur.steer(model, demur.add(direction(), 6.0)):
        model.generate(PROMPTS, do_sample=False, **settings)
    edit = demur.add(direction(), 6.0, positions="generated")
    with pytest.raises(InputError, match="guidance_scale runs a second prompt"), demur.steer(model, edit):
        model.generate(PROMPTS, do_sample=False, **settings)


def test_compiled_models_are_refused():
    edit = demur.ablate(direction())
    compiled_in_place, compiled_forward, compiled_block = tiny_model("llama"), tiny_model("llama"), tiny_model("llama")
    compiled_in_place.compile()
    compiled_forward.forward = torch.compile(compiled_forward.forward)
    compiled_block.model.layers[1] = torch.compile(compiled_block.model.layers[1])
    for model in (torch.compile(tiny_model("llama")), compiled_in_place, compiled_forward, compiled_block):
        with pytest.raises(InputError, match="is compiled"), demur.steer(model, edit):
            pass
    for model in (compiled_in_place, compiled_block):
        with pytest.raises(InputError, match="is compiled"):
            expected(model, edit)


def test_generate_does_not_compile_inside(monkeypatch):
    model, edit = tiny_model("llama"), demur.ablate(direction())
    config = CompileConfig(backend="eager")
    config._compile_all_devices = True
    settings = {**SETTINGS, "do_sample": False, "cache_implementation": "static", "compile_config": config}
    compiled = []
    monkeypatch.setattr(model, "get_compiled_call", lambda config: compiled.append(config) or model.__call__)
    plain = model.generate(PROMPTS, **settings)[:, 4:].tolist()
    assert len(compiled) == 1
    with demur.steer(model, edit):
        found = model.generate(PROMPTS, **settings)[:, 4:].tolist()
    assert len(compiled) == 1
    assert found == expected(model, edit) != plain


def test_edits_that_met_no_forward_pass_are_an_error():
    model = tiny_model("llama")
    with pytest.raises(WorkError, match="no forward pass"), demur.steer(model, demur.ablate(direction())):
        tiny_model("llama")(PROMPTS)


def test_generate_is_the_models_own_again():
    model = tiny_model("llama")
    own = model.generate
    with pytest.raises(KeyboardInterrupt), demur.steer(model, demur.ablate(direction())):
        assert model.generate is not own
        with demur.steer(model, demur.ablate(direction())):
            model.generate(PROMPTS, **SETTINGS)
        model.generate(PROMPTS, **SETTINGS)
        raise KeyboardInterrupt
    assert "generate" not in vars(model)
    model.generate = own
    with demur.steer(model, demur.ablate(direction())):
        model.generate(PROMPTS, **SETTINGS)
    assert vars(model)["generate"] is own


def test_refusals():
    model = tiny_model("llama")
    narrow = from_raw(torch.randn(16), name="narrow", layer=0)
    with pytest.raises(InputError, match="width 16, but"), demur.steer(model, demur.ablate(narrow)):
        pass
    with pytest.raises(InputError, match="at least one edit"), demur.steer(model):
        pass
    with pytest.raises(InputError, match="mean residual norm"), demur.steer(model, demur.add(direction(), 1.0, unit="residual")):
        pass


@pytest.mark.parametrize("edits", [lambda d: demur.ablate(d), lambda d: demur.add(d, 4.0, sites=("resid_pre", "resid_mid"))])
def test_demurs_own_verbs_work_inside(edits, checkpoint):
    outer = edits(direction())
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    inner = [None, demur.add(direction(), 3.0, layers=[2])]
    expected = demur.generate(checkpoint, HARMFUL, prompt, [outer, (outer, inner[1])], max_new_tokens=5)
    plain = demur.capture(checkpoint, HARMFUL, prompt)
    with demur.steer(checkpoint.model, outer):
        assert demur.generate(checkpoint, HARMFUL, prompt, inner, max_new_tokens=5) == expected
        seen = demur.capture(checkpoint, HARMFUL, prompt)
        early = demur.capture(checkpoint, HARMFUL, prompt, layers=[1])
    assert not torch.allclose(seen[:, 2], plain[:, 2], atol=1e-2)
    assert torch.equal(early[:, 0], seen[:, 1])
    if outer.kind == "ablate":
        assert (seen[:, 2] @ outer.direction.vector).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_an_inner_edit_of_a_blocks_input_is_seen_by_an_outer_one_behind_attention(family):
    model = tiny_model(family)
    outer, inner = demur.ablate(direction()), demur.add(direction(), 7.0, layers=[1])
    expected = reference_logits(model, outer, inner)
    with demur.steer(model, outer), demur.steer(model, inner):
        assert torch.allclose(model(PROMPTS).logits, expected, atol=1e-5)
    assert not torch.allclose(reference_logits(model, outer), expected, atol=1e-2)


def test_a_pass_that_failed_and_was_made_again_is_no_error():
    model, edit = tiny_model("llama"), demur.ablate(direction())
    expected = reference_logits(model, edit)
    broken = model.model.layers[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with demur.steer(model, edit):
        with pytest.raises(torch.OutOfMemoryError):
            model(PROMPTS)
        broken.remove()
        assert torch.allclose(model(PROMPTS).logits, expected, atol=1e-5)


def test_a_pass_of_a_part_of_the_model_does_not_take_the_last_ones_columns():
    model = tiny_model("llama")
    with demur.steer(model, demur.add(direction(), 9.0, positions="generated")):
        model.generate(PROMPTS, **SETTINGS)
        with pytest.raises(InputError, match="where the prompt ends"):
            model.model(PROMPTS)


def reference_logits(model, *edits):
    with demur.steer(model, *edits):
        return model(PROMPTS).logits
