"""The stream as captured and edited equals a walk through the blocks by hand, in every family."""

import pytest
import torch

from demur.directions import from_raw
from demur.errors import InputError, WorkError
from demur.interventions import ablate, add, tabulate
from demur.layouts import Layout, layout_of
from demur.residual import edited, stream_activations
from tests.reference import ablated, run_stream, shifted
from tests.tiny import FAMILIES, SEQUENTIAL, tiny_model

WALKED = tuple(family for family in FAMILIES if family not in ("opt", "mixtral", "phi3", "stablelm", "smollm3", "gpt_neo"))
PROMPT = [1, 7, 20, 33, 5, 60]


def _direction(layer: int = 1, seed: int = 3, width: int = 32):
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(seed)), name="d", layer=layer)


def _logits(model, edits, prompt=PROMPT):
    layout = layout_of(model.config)
    table = tabulate([edits], layout, 3, 32, "cpu")
    with torch.inference_mode(), edited(model, layout, table):
        return model(input_ids=torch.tensor([prompt]), use_cache=False).logits


@pytest.mark.parametrize("family", WALKED)
def test_capture_equals_walk(family):
    model = tiny_model(family, dtype=torch.float64)
    layout = layout_of(model.config)
    seen, _ = run_stream(model, torch.tensor([PROMPT]))
    for site in layout.sites:
        ((_, found),) = stream_activations(model, layout, [PROMPT], layers=[0, 1, 2], site=site)
        expected = torch.stack([seen[layer, site][0, -1] for layer in range(3)])[None].float()
        assert torch.allclose(found[:, :, 0], expected, rtol=1e-6, atol=1e-6), site


@pytest.mark.parametrize("family", WALKED)
def test_ablation_equals_walk(family):
    model, direction = tiny_model(family, dtype=torch.float64), _direction()
    _, expected = run_stream(model, torch.tensor([PROMPT]), ablated(direction.vector.double()))
    plain = _logits(model, ())
    found = _logits(model, ablate(direction))
    assert (expected - plain).abs().max() > 1e-2
    # Projections are computed in float32 by design; 1e-4 of the logits' scale is far below any edit's effect.
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("family", WALKED)
def test_addition_equals_walk_at_each_site(family):
    model, direction = tiny_model(family, dtype=torch.float64), _direction()
    for site in layout_of(model.config).sites:
        edit = add(direction, 3.0, sites=(site,))
        _, expected = run_stream(model, torch.tensor([PROMPT]), shifted(3 * direction.vector.double(), 1, (site,)))
        found = _logits(model, edit)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max(), site


