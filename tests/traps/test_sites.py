"""Traps 1 to 8: where the stream is read and written, in every family."""

from dataclasses import replace

import pytest
import torch

import demur
from demur.core.errors import InputError, WorkError
from demur.engine.branch_recording import recorded_branches
from demur.engine.hooks import edited, observed
from demur.engine.read_activations import stream_activations
from demur.engine.site_proof import prove_sites
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import ablate, add
from demur.models.families import layout_of
from demur.models.layouts import point
from tests.reference import ablated, run_stream, shifted
from tests.tiny import FAMILIES, SEQUENTIAL, TOWERS, tiny_model
from tests.traps.common import PROMPT, direction, plain, steered

TUPLES = ("bloom", "falcon", "gpt_neo", "gptj", "mpt")
POST_NORM = ("gemma2", "gemma3_text", "glm4", "olmo2")


@pytest.mark.parametrize("family", FAMILIES + TOWERS)
def test_trap_01_edits_keep_the_form_that_blocks_return(family):
    model = tiny_model(family)
    layout = layout_of(model.config)
    forms = []

    def watch(module, args, output):
        forms.append((type(output), len(output) if isinstance(output, tuple) else None))

    edit = add(direction(layer=2), 3.0, sites=("resid_post",))
    for table in ({}, tabulate([edit], layout, 3, 32, "cpu")):
        with edited(model, layout, table):
            handle = layout.find_blocks(model)[-1].register_forward_hook(watch)
            logits = plain(model)
            handle.remove()
    assert forms[0] == forms[1]
    assert (forms[0][0] is tuple) == (model.config.model_type in TUPLES)
    _, expected = run_stream(model, torch.tensor([PROMPT]), shifted(3 * direction().vector, 2, ("resid_post",)))
    assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_01_attention_modules_return_tuples(family):
    model = tiny_model(family)
    forms, names = [], ("self_attn", "attn", "attention", "self_attention")
    module = next(getattr(layout_of(model.config).find_blocks(model)[0], name) for name in names
                  if hasattr(layout_of(model.config).find_blocks(model)[0], name))  # fmt: skip
    module.register_forward_hook(lambda module, args, output: forms.append(type(output)))
    plain(model)
    assert forms == [tuple]


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_02_the_last_hidden_state_lies_behind_the_final_norm(family):
    model = tiny_model(family)
    ((_, found),) = stream_activations(model, layout_of(model.config), [PROMPT], layers=[2], site="resid_post")
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([PROMPT]), output_hidden_states=True, use_cache=False).hidden_states
    seen, _ = run_stream(model, torch.tensor([PROMPT]))
    assert torch.allclose(found[0, 0, 0], seen[2, "resid_post"][0, -1], rtol=1e-5, atol=1e-5)
    last = hidden[-1][0, -1]
    assert last.shape != found[0, 0, 0].shape or (last - found[0, 0, 0]).abs().max() > 1e-2


