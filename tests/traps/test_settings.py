"""Traps 28 and 30: logits that are not computed, and the settings of the post's code."""

import pytest
import torch

from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.read_activations import stream_activations
from demur.interventions.intervention import add
from demur.judges.judge import get_judge
from demur.models.families import layout_of
from tests.reference import run_stream, shifted
from tests.tiny import FAMILIES, TOWERS, tiny_model
from tests.traps.common import PROMPT, direction, steered


@pytest.mark.parametrize("family", FAMILIES + TOWERS)
def test_trap_28_logits_of_one_token_a_row(family):
    model, shapes = tiny_model(family), []
    layout = layout_of(model.config)
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: shapes.append(output.shape[:-1].numel()))
    decode_batch(model, layout, [Row(tuple(PROMPT)), Row(tuple(PROMPT[:4]))], Decoding(2))
    assert shapes == [2, 2]
    shapes.clear()
    list(stream_activations(model, layout, [PROMPT, PROMPT[:4]], layers=[0, 1, 2], site="resid_post"))
    assert shapes == []


@pytest.mark.parametrize("family", FAMILIES)
def test_trap_30_three_sites_of_one_layer_add_three_times(family):
    model, d = tiny_model(family, dtype=torch.float64), direction()
    sites = layout_of(model.config).sites
    _, expected = run_stream(model, torch.tensor([PROMPT]), shifted(2 * d.vector.double(), 1, sites))
    scale = expected.abs().max()
    assert (steered(model, add(d, 2.0, sites=sites)) - expected).abs().max() < 1e-5 * scale
    # The stream behind the block differs from one addition of the sum: the branches read parts of it.
    assert (steered(model, add(d, 2.0 * len(sites))) - expected).abs().max() > 1e-4 * scale


def test_trap_30_the_prefix_match_is_case_sensitive():
    assert get_judge("prefix")("I cannot do that").refusal
    assert not get_judge("prefix")("i cannot do that").refusal
