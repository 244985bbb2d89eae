"""Traps 16 to 18: the precision of an edit, massive activations, and the token that is read."""

from types import SimpleNamespace

import pytest
import torch

import demur
from demur.engine.checkpoints import wrap
from demur.engine.hooks import edited, observed
from demur.engine.read_activations import stream_activations
from demur.inputs.prompts import prompt_format
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import ablate, add
from demur.models.families import layout_of
from demur.models.layouts import point
from tests.tiny import FAMILIES, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer
from tests.traps.common import PROMPT, direction, plain, steered


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_16_edits_keep_a_low_precision_stream_in_its_dtype(family):
    model = tiny_model(family, dtype=torch.bfloat16)
    layout, d = layout_of(model.config), direction()
    for edit in (add(d, 3.0, sites=layout.sites), ablate(d)):
        assert steered(model, edit).dtype == torch.bfloat16
    where = point(2, "resid_pre")
    with observed(model, layout, [where], range(-len(PROMPT), 0)) as before:
        plain(model)
    table = tabulate([ablate(d)], layout, 3, 32, "cpu")
    with edited(model, layout, table), observed(model, layout, [where], range(-len(PROMPT), 0)) as after:
        plain(model)
    left = (after[where] @ d.vector).abs().max()
    # What is left is the rounding of the stored bfloat16 stream, 2^-8 of its norm at the most.
    assert left < after[where].norm(dim=-1).max() / 256
    assert left < (before[where] @ d.vector).abs().max() / 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trap_16_the_projection_is_as_good_as_can_be_stored(dtype):
    d, stream = direction(width=64), torch.randn(1, 300, 64, generator=torch.Generator().manual_seed(0)) * 10
    # A massive dimension, as trained models have.
    stream[..., 5] = 400.0
    low, unit = stream.to(dtype), d.vector.to(dtype)
    layout = layout_of(tiny_model("llama").config)
    (edit,) = tabulate([ablate(d)], layout, 3, 64, "cpu")[point(0, "resid_pre")]
    left = (edit.apply(low, low).double() @ d.vector.double()).abs()
    exact = (low.double() - (low.double() @ d.vector.double())[..., None] * d.vector.double()).to(dtype)
    assert left.mean() <= (exact.double() @ d.vector.double()).abs().mean() * 1.01
    native = low - (low @ unit)[..., None] * unit
    assert left.mean() < 0.75 * (native.double() @ d.vector.double()).abs().mean()


def test_trap_17_a_massive_first_token_does_not_reach_a_mean():
    model = tiny_model("llama")
    layout = layout_of(model.config)
    prompts = [PROMPT, [1, 9, 30, 31], [1, 44, 5, 6, 20]]

    def massive(module, args):
        # Left padding puts the first real tokens at different columns: every column but the last is made massive.
        return (torch.cat((args[0][:, :-1] * 1e4, args[0][:, -1:]), dim=1), *args[1:])

    found = []
    for spoiled in (False, True):
        # In the block that is read, so that nothing else computes with it.
        handle = layout.find_blocks(model)[1].register_forward_pre_hook(massive) if spoiled else None
        ((_, activations),) = stream_activations(model, layout, prompts, layers=[1])
        found.append(activations.mean(0))
        if handle is not None:
            handle.remove()
    assert torch.equal(*found)


def test_trap_17_a_broken_layout_shows_beside_massive_activations():
    from dataclasses import replace

    from demur.core.errors import WorkError
    from demur.engine.site_proof import prove_sites

    model = tiny_model("gemma2", dtype=torch.bfloat16)
    with torch.no_grad():
        for block in model.model.layers:
            block.post_feedforward_layernorm.weight[7] = 3000.0
    layout = layout_of(model.config)
    prove_sites(model, layout)
    with pytest.raises(WorkError, match="do not sum"):
        prove_sites(model, replace(layout, attention="self_attn"))


def test_trap_18_the_read_token_is_stored_and_decides():
    checkpoint = wrap(tiny_model("llama"), tiny_tokenizer(), name="tiny")
    made = {}
    for text in ("USER {instruction} ASSISTANT", "USER {instruction} ASSISTANT :"):
        prompt = prompt_format(text, checkpoint)
        made[text] = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=2)
        ids = prompt.encode(["write a poem"])[0]
        assert made[text].provenance["token read"] == checkpoint.tokenizer.convert_ids_to_tokens(ids)[-1]
    first, second = made.values()
    assert (first.provenance["token read"], second.provenance["token read"]) == ("ASSISTANT", ":")
    assert float(first.vector @ second.vector) < 0.99


def test_trap_18_a_templates_last_new_line_is_kept():
    bound = [prompt_format(text, SimpleNamespace(tokenizer=tiny_tokenizer())) for text in ("{instruction}\n", "{instruction}")]
    assert [prompt.text("write") for prompt in bound] == ["write\n", "write"]
    assert bound[0].digest != bound[1].digest
