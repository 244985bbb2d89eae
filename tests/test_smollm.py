"""On real weights: streams equal an independent computation, completions equal transformers' own, rows equal single rows."""

import itertools
import time

import pytest
import torch

import demur
from tests import reference

INSTRUCTIONS = demur.load_instructions("contrast-harmless").take("test", 6) + demur.load_instructions("contrast-harmful").take(
    "test", 6
)


@pytest.fixture(scope="module")
def prompt(smollm):
    return demur.prompt_format("chatml", smollm)


@pytest.fixture(scope="module")
def direction(smollm, prompt):
    sides = [demur.load_instructions(f"contrast-{label}").take("train", 8) for label in ("harmful", "harmless")]
    return demur.extract_direction(smollm, *sides, prompt, layer=16)


def test_streams_equal_transformers_hidden_states(smollm, prompt):
    found = demur.capture(smollm, INSTRUCTIONS, prompt)
    assert found.shape == (12, 30, 576)
    worst = 0.0
    for row, ids in enumerate(prompt.encode(INSTRUCTIONS)):
        with torch.inference_mode():
            hidden = smollm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        expected = torch.stack([state[0, -1] for state in hidden[:30]])
        worst = max(worst, float(((found[row] - expected).norm(dim=-1) / expected.norm(dim=-1)).max()))
    assert worst < 1e-5


@pytest.mark.soak
def test_completions_equal_generate(smollm, prompt):
    chosen = INSTRUCTIONS[::2]
    rows = demur.generate(smollm, chosen, prompt, max_new_tokens=16)[0]
    for row, ids in zip(rows, prompt.encode(chosen), strict=True):
        given = torch.tensor([ids])
        made = smollm.model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=16, pad_token_id=smollm.pad_id
        )
        assert list(row.token_ids) == made[0, len(ids) :].tolist()


@pytest.mark.soak
def test_rows_equal_single_rows_and_the_hand_written_walk(smollm, prompt, direction):
    edits = {
        "none": (None, reference.leave),
        "ablate": (demur.ablate(direction), reference.ablated(direction.vector)),
        "add": (
            demur.add(direction, 1.0, unit="raw", sites=("resid_pre", "resid_mid", "resid_post")),
            reference.shifted(direction.vector * direction.raw_norm, 16, ("resid_pre", "resid_mid", "resid_post")),
        ),
    }
    chosen = INSTRUCTIONS[5:7]  # one of each kind
    together = demur.generate(smollm, chosen, prompt, [edit for edit, _ in edits.values()], max_new_tokens=6, stop_at_eos=False)
    for (edit, by_hand), rows in zip(edits.values(), together, strict=True):
        for ids, row in zip(prompt.encode(chosen), rows, strict=True):
            single = demur.generate(smollm, [row.instruction], prompt, [edit], max_new_tokens=6, stop_at_eos=False)[0][0]
            assert single.token_ids == row.token_ids
            assert list(row.token_ids) == reference.decode(smollm.model, ids, by_hand, 6)
    assert len({tuple(row.token_ids for row in rows) for rows in together}) == 3


@pytest.mark.soak
def test_batch_sizes_and_cache_on_real_weights(smollm, prompt, direction):
    edits = [None, demur.ablate(direction), demur.add(direction, 1.0, unit="raw")]
    settings = {"max_new_tokens": 8}
    expected = demur.generate(smollm, INSTRUCTIONS, prompt, edits, batch_rows=1, **settings)
    for batch_rows, use_cache in itertools.product((3, 32), (True, False)):
        found = demur.generate(smollm, INSTRUCTIONS, prompt, edits, batch_rows=batch_rows, use_cache=use_cache, **settings)
        assert found == expected, (batch_rows, use_cache)


def test_trap_24_the_second_opening_reads_the_converted_folder(smollm):
    begun = time.monotonic()
    again = demur.load_checkpoint("demo:smollm2-135m-instruct")
    assert again.fingerprint == smollm.fingerprint
    # Opening the GGUF file itself takes above ten seconds on any machine; no exact timing is asked for.
    assert time.monotonic() - begun < 10


def test_trap_25_the_tokenizer_of_the_gguf_file(smollm, prompt):
    ids = prompt.encode(["hi"])[0]
    tokenizer = smollm.tokenizer
    assert tokenizer.decode(ids) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    # <|im_start|> counts as BOS here: it opens the prompt once, though it stands in it twice.
    assert tokenizer.convert_ids_to_tokens(ids).count("<|im_start|>") == 2
    from demur.inputs.prompts import bos_count

    assert bos_count(ids, tokenizer) == 1
    assert tokenizer.decode([smollm.stop_ids[0]]) == "<|im_end|>"
    assert prompt.token_at(-1) == "\u010a"
