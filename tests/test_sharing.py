"""Work that rows share: which row stands for which, that it is done once, and that no row's tokens change by it."""

import itertools

import pytest
import torch

from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.hooks import first
from demur.engine.prefill import prefill, run_shared_prefix
from demur.engine.read_activations import stream_activations
from demur.engine.row_sharing import share, share_rows
from demur.engine.score import next_tokens
from demur.interventions.intervention import ablate, add
from demur.models.families import layout_of
from tests.daily import daily
from tests.test_generation import directions
from tests.tiny import FAMILIES, TOWERS, tiny_model

PROMPTS = [(1, 7, 9, *range(4, 4 + n)) for n in (5, 1, 5, 3)]
PROMPTS[2] = (1, 7, 9, 30, 31, 32, 33, 34)


def edits_of(family):
    one, two = directions()
    sites = layout_of(tiny_model(family).config).sites
    return [
        None,
        ablate(one),
        add(one, 4.0),
        add(two, -2.0, sites=sites),
        add(two, 3.0, layers=[2], sites=["resid_post"], positions="generated"),
        (add(one, 2.0), ablate(two, layers=[2])),
    ]


def all_rows(family):
    return [Row(prompt, edit) for edit, prompt in itertools.product(edits_of(family), PROMPTS)]


def test_rows_of_one_prompt_run_once_until_their_edits_begin():
    found = share(["a", "a", "a", "b", "b"], [None, 0, 2, None, 2])
    assert found.starts == (0, 2)
    assert found.running == ((0, 1, 3), (0, 1, 2, 3, 4))
    assert found.places == ((0, 1, 0, 2, 2), (0, 1, 2, 3, 4))
    assert [found.span(layer) for layer in (0, 1, 2, 9)] == [0, 0, 1, 1]
    assert found.places_before(1, 0) == [0, 1, 0, 2, 2]


def test_rows_without_edits_never_part():
    found = share(["a", "b", "a"], [None, None, None])
    assert found.running == ((0, 1),)
    assert found.places_at(7) == (0, 1, 0)


def test_different_prompts_share_nothing():
    assert share(["a", "b"], [2, 1]).running == ((0, 1),)


def test_an_edit_behind_the_last_block_parts_its_row_before_it():
    (one, _), layout = directions(), layout_of(tiny_model("llama").config)
    found = share_rows(["a", "a"], [None, add(one, 1.0, layers=[2], sites=["resid_post"])], layout, 3)
    assert found.starts == (0, 2)


@pytest.mark.parametrize("family", daily(FAMILIES + TOWERS))
def test_rows_that_share_have_the_tokens_that_they_have_alone(family, monkeypatch):
    model, rows = tiny_model(family), all_rows(family)
    layout = layout_of(model.config)
    alone = [decode_batch(model, layout, [row], Decoding(4))[0] for row in rows]
    without = decode_batch(model, layout, rows, Decoding(4, use_cache=False))
    assert without == alone
    assert decode_batch(model, layout, rows, Decoding(4)) == alone
    # Behind a common beginning, too.
    monkeypatch.setattr("demur.engine.prefill.WORTH", 1)
    assert decode_batch(model, layout, rows, Decoding(4)) == alone


@pytest.mark.parametrize("family", FAMILIES + TOWERS)
def test_each_block_runs_the_rows_that_differ_there(family):
    model, rows, ran = tiny_model(family), all_rows(family), []
    layout = layout_of(model.config)
    handles = [
        block.register_forward_hook(lambda module, args, output: ran.append(len(first(output))))
        for block in layout.find_blocks(model)
    ]
    with torch.inference_mode():
        list(prefill(model, layout, rows, 0))
    for handle in handles:
        handle.remove()
    # Of six edits one acts from the first block on, three from the second and one from the third; one row runs for the rest.
    shared = [n * len(PROMPTS) for n in (2, 5, 6)]
    assert ran == ([len(rows)] * 3 if layout.rows_apart else shared)


def test_the_shared_prefix_runs_once_for_each_sequence_of_edits(monkeypatch):
    monkeypatch.setattr("demur.engine.prefill.WORTH", 1)
    model, rows, passed = tiny_model("llama"), all_rows("llama"), []
    model.model.embed_tokens.register_forward_hook(lambda module, args, output: passed.append(tuple(output.shape[:2])))
    with torch.inference_mode():
        prefix = run_shared_prefix(model, layout_of(model.config), rows, 0)
        chunks = list(prefill(model, layout_of(model.config), rows, 0))
    assert prefix.length == 3
    # One of the six edits acts from the first block on. The longest prompt has five tokens behind the first three; shorter ones
    # repeat the end of the prefix.
    assert passed == [(2, 3), (2, 3), (2 * len(PROMPTS), 5)]
    assert sorted(row for chunk in chunks for row in chunk.rows) == list(range(len(rows)))


def test_a_shared_prefix_runs_only_where_it_saves_enough_and_fits(monkeypatch):
    model, rows = tiny_model("llama"), all_rows("llama")
    layout = layout_of(model.config)

    def length():
        with torch.inference_mode():
            return run_shared_prefix(model, layout, rows, 0).length

    # Three tokens of 24 rows with six sequences of edits: 54 are saved, 18 are run.
    assert length() == 0
    monkeypatch.setattr("demur.engine.prefill.WORTH", 54)
    assert length() == 3
    monkeypatch.setattr("demur.engine.prefill.MOST_TOKENS", {"cpu": 17})
    assert length() == 0


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "bloom"])
def test_scores_and_activations_behind_a_common_beginning(family, monkeypatch):
    model, rows = tiny_model(family), all_rows(family)
    layout = layout_of(model.config)

    def everything():
        logits, states = torch.zeros(len(rows), 96), torch.zeros(len(rows), 2, 32)
        for found in next_tokens(model, layout, rows):
            logits[found.indices] = found.logits
        for found in next_tokens(model, layout, rows, layers=[0, 2]):
            states[found.indices] = found.states
        seen = torch.zeros(len(PROMPTS), 3, 2, 32)
        for indices, activations in stream_activations(model, layout, PROMPTS, layers=[0, 1, 2], positions=(-1, -2)):
            seen[indices] = activations
        return logits, states, seen

    plain = everything()
    monkeypatch.setattr("demur.engine.prefill.WORTH", 1)
    for before, after in zip(plain, everything(), strict=True):
        assert torch.allclose(before, after, rtol=1e-4, atol=1e-4)


def test_what_is_read_lies_behind_the_common_beginning(monkeypatch):
    monkeypatch.setattr("demur.engine.prefill.WORTH", 1)
    model = tiny_model("llama")
    prompts = [(1, 7, 9, 4), (1, 7, 9, 5)]
    layout = layout_of(model.config)
    ((_, both),) = stream_activations(model, layout, prompts, layers=[1], positions=(-3, -1))
    alone = torch.cat([next(stream_activations(model, layout, [p], layers=[1], positions=(-3, -1)))[1] for p in prompts])
    assert torch.allclose(both, alone, rtol=1e-4, atol=1e-5)
