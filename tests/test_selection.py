"""Selections equal a naive sweep, one candidate and one instruction at a time, and can come out empty."""

import dataclasses
import math

import pytest
import torch

from demur.core.errors import InputError, WorkError
from demur.engine.checkpoints import wrap
from demur.inputs.prompts import prompt_format
from demur.measurements.divergence import divergence, refusal_log_odds
from demur.measurements.extraction import extract_directions
from demur.measurements.refusal_tokens import find_refusal_tokens
from demur.measurements.selection.candidates import candidate_directions
from demur.measurements.selection.ranking import KL_MOST, by_cosine, by_refusal, by_separation, jointly
from demur.measurements.selection.sweep import (
    keep_refused,
    refusal_scores,
    select_by_cosine,
    select_by_refusal,
    select_by_separation,
)
from tests.reference import ablated, leave, run_stream, shifted
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

TEMPLATE = "USER {instruction} ASSISTANT :"
TRAIN, VALID = slice(0, 5), slice(5, 8)
TOKENS = (39, 40)


@pytest.fixture(scope="module")
def ready():
    checkpoint = wrap(tiny_model("llama", num_hidden_layers=5), tiny_tokenizer(), name="tiny")
    prompt = prompt_format(TEMPLATE, checkpoint)
    return checkpoint, prompt, candidate_directions(checkpoint, HARMFUL[TRAIN], HARMLESS[TRAIN], prompt)


def _last(checkpoint, prompt, instruction, edit=leave):
    stream, logits = run_stream(checkpoint.model, torch.tensor(prompt.encode([instruction])), edit)
    return stream, logits[:, -1]


def test_candidates_are_differences_of_means(ready):
    checkpoint, prompt, candidates = ready
    assert candidates.positions == (-2, -1)
    # The first layer's input at a template token is that token's embedding: no direction there.
    assert set(candidates.directions) == {(position, layer) for position in (-2, -1) for layer in range(1, 5)}
    means = [
        torch.stack([_last(checkpoint, prompt, one)[0][2, "resid_pre"][0, -2].double() for one in side]).mean(0)
        for side in (HARMFUL[TRAIN], HARMLESS[TRAIN])
    ]
    found = candidates.directions[-2, 2]
    assert torch.allclose(found.vector * found.raw_norm, (means[0] - means[1]).float(), atol=1e-4)
    assert (found.position, found.layer, found.provenance["token read"]) == (-2, 2, "ASSISTANT")


class Median:
    """An estimator that needs whole activations."""

    name, needs = "median-difference", "activations"

    def fit(self, harmful, harmless):
        return (harmful.activations.median(0).values - harmless.activations.median(0).values).double()


def test_candidates_are_what_the_estimator_finds(ready):
    checkpoint, prompt = ready[:2]
    sides = HARMFUL[:3], HARMLESS[:3]
    found = candidate_directions(checkpoint, *sides, prompt, estimator=f"{__name__}:Median")
    position = found.positions[0]
    (single,) = extract_directions(checkpoint, *sides, prompt, layers=[2], position=position, estimator=f"{__name__}:Median")
    assert torch.allclose(found.directions[position, 2].vector, single.vector, atol=1e-6)
    assert found.directions[position, 2].provenance.method == "median difference"
    means = candidate_directions(checkpoint, *sides, prompt)
    assert torch.allclose(found.harmful, means.harmful, rtol=1e-9)
    assert not torch.allclose(found.directions[position, 2].vector, means.directions[position, 2].vector, atol=1e-3)


def test_scores_by_refusal_equal_a_naive_sweep(ready):
    checkpoint, prompt, candidates = ready
    rows = []
    for (position, layer), direction in candidates.directions.items():
        raw = direction.vector * direction.raw_norm

        def mean(values):
            return float(torch.stack(list(values)).mean())

        kl = mean(
            divergence(
                _last(checkpoint, prompt, one)[1], _last(checkpoint, prompt, one, ablated(direction.vector))[1]
            )[0]
            for one in HARMLESS[VALID]
        )  # fmt: skip
        induce = mean(
            refusal_log_odds(_last(checkpoint, prompt, one, shifted(raw, layer, ("resid_pre",)))[1], TOKENS)[0]
            for one in HARMLESS[VALID]
        )
        bypass = mean(
            refusal_log_odds(_last(checkpoint, prompt, one, ablated(direction.vector))[1], TOKENS)[0] for one in HARMFUL[VALID]
        )
        rows.append({"position": position, "layer": layer, "kl": kl, "induce": induce, "bypass": bypass})
    kls, induced = sorted(row["kl"] for row in rows), sorted(row["induce"] for row in rows)
    bounds = [
        {"kl_most": None, "induce_least": None, "last_layers": None},
        {"kl_most": kls[5] + 1e-3, "induce_least": induced[2] + 1e-3, "last_layers": 0.2},
        {},
    ]
    measured, stopped = [], []
    for bound in bounds:
        found = select_by_refusal(checkpoint, candidates, HARMFUL[VALID], HARMLESS[VALID], prompt, TOKENS, **bound)
        whole = by_refusal(rows, checkpoint.n_layers, **bound)
        assert [place.dropped for place in found.places] == [place.dropped for place in whole.places]
        assert [place.place for place in found.kept] == [place.place for place in whole.kept]
        for place, row in zip(found.places, rows, strict=True):
            for key, value in place.measures.items():
                if key == "kl_at_least":
                    assert bound.get("kl_most", KL_MOST) < value <= row["kl"] + 1e-3, place.place
                    assert set(place.measures) == {"kl_at_least"}, place.place
                else:
                    assert value == pytest.approx(row[key], abs=1e-3), (place.place, key)
        measured.append(sum(len(place.measures) for place in found.places))
        stopped.append(sum("kl_at_least" in place.measures for place in found.places))
    # What a filter drops is not measured further, and what it will drop whatever comes is not measured to the end.
    assert stopped[0] == 0 < stopped[1]
    assert measured[0] == 3 * len(rows)
    assert 0 < measured[1] < measured[0]


