"""Two checkpoints in lockstep: the tokens of each alone, patches that change what they should, and pairs that are refused."""

import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.engine.lockstep import batch_room, pair_tree
from demur.engine.lockstep.component_patch import Component, ComponentPatch
from demur.engine.lockstep.greedy_pair import decode_pair
from demur.engine.lockstep.matched_pair import matched_pair
from demur.engine.lockstep.pair_tree import begins_of, explore_pair
from demur.engine.lockstep.stream_patch import StreamPatch
from demur.engine.lockstep.target_edit import TargetEdit
from tests.tiny import HARMFUL, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = [tuple(TOKENIZER(text)["input_ids"]) for text in HARMFUL]


def checkpoints(family="llama", **changes):
    return tuple(
        demur.wrap(tiny_model(family, seed=seed, **changes), TOKENIZER, name=name) for name, seed in (("a", 1), ("b", 2))
    )


def alone(checkpoint, tokens=5):
    rows = demur.generate(checkpoint, list(HARMFUL), "{instruction}", max_new_tokens=tokens, stop_at_eos=False)[0]
    return [list(row.token_ids) for row in rows]


def first_logits(pair, patches):
    """Logits after each prompt in every run, and after one more given token."""
    found = {}

    def follow(branches, logits):
        for place, branch in enumerate(branches):
            found[branch] = logits[:, place].clone()
        return [[5] for _ in branches]

    for _ in explore_pair(pair, PROMPTS, patches, follow, max_new_tokens=2):
        pass
    return torch.stack([logits for _, logits in sorted(found.items(), key=lambda one: (one[0].row, one[0].tokens))], dim=1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bloom", "gpt_neox"])
def test_each_checkpoint_writes_what_it_writes_alone(family):
    first, second = checkpoints(family)
    pair = matched_pair(second, first)
    assert decode_pair(pair, PROMPTS, max_new_tokens=5) == alone(first)
    assert decode_pair(pair.reversed, PROMPTS, max_new_tokens=5) == alone(second)
    assert alone(first) != alone(second)


@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])
def test_a_patch_of_a_checkpoint_into_itself_changes_no_bit(family):
    first, _ = checkpoints(family)
    pair = matched_pair(first, first)
    source, floor, *patched = first_logits(pair, (None, *(StreamPatch(layer) for layer in range(3)), StreamPatch(1, "generated")))
    assert torch.equal(source, floor)
    assert all(torch.equal(one, floor) for one in patched)


def test_the_whole_stream_after_the_last_layer_is_the_source_where_the_unembedding_is_shared():
    first, second = checkpoints()
    second.model.lm_head.weight.data.copy_(first.model.lm_head.weight)
    second.model.model.norm.weight.data.copy_(first.model.model.norm.weight)
    source, floor, last, null = first_logits(matched_pair(second, first), (None, StreamPatch(2), StreamPatch(2, scrambled=1)))
    assert torch.equal(last, source)
    assert not torch.allclose(floor, source, atol=1e-2)
    assert not torch.allclose(null, source, atol=1e-2)


def test_positions_belong_to_the_prompt_or_to_generated_tokens():
    first, second = checkpoints()
    rows = len(PROMPTS)
    _, floor, both, prompt, generated = first_logits(
        matched_pair(second, first), (None, StreamPatch(1), StreamPatch(1, "prompt"), StreamPatch(1, "generated"))
    )
    # Rows alternate: after the prompt, and after one more token.
    after_prompt, later = slice(0, 2 * rows, 2), slice(1, 2 * rows, 2)
    assert torch.equal(generated[after_prompt], floor[after_prompt])
    assert torch.equal(prompt[after_prompt], both[after_prompt])
    assert not torch.allclose(prompt[after_prompt], floor[after_prompt], atol=1e-3)
    for one, other in ((generated, floor), (prompt, both), (prompt, floor)):
        assert not torch.allclose(one[later], other[later], atol=1e-3)