def test_trap_02_hidden_states_do_not_show_edits_and_are_refused_beside_them():
    model, layout = tiny_model("llama"), layout_of(tiny_model("llama").config)
    seen, _ = run_stream(model, torch.tensor([PROMPT]), shifted(5 * direction().vector, 1, ("resid_pre",)))
    with torch.inference_mode():
        # The library's own hook on block 0 runs before the edit at the input of block 1, as a user's would.
        handle = layout.find_blocks(model)[1].register_forward_pre_hook(
            lambda module, args: (args[0] + 5 * direction().vector, *args[1:])
        )
        hidden = model(input_ids=torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
        handle.remove()
    assert (hidden[1] - seen[1, "resid_pre"]).abs().max() > 0.5
    with pytest.raises(InputError, match="leave output_hidden_states out"), demur.steer(model, add(direction(), 5.0)):
        model(input_ids=torch.tensor([PROMPT]), output_hidden_states=True)
    model.config.output_hidden_states = True
    with pytest.raises(InputError, match="leave output_hidden_states out"), demur.steer(model, add(direction(), 5.0)):
        model(input_ids=torch.tensor([PROMPT]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trap_03_a_capture_is_a_copy(family, dtype):
    model = tiny_model(family, dtype=dtype)
    layout = layout_of(model.config)
    seen, _ = run_stream(model, torch.tensor([PROMPT]))

    def spoil(module, args, kwargs):
        (args[0] if args else kwargs["hidden_states"]).fill_(1e3)

    with torch.inference_mode(), observed(model, layout, [point(1, "resid_pre")], [-1, -2]) as taken:
        handle = layout.find_blocks(model)[1].register_forward_pre_hook(spoil, with_kwargs=True)
        plain(model)
        handle.remove()
    assert torch.allclose(taken[point(1, "resid_pre")][0], seen[1, "resid_pre"][0, [-1, -2]].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES + TOWERS)
def test_trap_04_declared_contributions_are_what_the_stream_gains(family):
    model = tiny_model(family, dtype=torch.float64)
    layout = layout_of(model.config)
    seen, _ = run_stream(model, torch.tensor([PROMPT]))
    with recorded_branches(model, layout) as branches:
        plain(model)
    assert list(branches) == [0, 1, 2]
    for layer, one in branches.items():
        gain = seen[layer, "resid_post"] - seen[layer, "resid_pre"]
        size = gain.abs().max()
        # MPT's softmax is float32 in any model, and its rounding differs between two computations of one prompt.
        tolerance = (1e-6 if family == "mpt" else 1e-12) * size
        assert (one.attention + one.mlp - gain).abs().max() < tolerance
        assert (one.after - one.before - one.attention - one.mlp).abs().max() < 1e-12 * one.after.abs().max()
        if not layout.parallel:
            assert (one.attention - (seen[layer, "resid_mid"] - seen[layer, "resid_pre"])).abs().max() < tolerance
        assert one.attention.abs().max() > 1e-3 * size
        assert one.mlp.abs().max() > 1e-3 * size


@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_trap_04_an_mlp_module_that_returns_the_stream_is_not_its_contribution(family):
    model = tiny_model(family)
    with pytest.raises(WorkError, match="layer 0 .* do not sum"):
        prove_sites(model, replace(layout_of(model.config), mlp="mlp" if family == "bloom" else "ffn"))


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text", "glm4", "llama", "olmo2", "qwen2", "qwen3"])
def test_trap_05_post_attention_layernorm_has_two_meanings(family):
    model = tiny_model(family)
    declared, norms = layout_of(model.config), ("gemma2", "gemma3_text", "olmo2")
    assert (declared.attention == "post_attention_layernorm") == (family in norms)
    wrong = "self_attn" if family in norms else "post_attention_layernorm"
    with pytest.raises(WorkError, match="layer 0 .* do not sum"):
        prove_sites(model, replace(declared, attention=wrong))


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_06_block_outputs_alone_are_not_all_sites(family):
    model, d = tiny_model(family, dtype=torch.float64), direction()
    _, expected = run_stream(model, torch.tensor([PROMPT]), ablated(d.vector.double()))
    whole = steered(model, ablate(d))
    assert (whole - expected).abs().max() < 1e-5 * expected.abs().max()
    outputs = steered(model, ablate(d, sites=("resid_pre", "resid_post")))
    left = (whole - outputs).abs().max() / expected.abs().max()
    assert left > 1e-3 if family in SEQUENTIAL else left == 0


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3_text", "gemma3"])
def test_trap_08_the_first_stream_holds_gemmas_scaled_embedding(family):
    model = tiny_model(family, dtype=torch.float64)
    ((_, found),) = stream_activations(model, layout_of(model.config), [PROMPT], layers=[0])
    row = model.get_input_embeddings().weight[PROMPT[-1]].detach()
    assert torch.allclose(found[0, 0, 0], (row * 32**0.5).float(), rtol=1e-5)