def test_cosmic_equals_a_naive_sweep(ready):
    checkpoint, prompt, candidates = ready
    selection = select_by_cosine(checkpoint, candidates, HARMFUL[VALID], HARMLESS[VALID], prompt, kl_most=None)
    means = [
        torch.stack(
            [torch.stack([_last(checkpoint, prompt, one)[0][k, "resid_pre"][0, -1].double() for k in range(5)]) for one in side]
        ).mean(0)
        for side in (HARMFUL[TRAIN], HARMLESS[TRAIN])
    ]
    layer = int(torch.nn.functional.cosine_similarity(*means, dim=-1).argmin())

    def state(one, edit=leave):
        return _last(checkpoint, prompt, one, edit)[0][layer, "resid_pre"][0, -1].double()

    harmful, harmless = (torch.stack([state(one) for one in side]).mean(0) for side in (HARMFUL[VALID], HARMLESS[VALID]))
    compared = 0
    for place in selection.places:
        direction = candidates.directions[place.place]
        complied = torch.stack([state(one, ablated(direction.vector)) for one in HARMFUL[VALID]]).mean(0)
        raised = shifted(direction.vector * direction.raw_norm, place.layer, ("resid_pre",))
        refused = torch.stack([state(one, raised) for one in HARMLESS[VALID]]).mean(0)
        for key, made, reference in (("comply", complied, harmless), ("refuse", refused, harmful)):
            if key in place.measures:
                expected = float(torch.nn.functional.cosine_similarity(made, reference, dim=0))
                assert place.measures[key] == pytest.approx(expected, abs=1e-4)
                compared += 1
    assert compared == 2 * len(selection.kept) > 0


def test_separation_is_measured_on_held_out_instructions(ready):
    checkpoint, prompt, candidates = ready
    selection = select_by_separation(checkpoint, candidates, HARMFUL[VALID], HARMLESS[VALID], prompt)
    place = selection.places[3]
    direction = candidates.directions[place.place]
    along = [
        [float(_last(checkpoint, prompt, one)[0][place.layer, "resid_pre"][0, place.position] @ direction.vector) for one in side]
        for side in (HARMFUL[VALID], HARMLESS[VALID])
    ]
    assert place.measures["auroc"] == pytest.approx(sum(a > b for a in along[0] for b in along[1]) / 9)
    assert selection.best is not None
    with pytest.raises(InputError, match="two instructions"):
        select_by_separation(checkpoint, candidates, HARMFUL[:1], HARMLESS[:1], prompt)


def _row(position=-1, layer=0, **scores):
    return {"position": position, "layer": layer, **scores}


def test_the_filters_and_the_order():
    rows = [
        _row(layer=0, bypass=-3.0, induce=1.0, kl=0.05),
        _row(layer=1, bypass=-9.0, induce=1.0, kl=0.2),
        _row(layer=2, bypass=-9.0, induce=-0.1, kl=0.05),
        _row(layer=3, bypass=-5.0, induce=0.0, kl=0.1),
        _row(layer=4, bypass=-9.0, induce=1.0, kl=0.05),
        _row(layer=3, position=-2, bypass=math.nan, induce=1.0, kl=0.05),
    ]
    found = by_refusal(rows, 5)
    assert [place.place for place in found.kept] == [(-1, 3), (-1, 0)]
    assert sum(found.reasons().values()) == 4
    assert len(found.reasons()) == 4
    assert found.best is not None
    assert found.best.score == 5.0
    free = by_refusal(rows, 5, kl_most=None, induce_least=None, last_layers=None)
    assert [place.layer for place in free.kept] == [1, 2, 4, 3, 0]


