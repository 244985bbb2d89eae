"""Scores and losses equal what one row alone gives, computed another way."""

import numpy
import pytest
import torch

from demur.core.errors import InputError, WorkError
from demur.directions.direction import from_raw
from demur.directions.geometry import projections
from demur.directions.separation import separation
from demur.engine.checkpoints import wrap
from demur.engine.engine_protocol import Continuation, Row
from demur.engine.generate import generate
from demur.engine.score import continuation_losses, next_tokens
from demur.inputs.prompts import prompt_format
from demur.interventions.intervention import ablate, add
from demur.measurements.cross_entropy import completion_losses, text_losses
from demur.measurements.divergence import divergence, least_divergence, refusal_log_odds
from tests.reference import ablated, run_stream, shifted
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

PROMPTS = [(1, 7, 20, 33, 5, 60), (1, 9, 8), (1, 44, 12, 3, 70)]


def _direction(layer=1, seed=3):
    return from_raw(torch.randn(32, generator=torch.Generator().manual_seed(seed)), name="d", layer=layer)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_next_logits_and_states_equal_a_walk(family):
    model, direction = tiny_model(family), _direction()
    layout = wrap(model, tiny_tokenizer()).layout
    edits = [None, ablate(direction), add(direction, 2.0)]
    walks = [lambda layer, site, stream: stream, ablated(direction.vector), shifted(2 * direction.vector, 1, ("resid_pre",))]
    rows = [Row(prompt, edit) for edit in edits for prompt in PROMPTS]
    seen = 0
    for layers in ((), (1, 2)):
        for found in next_tokens(model, layout, rows, layers=layers, batch_tokens=24):
            for index, logits, states in zip(found.indices, found.logits, found.states, strict=True):
                edit, prompt = divmod(index, len(PROMPTS))
                stream, expected = run_stream(model, torch.tensor([PROMPTS[prompt]]), walks[edit])
                if layers:
                    for layer, state in zip(layers, states, strict=True):
                        assert torch.allclose(state, stream[layer, "resid_pre"][0, -1], atol=1e-4)
                else:
                    assert torch.allclose(logits, expected[0, -1], atol=1e-4)
                seen += 1
    assert seen == 2 * len(rows)


def test_a_row_that_is_not_finite_is_named():
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[44] = float("nan")
    layout = wrap(tiny_model("llama"), tiny_tokenizer()).layout
    for layers in ((), (1,)):
        with pytest.raises(WorkError, match="row 2"):
            list(next_tokens(model, layout, [Row(prompt) for prompt in PROMPTS], layers=layers))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_losses_equal_single_rows(family):
    model, direction = tiny_model(family), _direction()
    layout = wrap(model, tiny_tokenizer()).layout
    rows = [
        Continuation(p, c, e) for e in (None, ablate(direction)) for p, c in zip(PROMPTS, ((5, 6, 7), (8,), (9, 10)), strict=True)
    ]
    found = {}
    for indices, losses in continuation_losses(model, layout, rows, batch_tokens=40):
        found.update(zip(indices, losses, strict=True))
    for index, row in enumerate(rows):
        walk = ablated(direction.vector) if row.edits else (lambda layer, site, stream: stream)
        _, logits = run_stream(model, torch.tensor([[*row.prompt, *row.continuation]]), walk)
        expected = (
            -logits[0].double().log_softmax(-1)[len(row.prompt) - 1 : -1].gather(1, torch.tensor(row.continuation)[:, None])
        )
        assert torch.allclose(found[index], expected[:, 0], atol=1e-4)


def test_edits_of_generated_positions_act_on_the_continuation_only():
    model, direction = tiny_model("llama"), _direction()
    layout = wrap(model, tiny_tokenizer()).layout
    kinds = [None, *(add(direction, 4.0, positions=where) for where in ("prompt", "generated", "all"))]
    rows = [Continuation(PROMPTS[0], (5, 6, 7, 8), edit) for edit in kinds]
    ((_, (plain, prompt, generated, everywhere)),) = continuation_losses(model, layout, rows)
    # The first continuation token depends on the prompt alone.
    assert torch.allclose(generated[0], plain[0], atol=1e-5)
    assert torch.allclose(prompt[0], everywhere[0], atol=1e-5)
    assert not torch.allclose(generated[1:], plain[1:], atol=1e-2)
    assert not torch.allclose(prompt[1:], everywhere[1:], atol=1e-2)


