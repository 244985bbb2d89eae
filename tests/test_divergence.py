"""`divergence`: exact numbers against naive code, 0 for a checkpoint and itself, and what ablation is shown to do."""

import math
import random

import numpy
import pytest
import torch

import demur
from demur.analysis.diff.diff_details import DiffDetails
from demur.analysis.diff.divergence_results import MeasuredDivergence, divergence_results
from demur.analysis.diff.findings import findings
from demur.core.errors import WorkError
from demur.engine.lockstep.matched_pair import matched_pair
from demur.measurements.diffing import response_divergence
from demur.measurements.diffing.response_divergence import (
    Compared,
    DivergenceSettings,
    ResponseDivergence,
    along_responses,
    check_itself,
)
from demur.measurements.divergence import distances
from demur.measurements.measurement import ArmSubject, PairSubject
from demur.runs.measuring.measured_details import diff_details
from demur.runs.rows import StoredMeasurement
from tests.pairs import mlp_of, nothing, taught_pair
from tests.tiny import HARMFUL, HARMLESS

SETTINGS = DivergenceSettings(instructions=4, max_new_tokens=6)


def subject_of(base, chat):
    """A pair whose later checkpoint has a direction of its own."""

    def arm(checkpoint, directions=()):
        prompt = demur.prompt_format("native", checkpoint)
        texts = {"harmful": HARMFUL, "harmless": HARMLESS}
        return ArmSubject(f"{checkpoint.name}/native", checkpoint, prompt, texts, texts, "resid_pre", -1, (2,), directions)

    direction = demur.extract_direction(chat, HARMFUL, HARMLESS, demur.prompt_format("native", chat), layer=2)
    return PairSubject(f"{base.name} with {chat.name} under native", arm(base), arm(chat, (direction,)))


def result_of(record):
    details = diff_details([StoredMeasurement("divergence", "base with chat", "{}", 1, record)])
    return details.divergence[0], findings([], details)


@pytest.fixture(scope="module")
def taught():
    return subject_of(*taught_pair(mlp_of(2)))


@pytest.fixture(scope="module")
def record(taught):
    return ResponseDivergence().measure(taught, SETTINGS)


def naive(checkpoint, ids):
    """Log-probabilities of the next token after every token, in one plain forward pass."""
    with torch.inference_mode():
        return checkpoint.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_the_numbers_are_those_of_a_plain_forward_pass_along_each_greedy_response(taught, record):
    pair = matched_pair(taught.second.checkpoint, taught.first.checkpoint)
    prompts = taught.second.prompt.encode(HARMFUL[:4])
    for writer, one in enumerate((pair.target, pair.source)):
        for row, prompt in enumerate(prompts):
            ids, expected = list(prompt), []
            for _ in range(6):
                later, earlier = (naive(each, ids)[-1] for each in (pair.source, pair.target))
                middle = torch.log((later.exp() + earlier.exp()) / 2)
                kl = [float((p.exp() * (p - q)).sum()) for p, q in ((later, earlier), (earlier, later))]
                js = sum(float((p.exp() * (p - middle)).sum()) for p in (later, earlier)) / 2
                expected.append([*kl, js, float(later.argmax() == earlier.argmax())])
                token = int((earlier if one is pair.target else later).argmax())
                if token in pair.stop_ids:
                    break
                ids.append(token)
            names = ("kl", "reverse", "js", "agrees")
            found = numpy.stack([record.arrays[f"{name} harmful"][writer, 0, row] for name in names], axis=1)
            numpy.testing.assert_allclose(found[: len(expected)], expected, atol=2e-4)
            assert numpy.isnan(found[len(expected) :]).all()


def test_an_edited_run_is_that_of_the_edited_checkpoint(taught, record):
    """After the prompt, ablated and null runs have the logits that demur gives for the edited checkpoint."""
    from demur.directions.controls.random_directions import random_direction

    later, direction = taught.second.checkpoint, taught.second.directions[0]
    means = demur.stream_means(later, HARMLESS, taught.second.prompt)
    edits = [demur.affine(one, to=means) for one in (direction, random_direction(direction, name="null-0"))]
    prompts = [tuple(ids) for ids in taught.second.prompt.encode(HARMFUL[:4])]
    from demur.engine.engine_protocol import Row

    found = {}
    for batch in later.engine.next_tokens([Row(ids, edit) for edit in (None, *edits) for ids in prompts]):
        found |= zip(batch.indices, batch.logits, strict=True)
    plain, ablated, null = (torch.stack([found[4 * run + row] for row in range(4)]) for run in range(3))
    for place, run in ((2, ablated), (4, null)):
        expected = distances(run, plain)
        for name in ("kl", "reverse", "js"):
            measured = record.arrays[f"{name} harmful"][0, place, :, 0]
            numpy.testing.assert_allclose(measured, getattr(expected, name), atol=1e-4)
    assert record.arrays["kl harmful"][0, 2, :, 0].min() > 1e-3