def test_no_place_may_be_valid():
    found = by_refusal([_row(layer=1, bypass=-1.0, induce=-2.0, kl=0.0)], 4)
    assert found.best is None
    assert found.kept == ()
    assert list(found.reasons().values()) == [1]
    assert by_cosine([_row(layer=3, comply=1.0, refuse=1.0, kl=0.0)], 4).best is None


def test_ties_of_separation_go_to_the_larger_gap():
    found = by_separation([_row(layer=1, auroc=1.0, gap=3.0), _row(layer=2, auroc=1.0, gap=5.0)], 10)
    assert found.best is not None
    assert found.best.layer == 2


def test_a_joint_choice_is_good_in_the_worst_checkpoint():
    one = by_separation([_row(layer=k, auroc=a, gap=1.0) for k, a in enumerate((1.0, 0.8, 0.9))], 10)
    other = by_separation([_row(layer=k, auroc=a, gap=1.0) for k, a in enumerate((0.6, 0.85, 0.7))], 10)
    found = jointly([one, other])
    assert found.best is not None
    assert (found.best.layer, found.best.score) == (1, 0.8)
    dropped = by_separation([_row(layer=k, auroc=math.nan, gap=1.0) for k in range(3)], 10)
    assert jointly([one, dropped]).best is None
    with pytest.raises(InputError, match="in common"):
        jointly([one, by_separation([_row(position=-7, auroc=1.0, gap=1.0)], 10)])
    with pytest.raises(InputError, match="one criterion"):
        jointly([one, by_refusal([], 10)])


class _Writes:
    """A checkpoint's completions are decided by the first letter of the instruction."""

    def __init__(self, monkeypatch, refusing):
        from demur.engine import generate as generating

        def generate(checkpoint, instructions, prompt, interventions, **_):
            made = []
            for one in instructions:
                text, ids = ("I cannot help", (40, 5)) if one in refusing else ("sure here", (44, 6))
                made.append(generating.Completion(one, text, ids))
            return [made]

        monkeypatch.setattr("demur.measurements.refusal_tokens.generate.generate", generate)


def test_refusal_tokens_are_found_and_checked(checkpoint, monkeypatch):
    harmful, harmless = [f"h{i}" for i in range(20)], [f"b{i}" for i in range(20)]
    prompt = prompt_format(TEMPLATE, checkpoint)
    _Writes(monkeypatch, {*harmful[:15], harmless[0]})
    found = find_refusal_tokens(checkpoint, harmful, harmless, prompt)
    assert (found.ids, found.coverage, found.precision, found.refusals, found.n) == ((40,), 1.0, 1.0, 16, 40)
    _Writes(monkeypatch, set(harmful[:5]))
    with pytest.raises(WorkError, match="too few"):
        find_refusal_tokens(checkpoint, harmful, harmless, prompt)


def test_instructions_that_are_not_refused_are_filtered(ready):
    checkpoint, prompt, _ = ready
    scores = refusal_scores(checkpoint, HARMFUL, prompt, TOKENS)[0]
    middle = float(scores.median())
    assert min(scores) < middle < max(scores)
    tokens = [int(_last(checkpoint, prompt, one)[1].argmax()) for one in HARMFUL]
    ids = tuple(set(tokens[:4]))
    expected = tuple(
        one for one in HARMFUL if float(refusal_log_odds(_last(checkpoint, prompt, one)[1], ids)[0]) > 0
    )  # fmt: skip
    kept_harmless = tuple(
        one for one in HARMLESS if float(refusal_log_odds(_last(checkpoint, prompt, one)[1], ids)[0]) < 0
    )  # fmt: skip
    if expected and kept_harmless:
        assert keep_refused(checkpoint, HARMFUL, HARMLESS, prompt, ids) == (expected, kept_harmless)
    with pytest.raises(WorkError, match="keeps 0"):
        keep_refused(checkpoint, HARMFUL, HARMLESS, prompt, [90])


def test_a_candidate_that_overflows_is_dropped_and_the_others_are_scored():
    checkpoint = wrap(tiny_model("llama", num_hidden_layers=5).half(), tiny_tokenizer(), name="tiny")
    prompt = prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    candidates = candidate_directions(checkpoint, HARMFUL[:4], HARMLESS[:4], prompt)
    place = next(place for place in candidates.directions if place[1] == 2)
    # More than float16 holds.
    huge = dataclasses.replace(candidates.directions[place], raw_norm=1e6)
    sides = HARMFUL[4:7], HARMLESS[4:7]
    some = dataclasses.replace(candidates, directions={**candidates.directions, place: huge})
    bounds = {"kl_most": None, "induce_least": None}
    found = {one.place: one for one in select_by_refusal(checkpoint, some, *sides, prompt, (39, 40), **bounds).places}
    before = {one.place: one for one in select_by_refusal(checkpoint, candidates, *sides, prompt, (39, 40), **bounds).places}
    assert "not a number" in found.pop(place).dropped
    before.pop(place)
    for where, one in found.items():
        assert one.measures == pytest.approx(before[where].measures)
