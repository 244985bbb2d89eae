"""Trees of continuations: in every family, the logits after a branch are those after the same tokens in a prompt of their own."""

import pytest
import torch

import demur
from demur.core.errors import InputError, NotFinite
from demur.engine.checkpoints import wrap
from demur.engine.engine_protocol import Branch, Row
from demur.engine.transformers_engine import TransformersEngine
from demur.models.families import layout_of
from tests.tiny import tiny_model, tiny_tokenizer

# Learned, rotary and ALiBi positions; global and local attention; blocks that get arguments for each row; experts.
FAMILIES = (
    "llama",
    "gpt2",
    "bloom",
    "mpt",
    "falcon-alibi",
    "gpt_neo-local",
    "gemma2",
    "gemma3_text",
    "cohere2",
    "gpt_oss",
    "opt",
)
PROMPTS = ((5, 9, 11, 7, 8, 20, 21), (4, 30), (5, 9, 14, 6), (12,))


def tree(tokens):
    """Two or three tokens after a branch, depending on it."""
    return [(7 * sum(tokens) + step) % 90 + 4 for step in range(3 if len(tokens) == 1 else 2)]


def explored(engine, rows, max_new_tokens=4, **settings):
    found = {}

    def follow(branches, logits):
        for branch, own in zip(branches, logits.float(), strict=True):
            assert branch not in found
            found[branch] = own.clone()
        return [tree(branch.tokens) for branch in branches]

    done = list(engine.explore(rows, follow, max_new_tokens=max_new_tokens, **settings))
    assert sorted(index for batch in done for index in batch) == list(range(len(rows)))
    return found


def edits_of(checkpoint):
    read = demur.from_raw(torch.randn(32, generator=torch.Generator().manual_seed(0)), name="d", layer=1)
    return [None, demur.ablate(read), demur.add(read, 2.0)]


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_equal_prompts_of_their_own(family):
    checkpoint = wrap(tiny_model(family), tiny_tokenizer(), name=family)
    rows = [Row(prompt, edit) for edit in edits_of(checkpoint) for prompt in PROMPTS]
    found = explored(checkpoint.engine, rows)
    # The prompt, two tokens after it, three after each of these, two after each of those.
    assert len(found) == len(rows) * (1 + 2 + 6 + 12)
    some = list(found)[:: 7 if family == "gpt_oss" else 3]
    alone = [Row((*rows[branch.row].prompt, *branch.tokens), rows[branch.row].edits) for branch in some]
    expected = {}
    for batch in checkpoint.engine.next_tokens(alone):
        expected.update(zip(batch.indices, batch.logits, strict=True))
    worst = max(float((found[branch] - expected[index]).abs().max()) for index, branch in enumerate(some))
    assert worst < 2e-4 * max(float(one.abs().max()) for one in expected.values())


def test_a_level_that_is_too_large_is_cut(checkpoint):
    rows = [Row(prompt, edit) for edit in edits_of(checkpoint) for prompt in PROMPTS]
    whole, cut = explored(checkpoint.engine, rows), explored(checkpoint.engine, rows, batch_tokens=30)
    assert whole.keys() == cut.keys()
    assert max(float((whole[one] - cut[one]).abs().max()) for one in whole) < 1e-4


def test_no_branch_is_longer_than_allowed(checkpoint):
    found = explored(checkpoint.engine, [Row(PROMPTS[0])], max_new_tokens=1)
    assert list(found) == [Branch(0)]
    found = explored(checkpoint.engine, [Row(PROMPTS[0])], max_new_tokens=2)
    assert {len(branch.tokens) for branch in found} == {0, 1}
    with pytest.raises(InputError, match="at least 1"):
        explored(checkpoint.engine, [Row(PROMPTS[0])], max_new_tokens=0)


def test_the_row_that_is_not_finite_is_named():
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[30] = float("nan")
    with pytest.raises(NotFinite) as raised:
        explored(TransformersEngine(model, tiny_tokenizer(), layout_of(model.config)), [Row(prompt) for prompt in PROMPTS])
    assert raised.value.row == 1
