"""What a GGUF file states about its model is applied or refused by name: logits equal those of the model that was written."""

import json
import math

import gguf
import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.models import gguf_files
from tests.gguf_writing import byte_level, sized, write

TOKENIZER = byte_level()
SIZE = TOKENIZER.get_vocab_size()
IDS = torch.tensor([list(range(5, 45))])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


def same(path, model):
    got = demur.load_checkpoint(str(path), device="cpu").model
    with torch.no_grad():
        torch.testing.assert_close(got(IDS).logits, model(IDS).logits, atol=1e-4, rtol=1e-4)
    return got


def scaled(kind, factor, *more):
    def change(writer):
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(factor)
        for key, value in more:
            (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(key, value)

    return change


LINEAR, YARN = gguf.RopeScalingType.LINEAR, gguf.RopeScalingType.YARN
FREQUENCIES = [1.0, 1.5, 4.0, 8.0]
SHORT, LONG = [1.0, 1.1, 1.3, 1.5], [1.0, 2.0, 4.0, 8.0]
WINDOWS = ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]
EXPERTS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 24}
BASE = {"rope_theta": 1e4}


def rope(**settings):
    return {"rope_parameters": BASE | settings}


def keys(architecture, **values):
    def change(writer):
        for key, value in values.items():
            name = f"{architecture}.{key.replace('__', '.')}"
            add = {
                bool: writer.add_bool,
                int: writer.add_uint32,
                float: writer.add_float32,
                str: writer.add_string,
                list: writer.add_array,
            }
            add[type(value)](name, value)

    return change