def test_trap_30_three_sites_add_three_times():
    model, direction = tiny_model("llama", dtype=torch.float64), _direction()
    sites = ("resid_pre", "resid_mid", "resid_post")
    _, expected = run_stream(model, torch.tensor([PROMPT]), shifted(2 * direction.vector.double(), 1, sites))
    assert (_logits(model, add(direction, 2.0, sites=sites)) - expected).abs().max() < 1e-4 * expected.abs().max()
    once = _logits(model, add(direction, 6.0))
    assert (once - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_edit_leaves_every_bit(family):
    model = tiny_model(family)
    with torch.inference_mode():
        plain = model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits
    layout, direction = layout_of(model.config), _direction()
    table = tabulate([None, ablate(direction), add(direction, 2.0)], layout, 3, 32, "cpu")
    with torch.inference_mode(), edited(model, layout, table):
        rows = model(input_ids=torch.tensor([PROMPT] * 3), use_cache=False).logits
    assert torch.allclose(rows[0], plain[0], rtol=1e-5, atol=1e-5)
    assert (rows[1] - plain[0]).abs().max() > 1e-3
    assert (rows[2] - plain[0]).abs().max() > 1e-3
    with torch.inference_mode():
        assert torch.equal(model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits, plain)


def test_trap_2_last_layer_is_before_the_final_norm():
    model = tiny_model("llama")
    ((_, found),) = stream_activations(model, layout_of(model.config), [PROMPT], layers=[2], site="resid_post")
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
        assert not torch.allclose(hidden[-1][0, -1], found[0, 0, 0], atol=1e-3)
        assert torch.allclose(hidden[-1][0, -1], model.model.norm(found[0, 0, 0]), atol=1e-5)


def test_trap_6_block_outputs_alone_are_not_all_sites():
    model, direction = tiny_model("llama"), _direction()
    whole, outputs = _logits(model, ablate(direction)), _logits(model, ablate(direction, sites=("resid_post",)))
    assert (whole - outputs).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_trap_9_left_padding_changes_nothing(family):
    model = tiny_model(family)
    layout = layout_of(model.config)
    prompts = [PROMPT, PROMPT[:3], [*PROMPT, 9, 11, 12, 4]]
    alone = torch.cat([next(stream_activations(model, layout, [p], layers=[0, 2]))[1] for p in prompts])
    ((indices, together),) = stream_activations(model, layout, prompts, layers=[0, 2])
    assert indices == [2, 0, 1]
    assert torch.allclose(together, alone[indices], rtol=1e-5, atol=1e-5)


def test_positions_count_from_the_prompt_end():
    model = tiny_model("llama")
    layout = layout_of(model.config)
    ((_, second_last),) = stream_activations(model, layout, [PROMPT], layers=[1], positions=(-2,))
    ((_, shorter),) = stream_activations(model, layout, [PROMPT[:-1]], layers=[1], positions=(-1,))
    assert torch.allclose(second_last, shorter, atol=1e-5)
    for position in (0, 3, -7):
        with pytest.raises(InputError, match="position"):
            next(stream_activations(model, layout, [PROMPT], layers=[1], positions=(position,)))


def test_not_finite_names_the_layer():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(WorkError, match="row 0 at layer 2 are not finite"):
        next(stream_activations(model, layout_of(model.config), [PROMPT], layers=[0, 2]))


def test_hooks_are_gone_after_an_exception():
    model, direction = tiny_model("llama"), _direction()
    layout = layout_of(model.config)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    before = hooks()
    with pytest.raises(KeyboardInterrupt), edited(model, layout, tabulate([ablate(direction)], layout, 3, 32, "cpu")):
        assert hooks() > before
        raise KeyboardInterrupt
    assert hooks() == before


def test_an_edit_that_did_not_act_raises():
    model, direction = tiny_model("llama"), _direction()
    layout = layout_of(model.config)
    table = tabulate([add(direction, 1.0)], layout, 3, 32, "cpu")
    skipped = model.model.layers
    with pytest.raises(WorkError, match="acted in 0 of 1 forward passes"), edited(model, layout, table):
        model.model.layers = torch.nn.ModuleList([skipped[0], skipped[2], skipped[2]])
        model(input_ids=torch.tensor([PROMPT]), use_cache=False)


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_float32_arithmetic_in_low_precision(family):
    model, direction = tiny_model(family, dtype=torch.bfloat16), _direction()
    layout = layout_of(model.config)
    seen = {}

    def watch(module, args, kwargs):
        seen["stream"] = (args[0] if args else kwargs["hidden_states"]).detach().clone()

    handle = layout.find_blocks(model)[2].register_forward_pre_hook(watch, with_kwargs=True)
    with torch.inference_mode():
        model(input_ids=torch.tensor([PROMPT]), use_cache=False)
        plain = seen["stream"].float() @ direction.vector
        # Hooks run in order of registration: the watcher sees the stream behind the edit at its own block.
        handle.remove()
        with edited(model, layout, tabulate([ablate(direction)], layout, 3, 32, "cpu")):
            handle = layout.find_blocks(model)[2].register_forward_pre_hook(watch, with_kwargs=True)
            logits = model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits
        handle.remove()
    assert logits.dtype == torch.bfloat16
    left = (seen["stream"].float() @ direction.vector).abs().max()
    # What is left is the rounding of the stored bfloat16 stream, 2^-8 of its norm at the most.
    assert left < seen["stream"].float().norm(dim=-1).max() / 256
    assert left < plain.abs().max() / 10


def test_sites_of_parallel_blocks():
    layout, direction = layout_of(tiny_model("gpt_neox").config), _direction()
    with pytest.raises(InputError, match=r"gpt_neox.*parallel.*no 'resid_mid'"):
        tabulate([add(direction, 1.0, sites=("resid_mid",))], layout, 3, 32, "cpu")


def test_unknown_family_names_it_and_the_way_out():
    with pytest.raises(InputError, match=r"'lama'.*did you mean 'llama'\?.*register"):
        layout_of(type("Config", (), {"model_type": "lama"})())


def test_a_layout_that_leads_nowhere():
    with pytest.raises(InputError, match=r"list of blocks at 'model\.blocks'"):
        Layout("llama", "model.blocks", "self_attn", "mlp").find_blocks(tiny_model("llama"))
