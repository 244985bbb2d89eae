"""The stream as captured and edited equals a walk through the blocks by hand, in every family."""

from functools import partial

import pytest
import torch

from demur.core.errors import InputError, WorkError
from demur.directions.direction import from_raw
from demur.engine.hooks import edited
from demur.engine.read_activations import stream_activations
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import ablate, add
from demur.models.families import layout_of
from demur.models.layouts import Layout
from tests.reference import ablated, run_stream, shifted
from tests.tiny import FAMILIES, TOWERS, tiny_model

WALKED = FAMILIES + TOWERS
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
    # The direction itself is stored in float32.
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("family", WALKED)
def test_addition_equals_walk_at_each_site(family):
    model, direction = tiny_model(family, dtype=torch.float64), _direction()
    for site in layout_of(model.config).sites:
        edit = add(direction, 3.0, sites=(site,))
        _, expected = run_stream(model, torch.tensor([PROMPT]), shifted(3 * direction.vector.double(), 1, (site,)))
        found = _logits(model, edit)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), site


@pytest.mark.parametrize("family", WALKED)
def test_no_edit_leaves_every_bit(family):
    model = tiny_model(family)
    layout, direction = layout_of(model.config), _direction()
    edits = [None, ablate(direction), add(direction, 2.0, sites=layout.sites)]
    table, ids = tabulate(edits, layout, 3, 32, "cpu"), torch.tensor([PROMPT] * 3)
    with torch.inference_mode():
        plain = model(input_ids=ids, use_cache=False).logits
        with edited(model, layout, table):
            rows = model(input_ids=ids, use_cache=False).logits
        # Experts multiply the tokens of all rows that choose them together, so another row's choice moves the last bits.
        experts = any("experts" in name for name, _ in model.named_modules())
        same = partial(torch.allclose, rtol=1e-4, atol=1e-4) if experts else torch.equal
        assert same(rows[0], plain[0])
        assert (rows[1] - plain[1]).abs().max() > 1e-3
        assert (rows[2] - plain[2]).abs().max() > 1e-3
        assert same(model(input_ids=ids, use_cache=False).logits, plain)


def test_positions_count_from_the_prompt_end():
    model = tiny_model("llama")
    layout = layout_of(model.config)
    ((_, second_last),) = stream_activations(model, layout, [PROMPT], layers=[1], positions=(-2,))
    ((_, shorter),) = stream_activations(model, layout, [PROMPT[:-1]], layers=[1], positions=(-1,))
    assert torch.allclose(second_last, shorter, atol=1e-5)
    for position in (0, 3, -7):
        with pytest.raises(InputError, match="position"):
            next(stream_activations(model, layout, [PROMPT], layers=[1], positions=(position,)))


def test_no_layer_is_refused_and_no_prompt_gives_nothing():
    model = tiny_model("llama")
    layout = layout_of(model.config)
    with pytest.raises(InputError, match="at least one layer"):
        next(stream_activations(model, layout, [PROMPT], layers=[]))
    assert list(stream_activations(model, layout, [], layers=[1])) == []


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
    with (
        pytest.raises(WorkError, match="edit at resid_pre of layer 1 acted in 0 of 1 forward passes"),
        edited(model, layout, table),
    ):
        model.model.layers = torch.nn.ModuleList([skipped[0], skipped[2], skipped[2]])
        model(input_ids=torch.tensor([PROMPT]), use_cache=False)


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