def test_a_patch_along_a_direction_sets_that_component_only():
    first, second = checkpoints()
    direction = torch.nn.functional.normalize(torch.randn(1, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    ours, theirs = (torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    made = StreamPatch(1, along=direction).change(theirs)(ours, ours)
    torch.testing.assert_close(made @ direction.T, theirs @ direction.T)
    rest = torch.eye(32) - direction.T @ direction
    torch.testing.assert_close(made @ rest, ours @ rest)
    scrambled = StreamPatch(1, scrambled=3).change(theirs)(ours, ours)
    torch.testing.assert_close((scrambled - ours).norm(dim=-1), (theirs - ours).norm(dim=-1))
    every = StreamPatch(1, along=torch.eye(32))
    _, whole, along = first_logits(matched_pair(second, first), (StreamPatch(1), every))
    torch.testing.assert_close(whole, along, atol=1e-4, rtol=1e-4)


def test_only_token_ids_that_both_have_are_compared():
    first = demur.wrap(tiny_model(seed=1), TOKENIZER, name="a")
    second = demur.wrap(tiny_model(seed=2, vocab_size=100), TOKENIZER, name="b")
    pair = matched_pair(second, first)
    assert pair.vocabulary == pair.reversed.vocabulary == 96
    assert first_logits(pair, (None,)).shape[-1] == 96


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("llama", {"num_hidden_layers": 2}, "llama with 2 layers of width 32"),
        ("qwen2", {}, "qwen2 with 3 layers"),
        ("llama", {"rms_norm_eps": 0.1}, "differ in 'rms_norm_eps'"),
        ("llama", {"num_key_value_heads": 4}, "differ in 'num_key_value_heads'"),
    ],
)
def test_other_architectures_are_refused(family, changes, said):
    first, other = demur.wrap(tiny_model(), TOKENIZER, name="a"), demur.wrap(tiny_model(family, **changes), TOKENIZER, name="b")
    with pytest.raises(InputError, match=said):
        matched_pair(first, other)


def test_another_tokenizer_is_refused_but_a_special_token_may_have_another_name():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = dict(TOKENIZER.get_vocab())
    first = demur.wrap(tiny_model(seed=1), TOKENIZER, name="a")

    def with_words(vocabulary):
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
        return demur.wrap(tiny_model(seed=2), tokenizer, name="b")

    swapped = {**words, "cake": words["bomb"], "bomb": words["cake"]}
    with pytest.raises(InputError, match="token .* is 'cake' in one tokenizer and 'bomb' in the other"):
        matched_pair(first, with_words(swapped))
    renamed = {("<turn>" if text == "<bos>" else text): index for text, index in words.items()}
    assert matched_pair(first, with_words(renamed)).vocabulary == 96


def test_a_patch_that_does_not_fit_is_refused():
    pair = matched_pair(*checkpoints())
    for patch, said in ((StreamPatch(3), "layers 0 to 2"), (StreamPatch(0, along=torch.ones(1, 8)), "width 8")):
        with pytest.raises(InputError, match=said):
            decode_pair(pair, PROMPTS, patch, max_new_tokens=1)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "bloom", "gpt_neox", "mllama"])
def test_blocks_that_run_once_for_all_patches_change_no_bit(family, monkeypatch):
    first, second = checkpoints(family)
    pair = matched_pair(second, first)
    direction = demur.from_raw(torch.ones(first.d_model), name="d", layer=1)
    runs = (
        None,
        *(StreamPatch(layer) for layer in range(3)),
        StreamPatch(1, "generated"),
        StreamPatch(1, "prompt"),
        StreamPatch(1, scrambled=1),
        ComponentPatch((Component(0, "mlp"),)),
        ComponentPatch((Component(2, "attention"), Component(1, "mlp"))),
        TargetEdit(demur.ablate(direction, layers=(2,))),
    )
    together = first_logits(pair, runs)
    asked = []
    monkeypatch.setattr(pair_tree, "can_skip", asked.append)
    assert torch.equal(first_logits(pair, runs), together)
    assert asked == [pair.target]


def test_a_skipped_block_computes_nothing_and_is_itself_again_afterwards():
    first, second = checkpoints()
    pair, calls = matched_pair(second, first), []
    blocks = first.model.model.layers
    hooks = [
        block.self_attn.register_forward_hook(lambda *_, layer=layer: calls.append(layer)) for layer, block in enumerate(blocks)
    ]
    assert begins_of(pair, (None, StreamPatch(1), StreamPatch(0))) == (3, 2, 1)
    first_logits(pair, (None, StreamPatch(1), StreamPatch(0)))
    for hook in hooks:
        hook.remove()
    # Two passes: all blocks once for the target as it is, and those after each patch again.
    assert sorted(calls) == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert not any("forward" in vars(block) for block in blocks)


def test_a_batch_takes_at_most_a_tenth_of_the_memory_of_both_checkpoints(monkeypatch):
    first, second = checkpoints(hidden_size=128, vocab_size=60000)
    pair = matched_pair(second, first)
    assert batch_room.batch_room(pair, (3, 3)).total == batch_room.LEAST_BYTES == 2**24
    monkeypatch.setattr(batch_room, "LEAST_BYTES", 0)
    room = batch_room.batch_room(pair, (3, 1))
    weights = 2 * sum(weight.nbytes for weight in first.model.parameters())
    assert room.total == int(0.06 * weights)
    # Keys and values of 3 blocks of the source, 3 that both runs share, and 2 of the second run alone; two streams.
    assert room.token == 4 * (2 * 64 * 8 + 2 * 128)
    assert room.logits == 4 * 6 * pair.vocabulary
    assert room.prompts(10) == room.total // 2 // (10 * room.token)
    assert room.branches(1) == room.total // 2 // (2 * room.token + room.logits) > room.branches(1000) == 1
    # The size of a batch changes no token.
    assert decode_pair(pair, PROMPTS, StreamPatch(1), max_new_tokens=4, batch_bytes=1) == decode_pair(
        pair, PROMPTS, StreamPatch(1), max_new_tokens=4
    )
