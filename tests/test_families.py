"""The registry: what is refused and why, how a family is added, and language models inside models that also see."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

import demur
from demur.core.errors import InputError
from demur.engine.checkpoints import load_checkpoint, wrap
from demur.engine.site_proof import prove_sites
from demur.models import families
from demur.models.families import layout_of
from tests.tiny import FAMILIES, TOWERS, tiny_config, tiny_model, tiny_tokenizer
from tests.traps.common import PROMPT, direction, plain

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
ASKED = (
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi", "phi3",
    "olmo", "olmo2", "stablelm", "gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "mpt", "starcoder2", "granite",
    "cohere", "cohere2", "glm4", "smollm3", "gpt_oss",
)  # fmt: skip


def test_every_registered_family_is_tested():
    tested = {tiny_config(family).model_type for family in FAMILIES + TOWERS}
    # A text config under a model that also sees is tested with it; PaliGemma is there to be refused.
    inside = {"qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "mllama_text_model", "paligemma"}
    assert set(families.families()) - inside == tested
    assert set(ASKED) <= tested


def test_the_page_names_every_family():
    page = PAGE.read_text(encoding="utf-8")
    assert [family for family in families.families() if f"`{family}`" not in page] == []


def test_an_unknown_family_is_named_with_the_way_out():
    with pytest.raises(InputError, match=r"'lama' \(did you mean 'llama'\?\); .*demur\.families\.register.*docs/families\.md"):
        layout_of(type("Config", (), {"model_type": "lama"})())
    with pytest.raises(InputError, match="no layout is known for the architecture 'mamba'"):
        wrap(tiny_model("mamba", state_size=4), tiny_tokenizer())


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("opt", {"do_layer_norm_before": False}, "normalises the stream after each branch.*opt-350m"),
        ("opt-projected", {"do_layer_norm_before": False}, "normalises the stream after each branch"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "adds its branches to the normalised stream"),
        ("bloom", {"pretraining_tp": 2, "slow_but_exact": True}, "slow_but_exact=False"),
    ],
)
def test_blocks_without_a_residual_stream_are_refused(family, changes, message):
    with pytest.raises(InputError, match=message):
        layout_of(tiny_config(family, **changes))


def test_paligemma_is_refused():
    with pytest.raises(InputError, match="both directions"):
        layout_of(AutoConfig.for_model("paligemma"))


def test_a_tower_of_an_unknown_family_is_refused():
    config = tiny_config("llava")
    config.text_config = AutoConfig.for_model("mamba")
    with pytest.raises(InputError, match="architecture 'mamba'"):
        layout_of(config)


def test_the_documented_example_adds_a_family(monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    monkeypatch.setattr(families, "_ADDED", {})
    model = tiny_model("arcee")
    with pytest.raises(InputError, match="'arcee'"):
        layout_of(model.config)
    exec(example, {})
    prove_sites(model, layout_of(model.config))
    with demur.steer(model, demur.ablate(direction())):
        assert (plain(model) - plain(tiny_model("arcee"))).abs().max() > 1e-3


def test_a_registered_tower(monkeypatch):
    monkeypatch.setattr(families, "_TOWERS", {})
    monkeypatch.setattr(families, "_ADDED_TOWERS", {})
    model = tiny_model("llava")
    with pytest.raises(InputError, match="'llava'"):
        layout_of(model.config)
    families.register_tower("llava", "model.language_model")
    prove_sites(model, layout_of(model.config))


@pytest.mark.parametrize("family", TOWERS)
def test_checkpoints_that_also_see_load_from_a_folder(family, tmp_path):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = load_checkpoint(str(tmp_path))
    assert found.n_layers == 3
    assert found.d_model == 32
    assert torch.allclose(plain(found.model), plain(model), rtol=1e-4, atol=1e-4)


def test_an_image_that_reaches_cross_attention_is_refused():
    model = tiny_model("mllama")
    states = torch.randn(1, 4, 32)
    mask = torch.ones(1, len(PROMPT), 1, 1, dtype=torch.long)
    with pytest.raises(InputError, match="an image reached a block"), demur.steer(model, demur.ablate(direction())):
        model(input_ids=torch.tensor([PROMPT]), cross_attention_mask=mask, cross_attention_states=states)


def test_weights_are_counted_before_they_are_read(tmp_path):
    from demur.models.model_size import size_of
    from demur.models.sources import find_model

    for family in ("llama", "llava", "mllama"):
        model = tiny_model(family)
        model.save_pretrained(tmp_path / family)
        tiny_tokenizer().save_pretrained(tmp_path / family)
        size = size_of(find_model(str(tmp_path / family)))
        assert size is not None
        assert size.total == sum(weight.numel() for weight in model.parameters())


def test_a_family_from_outside_is_added_and_removed():
    config = SimpleNamespace(model_type="unheard-of", get_text_config=lambda: SimpleNamespace(model_type="llama"))
    with pytest.raises(InputError, match="no layout is known for the architecture 'unheard-of'"):
        layout_of(config)
    without_text = SimpleNamespace(model_type="unheard-of")
    without_text.get_text_config = lambda: without_text
    own = demur.Layout("unheard-of", "model.stack", "mix", "ff")
    demur.families.register("unheard-of", lambda _: own)
    try:
        assert layout_of(config) is own
        assert "unheard-of" in demur.families.families()
    finally:
        demur.families.unregister("unheard-of")
    demur.families.register_tower("unheard-of", "inner.text")
    try:
        assert layout_of(config).blocks == "inner.text.layers"
        with pytest.raises(InputError, match="its config has no text config"):
            layout_of(without_text)
        demur.families.register("unheard-of", lambda _: own)
        assert layout_of(config) is own
    finally:
        demur.families.unregister("unheard-of")
    assert "unheard-of" not in demur.families.families()
    demur.families.register("llama", lambda _: own)
    assert layout_of(SimpleNamespace(model_type="llama")) is own
    demur.families.unregister("llama")
    assert layout_of(SimpleNamespace(model_type="llama")).blocks == "model.layers"
