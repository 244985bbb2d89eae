"""A row's tokens are what they would be alone: over lengths, edits, batch sizes, with and without a cache."""

import itertools

import pytest
import torch

from demur.core.errors import InputError, NotFinite, WorkError
from demur.directions.direction import from_raw
from demur.engine.batching import group, pad_left, position_ids
from demur.engine.decode import NewTokens, _likeliest, decode, decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.interventions.intervention import ablate, add
from demur.models.families import layout_of
from tests import reference
from tests.tiny import tiny_model

PROMPTS = [[1, *range(4, 4 + n)] for n in (2, 7, 3, 11, 5, 1, 8, 4)]
NEW = 6


def directions():
    made = [torch.randn(32, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    return [from_raw(raw, name=f"d{i}", layer=1) for i, raw in enumerate(made)]


def all_edits(family):
    one, two = directions()
    sites = layout_of(tiny_model(family).config).sites
    return [
        None,
        ablate(one),
        ablate(two, layers=[0, 2]),
        add(one, 4.0),
        add(two, 2.0, sites=sites),
        add(one, 1.0, unit="raw", positions="prompt"),
        add(two, -3.0, positions="generated"),
        (ablate(one), add(two, 2.0)),
    ]


def everything(model, rows, decoding, **sizes):
    found = {}
    for done in decode(model, layout_of(model.config), rows, decoding, **sizes):
        found.update(done)
    return [found[i] for i in range(len(rows))]


@pytest.mark.parametrize(
    "family", ["gemma2", *(pytest.param(one, marks=pytest.mark.soak) for one in ("llama", "gpt2", "gpt_neox"))]
)
def test_rows_equal_single_rows(family):
    model = tiny_model(family)
    rows = [Row(tuple(prompt), edit) for edit, prompt in itertools.product(all_edits(family), PROMPTS)]
    layout = layout_of(model.config)
    alone = [decode_batch(model, layout, [row], Decoding(NEW))[0] for row in rows]
    assert len({tuple(tokens) for tokens in alone}) > len(PROMPTS)
    for batch_rows, use_cache in ((3, True), (3, False), (32, True), (32, False)):
        found = everything(model, rows, Decoding(NEW, use_cache=use_cache), batch_rows=batch_rows)
        assert found == alone, (batch_rows, use_cache)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2", "gpt_neox"])
def test_rows_equal_the_naive_loop(family):
    model, (one, _) = tiny_model(family), directions()
    vector, sites = one.vector, layout_of(model.config).sites
    pairs = [
        (None, reference.leave),
        (ablate(one), reference.ablated(vector)),
        (add(one, 4.0, sites=sites), reference.shifted(4.0 * vector, 1, sites)),
    ]
    rows = [Row(tuple(prompt), edit) for edit, _ in pairs for prompt in PROMPTS]
    expected = [reference.decode(model, prompt, edit, NEW) for _, edit in pairs for prompt in PROMPTS]
    assert everything(model, rows, Decoding(NEW)) == expected


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_without_edits_equals_transformers(family):
    model = tiny_model(family)
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "max_new_tokens": NEW, "eos_token_id": None, "pad_token_id": 0}
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
        assert decode_batch(model, layout_of(model.config), [Row(tuple(prompt))], Decoding(NEW))[0] == expected


def test_stop_tokens_end_a_row_and_only_that_row():
    model = tiny_model("llama")
    layout = layout_of(model.config)
    rows = [Row(tuple(prompt)) for prompt in PROMPTS]
    free = decode_batch(model, layout, rows, Decoding(NEW))
    stop = free[0][2]
    stopped = decode_batch(model, layout, rows, Decoding(NEW, stop_ids=(stop,)))
    for whole, cut in zip(free, stopped, strict=True):
        end = whole.index(stop) + 1 if stop in whole else NEW
        assert cut == whole[:end]
    assert len(stopped[0]) == 3


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_that_ended_leave_and_change_nothing(family, use_cache, monkeypatch):
    model = tiny_model(family)
    layout = layout_of(model.config)
    rows = [Row(tuple(prompt), edit) for edit in all_edits(family) for prompt in PROMPTS]
    free = decode_batch(model, layout, rows, Decoding(NEW, use_cache=use_cache))
    sizes = []
    forward = type(model).forward

    def counted(self, **inputs):
        # Prompts are passed in chunks; decoding passes one token a row, or without a cache all of them.
        if not use_cache or inputs["input_ids"].shape[1] == 1:
            sizes.append(len(inputs["input_ids"]))
        return forward(self, **inputs)

    monkeypatch.setattr(type(model), "forward", counted)
    found = decode_batch(
        model, layout, rows, Decoding(NEW, use_cache=use_cache, enough=lambda tokens: sum(tokens) % 3 == 0 or len(tokens) == 5)
    )
    ends = [
        next((n for n in range(1, NEW) if sum(whole[:n]) % 3 == 0 or n == 5), NEW) for whole in free
    ]  # fmt: skip
    assert found == [whole[:end] for whole, end in zip(free, ends, strict=True)]
    assert len(set(ends)) > 2
    assert len(rows) >= sizes[0] > min(sizes)
    assert sizes == sorted(sizes, reverse=True)


def test_a_pad_token_that_is_also_a_real_token_changes_nothing():
    model = tiny_model("llama")
    rows = [Row(tuple(prompt)) for prompt in PROMPTS]
    layout = layout_of(model.config)
    assert decode_batch(model, layout, rows, Decoding(NEW, pad_id=0)) == decode_batch(
        model, layout, rows, Decoding(NEW, pad_id=7)
    )


def test_out_of_memory_halves_the_batch(monkeypatch):
    model = tiny_model("llama")
    rows = [Row(tuple(prompt)) for prompt in PROMPTS]
    expected = everything(model, rows, Decoding(NEW))
    sizes = []

    def scarce(model, layout, some, decoding):
        sizes.append(len(some))
        if len(some) > 2:
            raise torch.OutOfMemoryError
        return decode_batch(model, layout, some, decoding)

    monkeypatch.setattr("demur.engine.decode.decode_batch", scarce)
    assert everything(model, rows, Decoding(NEW)) == expected
    assert max(sizes) == 8
    assert sorted(size for size in sizes if size <= 2) == [2, 2, 2, 2]

    def none(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("demur.engine.decode.decode_batch", none)
    with pytest.raises(WorkError, match="row 3 of 18 tokens does not fit"):
        everything(model, rows, Decoding(NEW))


def test_not_finite_logits_are_an_error():
    model, (one, _) = tiny_model("llama", dtype=torch.float16), directions()
    with pytest.raises(WorkError, match="not finite in torch.float16"):
        decode_batch(model, layout_of(model.config), [Row((1, 5, 6), add(one, 1e6))], Decoding(2))


def test_nothing_to_generate_is_refused():
    with pytest.raises(InputError, match="at least 1, not 0"):
        Decoding(0)


def test_groups_hold_every_row_once_within_the_budget():
    lengths = [5, 40, 3, 12, 12, 7, 100, 1]
    groups = group(lengths, 48)
    assert sorted(i for members in groups for i in members) == list(range(8))
    assert all(len(members) == 1 or len(members) * lengths[members[0]] <= 48 for members in groups)
    assert groups[0] == [6]
    assert max(map(len, group(lengths, 10_000, batch_rows=3))) == 3


def test_even_groups_hold_little_padding_once_they_are_large():
    # Three rows of ten are 30 of 660 tokens of padding, four 40 of 680, above a twentieth.
    assert group([20] * 30 + [10] * 9, 10_000, even=True) == [list(range(33)), list(range(33, 39))]
    # Where a pass would be small, padding costs less than another one.
    assert group([20, 10, 5], 10_000, even=True) == [[0, 1, 2]]


def test_left_padding():
    ids, mask = pad_left([[5, 6], [7, 8, 9]], 0, "cpu")
    assert ids.tolist() == [[0, 5, 6], [7, 8, 9]]
    assert mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert position_ids(mask).tolist() == [[0, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_of_equal_logits_the_first_is_chosen(dtype):
    logits = torch.randint(0, 20, (50, 5000), generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert _likeliest(logits, range(50)).tolist() == expected


def test_logits_of_a_row_that_has_ended_need_not_be_finite():
    new_tokens = NewTokens(2, Decoding(max_new_tokens=4, stop_ids=(1,)))
    new_tokens.add(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), [0, 1])
    new_tokens.add(torch.tensor([[float("nan")] * 3, [1.0, 0.0, 0.0]]), [0, 1])
    assert new_tokens.tokens == [[1], [2, 0]]
    with pytest.raises(NotFinite, match="row 1"):
        new_tokens.add(torch.tensor([[1.0, 0.0, 0.0], [float("inf")] * 3]), [0, 1])