def test_text_loss_equals_the_model_s_own(checkpoint):
    texts = ["make a cake and plant tomatoes", "write a poem about spring"]
    (found,) = text_losses(checkpoint, texts)
    total, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([checkpoint.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            total += float(checkpoint.model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert found.tokens == tokens
    assert found.mean == pytest.approx(total / tokens, rel=1e-5)
    assert text_losses(checkpoint, texts, max_tokens=3)[0].tokens == 4
    with pytest.raises(InputError, match="nothing to score"):
        text_losses(checkpoint, texts, max_tokens=1)


def test_own_completions_are_scored_by_their_tokens(checkpoint):
    prompt = prompt_format("USER {instruction} ASSISTANT", checkpoint)
    (made,) = generate(checkpoint, HARMFUL[:3], prompt, max_new_tokens=5, stop_at_eos=False)
    plain, removed = completion_losses(checkpoint, made, prompt, [None, ablate(_direction())])
    assert plain.tokens == removed.tokens == 15
    # Greedy tokens are the likeliest ones, so any edit makes them less so.
    assert plain.mean < removed.mean
    (texts,) = completion_losses(checkpoint, [("make a cake", " the sky is blue")], prompt)
    assert texts.tokens == 4


def test_log_odds_and_divergence():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]))
    assert refusal_log_odds(logits, [0]).tolist() == pytest.approx([0.0, 1.386294], abs=1e-5)
    assert refusal_log_odds(logits, [1, 2]).tolist() == pytest.approx([0.0, -1.386294], abs=1e-5)
    assert torch.isfinite(refusal_log_odds(torch.tensor([[200.0, 0.0]]), [1])).all()
    assert divergence(logits, logits).tolist() == pytest.approx([0, 0])
    expected = torch.nn.functional.kl_div(
        logits[1:].log_softmax(-1), logits[:1].log_softmax(-1), log_target=True, reduction="sum"
    )
    assert float(divergence(logits[:1], logits[1:])) == pytest.approx(float(expected), abs=1e-4)


def test_no_divergence_lies_below_the_least():
    generator = torch.Generator().manual_seed(0)
    # Flat and peaked; the smallest divergences are to what lies near, or where all that p has not is put on few tokens.
    before = torch.randn(40, 4096, generator=generator) * torch.linspace(0.1, 12, 40)[:, None]
    least = least_divergence(before)
    assert (least < 0).all()
    p = before.softmax(-1)
    rare = torch.full_like(p, -40.0).scatter(1, p.argmin(-1, keepdim=True), 40.0)
    near = [before + 10.0**-k * torch.randn(before.shape, generator=generator) for k in range(6)]
    cut = [before.masked_fill(p < bound, -60.0) for bound in (1e-7, 1e-6, 1e-5)]
    found = torch.stack([divergence(before, after) for after in (*near, *cut, rare, before)])
    assert (found >= least).all()
    # The epsilon does make it negative, so that zero would be no bound.
    assert (found < 0).any()


def test_separation_counts_pairs():
    found = separation(numpy.array([1.0, 2.0, 3.0]), numpy.array([0.0, 1.0]))
    assert found.auroc == pytest.approx(5.5 / 6)
    assert found.gap == pytest.approx(1.5 / (2.5 / 3) ** 0.5)
    assert separation(numpy.ones(2), numpy.ones(2)).auroc == 0.5
    assert separation(numpy.ones(2), numpy.zeros(2)).gap == float("inf")
    assert separation(numpy.zeros(2), numpy.ones(2)).gap == float("-inf")
    assert projections(torch.eye(3)[:2], torch.tensor([0.0, 1.0, 0.0])).tolist() == [0.0, 1.0]


def test_positions_are_those_no_instruction_changes(checkpoint):
    assert prompt_format("USER {instruction} ASSISTANT :", checkpoint).positions() == (-2, -1)
    assert prompt_format("USER {instruction}", checkpoint).positions() == ()
    assert len(HARMLESS) == len(HARMFUL)


def test_a_continuation_is_tokenised_with_its_prompt(smollm):
    prompt = prompt_format("USER: {instruction}\nASSISTANT:", smollm)
    before, behind = prompt.continued("Say hi", " Hello there")
    assert before == prompt.encode(["Say hi"])[0]
    assert smollm.tokenizer.decode(behind) == " Hello there"
    before, behind = prompt.continued("Say hi", "::")
    assert before + behind == smollm.tokenizer("USER: Say hi\nASSISTANT:::")["input_ids"]
    assert behind


def test_refusal_tokens_count_once_and_have_to_be_there():
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 3
    assert torch.equal(refusal_log_odds(logits, [5, 7, 5, 5]), refusal_log_odds(logits, [7, 5]))
    for ids in ([], [30], [-1]):
        with pytest.raises(InputError, match="ids from 0 to 29"):
            refusal_log_odds(logits, ids)
