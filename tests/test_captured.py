"""Captured steps give the tokens of the eager loop, and hold nothing that Python would have to tell them anew."""

import pytest
import torch

from benchmarks.captured import decode_captured
from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.interventions.intervention import ablate, add
from demur.models.families import layout_of
from tests.tape import on_tape
from tests.tiny import tiny_model

PROMPTS = [(1, *range(4, 4 + n)) for n in (2, 7, 3, 11, 5)]


def rows():
    one, two = (
        from_raw(torch.randn(32, generator=torch.Generator().manual_seed(seed)), name=f"d{seed}", layer=1) for seed in (1, 2)
    )
    edits = [None, ablate(one), add(two, 4.0), add(one, -3.0, positions="generated"), (ablate(two), add(one, 2.0))]
    return [Row(prompt, edit) for edit in edits for prompt in PROMPTS]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3_text", "phi3", "olmo2"])
@pytest.mark.parametrize("edited", [False, True])
def test_tokens_are_those_of_the_eager_loop(family, edited):
    # Local attention of a window that no batch here fills.
    model = tiny_model(family, **({"sliding_window": 64} if family.startswith("gemma") else {}))
    layout, batch = layout_of(model.config), rows() if edited else [Row(prompt) for prompt in PROMPTS]
    expected = decode_batch(model, layout, batch, Decoding(8))
    assert decode_captured(model, layout, batch, Decoding(8), on_tape) == expected
    assert len({tuple(tokens) for tokens in expected}) > len(PROMPTS) - 2


def test_rows_end_where_they_would():
    model = tiny_model("llama")
    layout, batch = layout_of(model.config), rows()
    stop = decode_batch(model, layout, batch, Decoding(8))[3][2]
    decoding = Decoding(8, stop_ids=(stop,))
    expected = decode_batch(model, layout, batch, decoding)
    assert {len(tokens) for tokens in expected} > {8}
    assert decode_captured(model, layout, batch, decoding, on_tape) == expected


@pytest.mark.parametrize("tokens", [1, 2])
def test_few_tokens_need_no_capture(tokens):
    model = tiny_model("llama")
    layout, batch = layout_of(model.config), [Row(prompt) for prompt in PROMPTS]

    def refuse(step):
        raise AssertionError

    expected = decode_batch(model, layout, batch, Decoding(tokens))
    assert decode_captured(model, layout, batch, Decoding(tokens), refuse) == expected


def test_a_replay_follows_its_tensors_and_not_python():
    number, place = [1.0], torch.zeros(3)
    replay = on_tape(lambda: (place + number[0]) * 2)
    place.add_(1)
    number[0] = 100.0
    assert torch.equal(replay(), torch.full((3,), 4.0))
    for step in (lambda: place + place.sum().item(), lambda: place[place > 1], lambda: place + torch.tensor([1.0])):
        with pytest.raises(RuntimeError, match="cannot be captured"):
            on_tape(step)


def test_a_batch_wider_than_a_window_is_refused():
    model = tiny_model("gemma2")
    window = model.config.sliding_window
    with pytest.raises(InputError, match="wider than this model's window"):
        decode_captured(model, layout_of(model.config), [Row(tuple(range(4, 4 + window)))], Decoding(4), on_tape)