def test_a_checkpoint_has_no_divergence_from_itself_and_the_argument_says_so():
    found = ResponseDivergence().measure(subject_of(*taught_pair(nothing)), SETTINGS.model_copy(update={"ablation": False}))
    for name, values in found.arrays.items():
        assert numpy.nanmin(values) == numpy.nanmax(values) == float(name.startswith("agrees"))
    result, steps = result_of(found)
    assert not result.ablations
    (step,) = steps
    assert step.answer.startswith("Nowhere")
    assert not step.shown


def test_a_checkpoint_that_differs_from_itself_is_refused(monkeypatch):
    pair = matched_pair(*taught_pair(nothing))
    monkeypatch.setattr(
        response_divergence,
        "along_responses",
        lambda *_: {"kl": numpy.full((2, 1, 2, 4), 1e-9, dtype=numpy.float32), "agrees": numpy.ones((2, 1, 2, 4))},
    )
    with pytest.raises(WorkError, match="differs from itself: kl"):
        check_itself(pair, [(5, 6)], 4)


def test_the_size_of_a_batch_changes_nothing(taught):
    pair = matched_pair(taught.first.checkpoint, taught.second.checkpoint)
    prompts = [tuple(ids) for ids in taught.second.prompt.encode(HARMFUL)]
    compared = [Compared("later", "earlier", (1, 0))]
    whole = along_responses(pair, prompts, (None,), compared, 5)
    for row, prompt in enumerate(prompts):
        alone = along_responses(pair, [prompt], (None,), compared, 5)
        for name, values in whole.items():
            numpy.testing.assert_allclose(values[:, :, row], alone[name][:, :, 0], atol=1e-5)


def test_distances_have_their_bounds():
    first, second = (torch.randn(5, 9, generator=torch.Generator().manual_seed(seed)) * 30 for seed in (1, 2))
    found = distances(first, second)
    back = distances(second, first)
    torch.testing.assert_close(found.kl, back.reverse)
    torch.testing.assert_close(found.js, back.js)
    assert (found.js <= math.log(2) + 1e-12).all()
    assert (found.kl > 0).all()
    same = distances(first, first + 0)
    assert float(same.kl.abs().sum() + same.reverse.abs().sum() + same.js.abs().sum()) == 0
    assert same.agrees.all()


def made(before, after, null):
    """A stored divergence whose rows have these means in every token."""
    rows = numpy.stack([numpy.broadcast_to(numpy.array(each)[:, None], (len(before), 8)) for each in (before, after, null)])
    values = {name: rows[None].repeat(2, axis=0) for name in ("kl", "reverse", "js", "agrees")}
    compared = (("later", "earlier"), ("ablated", "earlier"), ("null", "earlier"))
    return MeasuredDivergence("x", "base", "chat", "native", ("base", "chat"), compared, {"harmful": values})


def ablation_of(*rows):
    (result,) = divergence_results([made(*rows)])
    return result.ablations[1], findings([], DiffDetails(divergence=(result,)))[1]


def test_ablation_brings_it_back_only_if_it_beats_a_random_direction():
    draw = random.Random(0)
    before = [1 + draw.random() for _ in range(16)]
    null = [each + draw.gauss(0, 0.01) for each in before]
    found, step = ablation_of(before, [0.3 * each for each in null], null)
    assert found.sign == -1
    assert step.answer == 'Mostly: along its responses the divergence from "base" falls by 70 %.'
    assert step.shown
    found, step = ablation_of(before, [2 * each for each in null], null)
    assert (found.sign, step.shown) == (1, True)
    assert step.answer.startswith('No: it moves away from "base"')
    found, step = ablation_of(before, [each + draw.gauss(0, 0.01) for each in null], null)
    assert (found.sign, step.shown) == (0, False)
    assert "not shown to be nearer" in step.answer


def test_ablation_without_an_effect_is_rarely_shown():
    """200 pairs in which the direction does what a random one does: at most one in twenty is told apart, up to chance."""
    told = 0
    for seed in range(200):
        draw = random.Random(seed)
        before = [draw.lognormvariate(0, 1) for _ in range(16)]
        rows = [[each * draw.lognormvariate(0, 0.2) for each in before] for _ in range(2)]
        told += ablation_of(before, *rows)[0].sign != 0
    assert told <= 20


def test_a_beginning_that_differs_more_is_found():
    rows = made([1.0 + 0.1 * number for number in range(8)], [1.0] * 8, [1.0] * 8)
    values = {name: each.copy() for name, each in rows.values["harmful"].items()}
    values["kl"][..., :5] *= 3
    values["kl"][0, :, 2, 4:] = numpy.nan  # a response that ends early
    (result,) = divergence_results([MeasuredDivergence(*_parts(rows), {"harmful": values})])
    plain = result.curves[0]
    assert [each.n for each in plain.by_token] == [8] * 4 + [7] * 4
    step = findings([], DiffDetails(divergence=(result,)))[0]
    assert step.answer == "At its beginning: the first 5 tokens have 3.0 times the divergence of the others."
    assert step.shown


def _parts(one):
    return one.subject, one.first, one.second, one.prompt, one.writers, one.compared