FILES = {
    "plain": ("llama", "llama", {}, {}),
    "heads of another width": ("llama", "llama", {"head_dim": 16}, {}),
    "biases": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}, {}),
    "own unembedding": ("llama", "llama", {"tie_word_embeddings": False}, {}),
    "linear": ("llama", "llama", rope(rope_type="linear", factor=4.0), {"change": scaled(LINEAR, 4.0)}),
    # A factor without a type, and the key of older files.
    "factor alone": ("llama", "llama", rope(rope_type="linear", factor=4.0), {"change": keys("llama", rope__scaling__factor=4.0)}),
    "old factor": ("llama", "llama", rope(rope_type="linear", factor=4.0), {"change": keys("llama", rope__scale_linear=4.0)}),
    "switched off": ("llama", "llama", {}, {"change": scaled(gguf.RopeScalingType.NONE, 4.0)}),
    "no base": ("llama", "llama", {}, {"without": ("rope.freq_base",)}),
    "yarn": (
        "qwen2", "qwen2", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32),
        {"change": scaled(YARN, 4.0, ("qwen2.rope.scaling.original_context_length", 32))},
    ),
    "yarn with betas": (
        "llama", "llama",
        rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=16.0, beta_slow=2.0, attention_factor=1.5),
        {"change": scaled(
            YARN, 4.0, ("llama.rope.scaling.original_context_length", 32), ("llama.rope.scaling.yarn_beta_fast", 16.0),
            ("llama.rope.scaling.yarn_beta_slow", 2.0),
            ("llama.rope.scaling.yarn_attn_factor", 1.5 / (0.1 * math.log(4.0) + 1.0)),
        )},
    ),
    "longrope": (
        "phi3", "phi3",
        {"original_max_position_embeddings": 32, **rope(
            rope_type="longrope", short_factor=SHORT, long_factor=LONG, attention_factor=1.2, original_max_position_embeddings=32)},
        {"tensors": {"rope_factors_short.weight": SHORT, "rope_factors_long.weight": LONG},
         "change": keys("phi3", rope__scaling__original_context_length=32, rope__scaling__attn_factor=1.2)},
    ),
    "part of a head": ("phi3", "phi3", rope(rope_type="default", partial_rotary_factor=0.5), {}),
    "phi3 window": ("phi3", "phi3", {"sliding_window": 4}, {"change": keys("phi3", attention__sliding_window=4)}),
    "qwen3": ("qwen3", "qwen3", {"head_dim": 16}, {}),
    "gemma2": (
        "gemma2", "gemma2", {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 15.0, "query_pre_attn_scalar": 16},
        {"change": keys("gemma2", attention__sliding_window=4, attn_logit_softcapping=20.0, final_logit_softcapping=15.0, attention__scale=0.25)},
    ),
    "gemma3": (
        "gemma3_text", "gemma3",
        {"num_hidden_layers": 7, "layer_types": WINDOWS, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}},
        {"change": keys("gemma3", attention__sliding_window=4, rope__scaling__type="linear", rope__scaling__factor=8.0)},
    ),
    "gemma3 by layer": (
        "gemma3_text", "gemma3",
        {"layer_types": [WINDOWS[0], "full_attention", WINDOWS[0]], "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6}, "sliding_attention": {"rope_type": "default", "rope_theta": 5e3}}},
        {"change": keys(
            "gemma3", attention__sliding_window=4, attention__sliding_window_pattern=[True, False, True], rope__freq_base_swa=5e3)},
    ),
    "gpt2": ("gpt2", "gpt2", {}, {}),
    "stablelm": ("stablelm", "stablelm", {"use_qkv_bias": True}, {}),
    "stablelm parallel": ("stablelm", "stablelm", {"use_parallel_residual": True}, {}),
    "starcoder2": ("starcoder2", "starcoder2", rope(rope_type="default", rope_theta=5e5), {}),
    "falcon": ("falcon", "falcon", {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True}, {}),
    "bloom": ("bloom", "bloom", {}, {}),
    "qwen2moe": ("qwen2_moe", "qwen2moe", {}, {"change": keys("qwen2moe", **EXPERTS, expert_shared_feed_forward_length=24)}),
    "qwen3moe": ("qwen3_moe", "qwen3moe", {"norm_topk_prob": True}, {"change": keys("qwen3moe", **EXPERTS)}),
    # Keys that are there and change nothing.
    "neutral": (
        "llama", "llama", {},
        {"change": keys("llama", attention__causal=True, logit_scale=1.0, expert_count=0, attention__scale=8**-0.5, attention__sliding_window=128)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", FILES)
def test_logits_are_those_of_the_model_that_was_written(which, tmp_path):
    family, architecture, settings, written = FILES[which]
    model = sized(family, SIZE, **settings)
    same(write(tmp_path / "model.gguf", model, TOKENIZER, architecture, **written), model)


def test_a_kind_of_bias_that_no_layer_has_is_zero_and_one_that_some_lack_is_missing(tmp_path):
    model = sized("llama", SIZE)
    twin = sized("llama", SIZE, attention_bias=True)
    twin.load_state_dict(
        model.state_dict() | {name: torch.zeros_like(one) for name, one in twin.state_dict().items() if "bias" in name}
    )
    with torch.no_grad():
        for layer in twin.model.layers:
            layer.self_attn.v_proj.bias.fill_(0.5)
    values = {f"blk.{block}.attn_v.bias": [0.5] * 16 for block in range(3)}
    same(write(tmp_path / "model.gguf", model, TOKENIZER, tensors=values), twin)
    values.popitem()
    with pytest.raises(InputError, match=r"lacks 1 weights, such as 'model.layers.2.self_attn.v_proj.bias'"):
        gguf_files.convert(write(tmp_path / "less.gguf", model, TOKENIZER, tensors=values))


def test_the_divisors_of_llama_3_are_applied(tmp_path):
    model = sized("llama", SIZE)
    path = write(tmp_path / "model.gguf", model, TOKENIZER, tensors={"rope_freqs.weight": FREQUENCIES})
    rotary = model.model.rotary_emb
    plain = model(IDS).logits
    rotary.inv_freq.div_(torch.tensor(FREQUENCIES))
    same(path, model)
    assert (plain - model(IDS).logits).abs().max() > 0.1


@pytest.mark.parametrize(("layers", "scalar"), [(3, 8), (46, 16)])
def test_the_largest_gemma_is_scaled_by_its_width_over_its_heads(layers, scalar, tmp_path):
    settings = {
        "num_hidden_layers": layers,
        "head_dim": 8,
        "num_attention_heads": 2 if layers == 46 else 4,
        "query_pre_attn_scalar": scalar,
    }
    model = sized("gemma2", SIZE, attn_logit_softcapping=50.0, final_logit_softcapping=30.0, **settings)
    same(write(tmp_path / "model.gguf", model, TOKENIZER, "gemma2", change=keys("gemma2", attention__sliding_window=4)), model)


REFUSED = {
    "attention__clamp_kqv": (8.0, "states 'llama.attention.clamp_kqv' = 8.0, which demur cannot apply"),
    "attention__scale": (0.5, "attention.scale"),
    "attention__causal": (False, "attention.causal"),
    "attention__value_length": (4, "attention.value_length"),
    "attention__sliding_window": (4, "attention.sliding_window"),
    "attn_logit_softcapping": (30.0, "attn_logit_softcapping"),
    "final_logit_softcapping": (30.0, "final_logit_softcapping"),
    "logit_scale": (0.25, "logit_scale"),
    "embedding_scale": (12.0, "embedding_scale"),
    "residual_scale": (0.22, "residual_scale"),
    "expert_count": (8, "expert_count"),
    "pooling_type": (1, "pooling_type"),
    "rope__dimension_sections": ([16, 24, 24, 0], "rope.dimension_sections"),
    "rope__scaling__type": ("dynamic", "known are none, linear, yarn, longrope"),
    "rope__scaling__attn_factor": (1.5, "rope.scaling.attn_factor"),
    "never_heard_of": (1, "never_heard_of"),
    "vocab_size": (7, f"its embedding has {SIZE} rows"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_cannot_be_applied_is_refused_by_name(key, tmp_path):
    value, expected = REFUSED[key]
    path = write(tmp_path / "model.gguf", sized("llama", SIZE), TOKENIZER, change=keys("llama", **{key: value}))
    with pytest.raises(InputError) as error:
        gguf_files.convert(path)
    assert expected in str(error.value)
    assert not any((tmp_path / "cache").rglob("config.json"))


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"blk.0.attn_q_norm.weight": [1.0] * 8}, "'blk.0.attn_q_norm.weight'"),
        ({"blk.0.attn_sinks.weight": [1.0] * 4, "output.bias": [1.0]}, "holds 2 tensors"),
        ({"rope_freqs.weight": [1.0] * 3}, "with 3 numbers; 4 are expected"),
        ({"rope_factors_long.weight": LONG}, "the file lacks the key 'rope.scaling.original_context_length'"),
    ],
)
def test_a_tensor_without_a_place_is_refused_by_name(tensors, expected, tmp_path):
    path = write(tmp_path / "model.gguf", sized("llama", SIZE), TOKENIZER, tensors=tensors)
    with pytest.raises(InputError) as error:
        gguf_files.convert(path)
    assert expected in str(error.value)


def test_a_turned_part_that_the_family_cannot_compute_is_refused(tmp_path):
    path = write(
        tmp_path / "model.gguf", sized("llama", SIZE), TOKENIZER, without=("rope.dimension_count",), change=keys("llama", rope__dimension_count=4)
    )  # fmt: skip
    with pytest.raises(InputError, match=r"rope.dimension_count' = 4, and heads are 8 wide"):
        gguf_files.convert(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("general.type", "adapter", "it is a LoRA adapter; give the model's file, and the adapter as a PEFT folder"),
        ("general.type", "mmproj", "reads images"),
        ("adapter.type", "lora", "it is a LoRA adapter"),
        ("split.count", 3, "is part 1 of 3, and one whole file is expected"),
    ],
)
def test_a_file_that_is_no_whole_model_is_refused(key, value, expected, tmp_path):
    def change(writer):
        (writer.add_string if isinstance(value, str) else writer.add_uint16)(key, value)

    path = write(tmp_path / "model.gguf", sized("llama", SIZE), TOKENIZER, change=change)
    with pytest.raises(InputError) as error:
        gguf_files.convert(path)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "expected"), [("qwen4", "did you mean 'qwen3'"), ("controlvector", "give it as a direction")]
)
def test_an_architecture_that_is_not_converted_is_refused(architecture, expected, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", architecture)
    writer.add_tensor("direction.1", torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=expected):
        gguf_files.convert(tmp_path / "model.gguf")


def test_a_folder_of_an_older_conversion_is_not_used(tmp_path, monkeypatch):
    model = sized("llama", SIZE)
    path = write(tmp_path / "model.gguf", model, TOKENIZER, change=scaled(LINEAR, 4.0))
    monkeypatch.setattr(gguf_files, "CONVERSION", gguf_files.CONVERSION - 1)
    old = gguf_files.convert(path)
    monkeypatch.undo()
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    assert gguf_files.convert(path) != old


def test_every_stated_end_of_an_answer_stops_it(tmp_path):
    path = write(
        tmp_path / "model.gguf", sized("llama", SIZE), TOKENIZER,
        change=lambda writer: (writer.add_eot_token_id(7), writer.add_uint32("tokenizer.ggml.eom_token_id", 8)),
    )  # fmt: skip
    stored = json.loads((gguf_files.convert(path) / "generation_config.json").read_text(encoding="utf-8"))
    assert stored["eos_token_id"] == [2, 7, 8]
