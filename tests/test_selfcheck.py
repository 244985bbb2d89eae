"""Sites prove themselves: right layouts pass, broken ones are caught and named."""

from dataclasses import replace

import pytest
import torch

from demur.errors import InputError, WorkError
from demur.families import layout_of
from demur.selfcheck import prove_sites
from tests.tiny import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_registered_family_passes(family, dtype):
    if (family, dtype) == ("mixtral", torch.float64):
        pytest.skip("the router of transformers' Mixtral computes in float32 and cannot mix it with float64 experts")
    model = tiny_model(family, dtype=dtype)
    prove_sites(model, layout_of(model.config))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention": "post_attention_layernorm"}),
        ("llama", {"mlp": "self_attn"}),
        ("gemma2", {"attention": "self_attn"}),  # trap 4: the norm's output is what enters the stream
        ("gemma2", {"mlp": "mlp"}),
        ("olmo2", {"attention": "self_attn"}),
        ("gpt2", {"attention": "ln_2"}),
        ("gpt_neox", {"mlp": "input_layernorm"}),
    ],
)
def test_broken_layouts_are_caught(family, changes):
    model = tiny_model(family)
    with pytest.raises(WorkError, match=r"layer 0 .* do not sum"):
        prove_sites(model, replace(layout_of(model.config), **changes))


def test_a_site_that_the_model_does_not_read_is_caught():
    model = tiny_model("llama")
    with torch.no_grad():
        # The last block writes nothing that the head reads: the head looks at nothing at all.
        model.lm_head.weight.zero_()
    with pytest.raises(WorkError, match="does not change the logits"):
        prove_sites(model, layout_of(model.config))


def test_missing_module():
    model = tiny_model("llama")
    with pytest.raises(InputError, match="'attn'"):
        prove_sites(model, replace(layout_of(model.config), attention="attn"))
