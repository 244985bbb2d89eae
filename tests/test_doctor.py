"""What the doctor says of a checkpoint, line by line."""

import re

import pytest

from demur.cli.doctor_lines import doctor_lines
from demur.core.errors import InputError
from demur.engine.checkpoints import wrap
from demur.engine.diagnosis import diagnosis
from tests.tiny import CHAT, tiny_model, tiny_tokenizer


def lines(family="llama", prompt="native", position=-1, **tokens):
    checkpoint = wrap(tiny_model(family), tiny_tokenizer(**{"chat_template": CHAT, **tokens}), name="tiny")
    return {line[:13].strip(): line[13:] for line in doctor_lines(diagnosis(checkpoint, prompt, position=position))}


def test_every_line():
    found = lines()
    assert list(found) == [
        "source", "fingerprint", "weights", "device", "memory", "layout", "branches", "sites", "self-check", "prompt", "tokens",
        "read at", "BOS", "stops at",
    ]  # fmt: skip
    assert re.fullmatch(r"0\.\d\dM in torch\.float32", found["weights"])
    assert found["device"] == "cpu"
    assert re.fullmatch(r"0\.00 GiB of weights on cpu, [\d.]+ GiB free in addition", found["memory"])
    assert found["layout"] == "llama: 3 blocks at model.layers, width 32"
    assert found["branches"] == "attention adds self_attn, MLP adds mlp, one after the other"
    assert found["sites"] == "resid_pre, resid_mid, resid_post"
    assert re.match(r"9 test edits, one per layer and site; each changes the logits by at least \S+ of the largest; branches "
                    r"sum to their blocks within 0\.\d+ rounding errors of torch\.float32", found["self-check"])  # fmt: skip
    assert found["prompt"] == "native: 'USER {instruction} ASSISTANT'"
    assert found["tokens"] == "USER <unk> >>ASSISTANT<<"
    assert found["read at"] == "position -1, 'ASSISTANT', where directions are read"
    assert found["BOS"] == "0 at the start; the tokenizer's BOS is '<bos>'"
    assert found["stops at"] == "'<eos>'"


def test_the_read_position_is_marked_where_it_is():
    found = lines(prompt="user {instruction} assistant :", position=-2)
    assert found["tokens"] == "<bos> user <unk> >>assistant<< :"
    assert found["BOS"].startswith("1 at the start")
    assert found["read at"].startswith("position -2, 'assistant'")
    with pytest.raises(InputError, match="position -6 is not in the prompt of 5 tokens"):
        lines(prompt="user {instruction} assistant :", position=-6)


@pytest.mark.parametrize(
    ("family", "branches", "sites"),
    [
        ("gpt_neox", "attention adds attention, MLP adds mlp, in parallel", "resid_pre, resid_post"),
        ("granite", "attention adds self_attn, MLP adds mlp, one after the other, times 0.22",
         "resid_pre, resid_mid, resid_post"),
        ("gemma3", "attention adds post_attention_layernorm, MLP adds post_feedforward_layernorm, one after the other",
         "resid_pre, resid_mid, resid_post"),
    ],
)  # fmt: skip
def test_families_differ(family, branches, sites):
    found = lines(family)
    assert (found["branches"], found["sites"]) == (branches, sites)


def test_a_base_model_without_a_template_is_still_described():
    found = lines(chat_template=None)
    assert found["prompt"] == "this tokenizer has no chat template; choose a prompt format with --prompt"
    assert "tokens" not in found
    assert "self-check" in found
    with pytest.raises(InputError, match="did you mean 'chatml'"):
        lines(prompt="chatlm")
