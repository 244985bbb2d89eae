"""The benchmarks compare like with like: every way gives the same tokens, and the floor counts what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.floor import count
from benchmarks.gpu import measure
from benchmarks.models import make
from benchmarks.speed import study_edits
from benchmarks.sweep import furthest, looped
from benchmarks.ways import Job, demur_style, hidden_states, seed_style, streamed, transformers_style
from demur.engine.checkpoints import wrap
from demur.inputs.prompts import prompt_format
from demur.measurements.selection.candidates import candidate_directions
from demur.measurements.selection.sweep import select_by_refusal
from tests.tape import on_tape
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny():
    return make("tiny", 7, "float32")


@pytest.mark.parametrize("kind", ["none", "ablate d1", "add 4 d1"])
def test_every_way_gives_the_same_tokens(tiny, kind):
    checkpoint, prompts = tiny
    job = Job(checkpoint, prompts, 4, study_edits(checkpoint)[kind])
    expected = seed_style(job)
    assert [len(tokens) for tokens in expected] == [4] * 7
    assert demur_style(job) == expected
    assert transformers_style(job, 3) == expected


def test_the_edits_of_a_study_change_tokens_and_one_call_is_like_single_ones(tiny):
    checkpoint, prompts = tiny
    edits = list(study_edits(checkpoint).values())
    singly = [demur_style(Job(checkpoint, prompts, 4, edit)) for edit in edits]
    assert demur_style(Job(checkpoint, prompts, 4), edits) == [tokens for one in singly for tokens in one]
    assert sum(one != singly[0] for one in singly[1:]) >= 8


def test_both_captures_read_the_same_stream(tiny):
    found = streamed(*tiny)
    assert len(found) == 1  # of two layers, the first is left out
    assert found == pytest.approx(hidden_states(*tiny, rows=3), abs=2e-3)


def test_the_floor_counts_what_torch_counts():
    checkpoint, [alone] = make("tiny", 1, "float32")
    checkpoint.model.set_attn_implementation("eager")  # torch does not count the fused one on a processor
    ids = torch.tensor([alone])
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        checkpoint.model(input_ids=ids, logits_to_keep=1)
    counted = count(checkpoint, [len(alone)], 1, 1).operations
    # Torch counts attention over the whole square, the floor over what a causal mask leaves of it.
    square = 4 * checkpoint.d_model * checkpoint.n_layers * len(alone) * (len(alone) - 1) / 2
    assert counted + square == counter.get_total_flops()


@pytest.mark.soak
def test_the_gpu_benchmark_runs_without_one():
    found = measure("tiny", 5, "float32", "cpu", 3, 1, on_tape)
    assert (found["same tokens as generate"], found["rows"], found["peak GiB"]) == (1.0, 5, None)
    assert found["rows a second"] == pytest.approx(5 / found["seconds"]["demur"])
    assert (found["same tokens captured"], found["same tokens captured steered"]) == (1.0, 1.0)
    assert set(found["seconds"]) == {"plain generate", "demur", "demur steered", "captured", "captured steered"}
    plain = measure("tiny", 5, "float32", "cpu", 3, 1, None)
    assert set(plain["seconds"]) == {"plain generate", "demur", "demur steered"}
    assert plain["edits cost in a captured step"] is plain["same tokens captured"] is None


def test_the_loop_and_the_sweep_score_and_choose_alike():
    checkpoint = wrap(tiny_model("llama", num_hidden_layers=5), tiny_tokenizer(), name="tiny")
    prompt = prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    sides, tokens = (HARMFUL[5:8], HARMLESS[5:8]), (39, 40)
    candidates = candidate_directions(checkpoint, HARMFUL[:5], HARMLESS[:5], prompt)
    ids = [prompt.encode(side) for side in sides]
    for bounds in ({}, {"kl_most": None, "induce_least": None}):
        ours = select_by_refusal(checkpoint, candidates, *sides, prompt, tokens, **bounds)
        theirs = looped(checkpoint, candidates, *ids, tokens, bounds)
        assert [one.dropped for one in ours.places] == [one.dropped for one in theirs.places]
        assert [one.place for one in ours.kept] == [one.place for one in theirs.kept]
    differences = furthest(ours, theirs)
    assert set(differences) == {"kl", "induce", "bypass"}
    assert max(differences.values()) < 1e-4
