"""Sites prove themselves: right layouts pass, broken ones are caught and named."""

from dataclasses import replace

import pytest
import torch

from demur.core.errors import InputError, WorkError
from demur.engine.checkpoints import wrap
from demur.engine.site_proof import prove_sites
from demur.models.families import layout_of
from demur.models.layouts import Layout
from tests.tiny import FAMILIES, PARALLEL, SEQUENTIAL, TOWERS, tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("family", "dtype"),
    [(family, torch.float32) for family in FAMILIES + TOWERS] + [(family, torch.bfloat16) for family in FAMILIES],
)
def test_every_registered_family_passes(family, dtype):
    model = tiny_model(family, dtype=dtype)
    layout = layout_of(model.config)
    assert layout.family == model.config.model_type
    assert layout.parallel == (family in (*PARALLEL, "aya_vision"))
    prove_sites(model, layout)


def broken(family, **changes):
    model = tiny_model(family)
    prove_sites(model, replace(layout_of(model.config), **changes))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention": "post_attention_layernorm"}),
        ("llama", {"attention": "input_layernorm"}),
        ("llama", {"mlp": "self_attn"}),
        ("llama", {"mlp": "mlp.act_fn", "attention": "mlp"}),
        ("llama", {"multiplier": 0.5}),
        ("granite", {"multiplier": 1.0}),
        ("gemma2", {"attention": "self_attn"}),
        ("gemma2", {"mlp": "mlp"}),
        ("gemma2", {"mlp": "pre_feedforward_layernorm"}),
        ("gemma3_text", {"attention": "self_attn"}),
        ("gemma3", {"mlp": "mlp"}),
        ("glm4", {"attention": "self_attn", "mlp": "mlp"}),
        ("olmo2", {"attention": "self_attn"}),
        ("gpt2", {"attention": "ln_2"}),
        ("gpt_neox", {"mlp": "input_layernorm"}),
        ("bloom", {"attention": "self_attention"}),
        ("falcon", {"mlp": "input_layernorm"}),
        ("opt", {"mlp": "final_layer_norm"}),
        ("mixtral", {"mlp": "post_attention_layernorm"}),
    ],
)
def test_wrong_branches_are_caught(family, changes):
    with pytest.raises(WorkError, match=r"layer 0 of .* (do not sum|gives \(|did not run)"):
        broken(family, **changes)


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_sequential_blocks_declared_parallel_are_caught(family):
    with pytest.raises(WorkError, match="does read what attention.* says its branches are parallel"):
        broken(family, parallel=True)


@pytest.mark.parametrize("family", PARALLEL)
def test_parallel_blocks_declared_sequential_are_caught(family):
    with pytest.raises(WorkError, match="does not read what attention.* says its branches are sequential"):
        broken(family, parallel=False)


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_branches_that_changed_places_are_caught(family):
    right = layout_of(tiny_model(family).config)
    with pytest.raises(WorkError, match=r"does not read what attention.* its branches are sequential|gives \(12, 32\)"):
        broken(family, attention=right.mlp, mlp=right.attention)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "changes"), [("gemma2", {"attention": "self_attn"}), ("llama", {"parallel": True})])
def test_broken_layouts_are_caught_in_low_precision(family, changes, dtype):
    model = tiny_model(family, dtype=dtype)
    with pytest.raises(WorkError, match="does not describe it"):
        prove_sites(model, replace(layout_of(model.config), **changes))


def test_wrong_blocks_are_caught():
    # The image's blocks do not run on text.
    with pytest.raises(WorkError, match=r"finds 2 blocks at 'model\.vision_tower\.encoder\.layers'.*says that there are 3"):
        broken("llava", blocks="model.vision_tower.encoder.layers", mlp="mlp", attention="self_attn")
    model = tiny_model("llama")
    model.spare = torch.nn.ModuleList(list(tiny_model("llama", seed=1).model.layers))
    with pytest.raises(WorkError, match="block 0 at 'spare' of this 'llama' model did not run"):
        prove_sites(model, replace(layout_of(model.config), blocks="spare"))
    model.some = torch.nn.ModuleList(list(model.model.layers)[:2])
    with pytest.raises(WorkError, match="finds 2 blocks at 'some'"):
        prove_sites(model, replace(layout_of(model.config), blocks="some"))
    with pytest.raises(InputError, match=r"list of blocks at 'model\.norm'"):
        prove_sites(model, replace(layout_of(model.config), blocks="model.norm"))
    with pytest.raises(InputError, match="'self_attn' of MllamaCrossAttentionDecoderLayer"):
        broken("mllama", left_out=(2,))


def test_a_site_that_the_model_does_not_read_is_caught():
    model = tiny_model("llama")
    with torch.no_grad():
        # The head looks at nothing at all.
        model.lm_head.weight.zero_()
    with pytest.raises(WorkError, match="edit at resid_pre of layer 0 does not change the logits"):
        prove_sites(model, layout_of(model.config))


def test_a_last_block_that_nothing_reads_is_caught():
    model = tiny_model("llama")
    own = model.model.norm.forward
    kept = {}
    model.model.layers[1].register_forward_hook(lambda module, args, output: kept.update(stream=output))
    model.model.norm.forward = lambda stream: own(kept["stream"])
    with pytest.raises(WorkError, match="gives 10 rows, but 6 have logits, so an edit in it does not change"):
        prove_sites(model, layout_of(model.config))


def test_weights_that_are_not_finite_are_not_the_layouts_fault():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(WorkError, match="layer 1 .* is not finite"):
        prove_sites(model, layout_of(model.config))


def test_missing_module():
    with pytest.raises(InputError, match="'attn'"):
        broken("llama", attention="attn")


def test_broken_layouts_are_caught_on_load(monkeypatch):
    from demur.models import families

    monkeypatch.setitem(families._RULES, "gemma2", lambda _: Layout("gemma2", "model.layers", "self_attn", "mlp"))
    with pytest.raises(WorkError, match="do not sum"):
        wrap(tiny_model("gemma2"), tiny_tokenizer())


def test_an_mlp_that_adds_nothing_is_no_reason_to_refuse():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.zero_()
    prove_sites(model, layout_of(model.config))
