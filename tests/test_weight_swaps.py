"""`weight-swaps`: weights go in and come out to the bit, and planted differences are found in the weights that hold them."""

import numpy
import pytest
import torch

import demur
from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import pair_results
from demur.core.errors import InputError, WorkError
from demur.engine.lockstep.low_rank import LowRankParts
from demur.engine.lockstep.matched_pair import matched_pair
from demur.engine.lockstep.weight_swap import check_swap, exchanged, names_in, weight_places
from demur.measurements.diffing.weight_swaps import SwapSettings, WeightSwaps, windows_of
from demur.measurements.measurement import MeasurementRecord
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.rows import StoredMeasurement
from tests.pairs import attention_of, mlp_of, nothing, taught_pair, unembedding
from tests.test_patching import QUICK, pair_subject
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

SETTINGS = SwapSettings(**QUICK, shares=(0.5,), ranks=())
TOKENIZER = tiny_tokenizer()


def wrapped(seed=1, family="llama", name="a", **changes):
    return demur.wrap(tiny_model(family, seed=seed, **changes), TOKENIZER, name=name)


def swapped(weights, *, head=None, steps=20, **settings):
    base, chat = taught_pair(weights, head=head, steps=steps)
    before = [one.model.state_dict() for one in (base, chat)]
    kept = [{name: weight.clone() for name, weight in one.items()} for one in before]
    record = WeightSwaps().measure(pair_subject(base, chat), SETTINGS.model_copy(update=settings))
    for one, was in zip((base, chat), kept, strict=True):
        assert all(torch.equal(weight, was[name]) for name, weight in one.model.state_dict().items())
    (result,) = pair_results(measured_pairs([StoredMeasurement("weight-swaps", "base with chat", "{}", 1, record)]))
    recovered = {(curve.source, curve.kind, run.place): run.recovery for curve in result.curves for run in curve.runs}
    return result, recovered


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_every_family_has_one_place(family):
    checkpoint = wrapped(family=family)
    places = weight_places(checkpoint)
    assert set(places) == set(dict(checkpoint.model.named_parameters()))
    for layer in range(checkpoint.n_layers):
        for part in ("attention", "mlp"):
            assert sum(checkpoint.model.get_parameter(name).ndim > 1 for name in names_in(places, (part,), [layer])) >= 1
    assert names_in(places, ("embedding",))
    norms = names_in(places, ("norm", "final"))
    assert all(checkpoint.model.get_parameter(name).ndim == 1 for name in norms)


@pytest.mark.parametrize(("share", "scrambled"), [(0.0, None), (1.0, None), (0.5, None), (1.0, 3)])
def test_weights_go_in_and_come_out_to_the_bit(share, scrambled):
    first, second = wrapped(), wrapped(2, name="b")
    mine, theirs = ({name: w.detach().clone() for name, w in one.model.named_parameters()} for one in (first, second))
    pair = matched_pair(second, first)
    names = names_in(weight_places(first), ("mlp",), [1])
    with pytest.raises(KeyboardInterrupt), exchanged(pair, names, share, scrambled):
        for name, weight in first.model.named_parameters():
            expected = mine[name] + share * (theirs[name] - mine[name]) if name in names else mine[name]
            if scrambled is None:
                torch.testing.assert_close(weight.detach(), expected)
            elif name in names:
                assert not torch.allclose(weight, expected)
                torch.testing.assert_close((weight - mine[name]).norm(), (theirs[name] - mine[name]).norm())
        raise KeyboardInterrupt
    assert all(torch.equal(weight, mine[name]) for name, weight in first.model.named_parameters())
    assert all(torch.equal(weight, theirs[name]) for name, weight in second.model.named_parameters())


def test_a_larger_vocabulary_keeps_its_own_rows():
    first, second = wrapped(), wrapped(2, name="b", vocab_size=100)
    pair = matched_pair(first, second)
    check_swap(pair)
    mine = second.model.get_input_embeddings().weight.detach().clone()
    with exchanged(pair, names_in(weight_places(second), ("embedding",))):
        inside = second.model.get_input_embeddings().weight
        assert torch.equal(inside[:96], first.model.get_input_embeddings().weight)
        assert torch.equal(inside[96:], mine[96:])
    assert torch.equal(second.model.get_input_embeddings().weight, mine)


def test_an_unembedding_that_is_tied_in_one_checkpoint_only_is_refused():
    pair = matched_pair(wrapped(tie_word_embeddings=True), wrapped(2, name="b", tie_word_embeddings=False))
    with pytest.raises(InputError, match="ties its unembedding"):
        check_swap(pair)


def test_the_windows_cover_every_layer_once():
    for n_layers, most in ((4, 10), (30, 10), (7, 3)):
        windows = windows_of(n_layers, most)
        assert [layer for window in windows for layer in window] == list(range(n_layers))
        assert len(windows) == min(n_layers, most)


@pytest.mark.parametrize(
    ("weights", "head", "part", "layer"),
    [(mlp_of(2), None, "mlp", 2), pytest.param(attention_of(1), 1, "attention", 1, marks=pytest.mark.soak)],
)
def test_a_difference_in_one_layer_is_found_in_its_part(weights, head, part, layer):
    result, recovered = swapped(weights, head=head, steps=20 if head is None else 40)
    other = "attention" if part == "mlp" else "mlp"
    for source in ("chat", "base"):
        for place in range(4):
            expected = pytest.approx(float(place == layer), abs=1e-4)
            assert recovered[source, "window", place] == recovered[source, part, place] == expected
            assert recovered[source, other, place] == pytest.approx(0, abs=1e-4)
            assert recovered[source, "prefix", place] == pytest.approx(float(place >= layer), abs=1e-4)
            assert recovered[source, "suffix", place] == pytest.approx(float(place <= layer), abs=1e-4)
        ends = [recovered[source, "interpolation", place] for place in (0, 1)]
        assert ends == [pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4)]
        assert recovered[source, f"all {part}", None] == pytest.approx(1, abs=1e-4)
        assert recovered[source, "unembedding", None] == pytest.approx(0, abs=1e-4)
    carried = findings([result])[1]
    assert f"layer {layer}" in carried.answer
    assert carried.shown


def test_a_difference_in_the_unembedding_is_found_there():
    result, recovered = swapped(unembedding, windows=2, instructions=8)
    assert recovered["chat", "unembedding", None] == pytest.approx(1, abs=1e-4)
    assert all(recovered["chat", "window", place] == pytest.approx(0, abs=1e-4) for place in (1, 3))
    assert "the unembedding" in findings([result])[2].answer


def test_nothing_is_said_of_equal_checkpoints():
    result, recovered = swapped(nothing, instructions=2, windows=2)
    assert set(recovered.values()) == {None}
    assert len(findings([result])) == 1


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_part_of_low_rank_is_that_of_the_singular_value_decomposition(family):
    first, second = wrapped(family=family), wrapped(2, family=family, name="b")
    mine, theirs = ({name: w.detach().clone() for name, w in one.model.named_parameters()} for one in (first, second))
    pair = matched_pair(second, first)
    parts = LowRankParts(pair, 3)
    assert {first.model.get_parameter(name).ndim for name in parts.names} <= {2, 3}
    with exchanged(pair, parts.names, changed=parts.read):
        for name in parts.names:
            torch.testing.assert_close(first.model.get_parameter(name).detach(), theirs[name], rtol=0, atol=1e-7)
    for way, sign in ((pair, 1), (pair.reversed, -1)):
        before, model = (mine, first.model) if sign == 1 else (theirs, second.model)
        for number, made in enumerate((parts.best(2), parts.random(2, 0))):
            with exchanged(way, parts.names, changed=made):
                for name in parts.names:
                    whole = (theirs[name] - mine[name]).double()
                    left, values, right = torch.linalg.svd(whole, full_matrices=False)
                    put_in = sign * (model.get_parameter(name).detach() - before[name]).double()
                    found = torch.linalg.svdvals(put_in)
                    torch.testing.assert_close(found[..., :2], values[..., :2], rtol=1e-4, atol=1e-5)
                    assert found[..., 2:].sum() < 1e-4
                    best = left[..., :2] @ (values[..., :2, None] * right[..., :2, :])
                    near = float((put_in - best).norm() / best.norm()) < 1e-4
                    assert near == (number == 0)
        assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    with pytest.raises(InputError, match="ranks from 1 to 3"):
        parts.best(4)


def test_the_rank_that_a_change_needs_is_found_and_random_matrices_do_not_bring_it():
    """The chat checkpoint was taught two tokens, `I can`: to bring them takes rank 2, and to break them rank 1."""
    base, chat = taught_pair(mlp_of(2))
    asked = SETTINGS.model_copy(update={"windows": 1, "ranks": (1, 2, 32), "instructions": 4})
    record = WeightSwaps().measure(pair_subject(base, chat), asked)
    (result,) = pair_results(measured_pairs([StoredMeasurement("weight-swaps", "base with chat", "{}", 1, record)]))
    at = {(curve.source, curve.kind): [run.recovery for run in curve.runs] for curve in result.curves}
    one, two, full = at["chat", "rank"]
    assert one < 0.1
    assert two > 0.9
    assert full == pytest.approx(at["chat", "all matrices"][0], abs=1e-5) == pytest.approx(1, abs=1e-5)
    assert max(at["chat", "random rank"]) < 0.1
    assert at["base", "rank"] == pytest.approx([1, 1, 1], abs=1e-5)
    step = findings([result])[3]
    assert step.shown
    assert step.answer.startswith("The best part of rank 2 of every matrix brings")
    assert "whole matrices of attention and MLPs 100 %" in step.evidence


def test_a_part_of_full_rank_that_is_not_the_whole_is_refused(monkeypatch):
    base, chat = taught_pair(mlp_of(2))
    monkeypatch.setattr(LowRankParts, "read", lambda _self, _name, difference: 0.9 * difference)
    with pytest.raises(WorkError, match="part of full rank of every matrix should act as the whole"):
        WeightSwaps().measure(pair_subject(base, chat), SETTINGS.model_copy(update={"ranks": (1,)}))


def test_completions_are_written_where_an_answer_may_rest_on_a_swap_that_changes_refusals():
    base, chat = taught_pair(mlp_of(2))
    asked = SETTINGS.model_copy(update={"windows": 2, "completions": 2, "instructions": 2})
    facts = WeightSwaps().measure(pair_subject(base, chat), asked).facts
    written = list(zip(facts["written_target"], facts["written_kind"], facts["written_place"], strict=True))
    moved = [("window", 3), ("all mlp", None)]
    assert {one[1:] for one in written} == {("alone", None), *moved}
    assert len(written) == 2 * 2 * 3


@pytest.mark.parametrize(("text", "broken"), [("I cannot help with that.", 0.0), ("the the the the the the the the", 1.0)])
def test_a_swap_whose_text_is_broken_shows_nothing(text, broken):
    kinds = [
        ("alone", None),
        ("window", 1),
        ("window", 3),
        ("permuted", 1),
        ("permuted", 3),
        ("all mlp", None),
        ("all norms", None),
    ]
    strong = {("window", 3), ("all mlp", None)}
    rows = [("chat", "chat", "alone", None), *(("base" if kind == "alone" else "chat", "base", kind, at) for kind, at in kinds)]
    facts = {name: [row[place] for row in rows] for place, name in enumerate(("source", "target", "kind", "place"))}
    facts |= {"first": "base", "second": "chat", "prompt": "native", "judge": "prefix"}
    facts |= {"written_target": ["base"] * 6, "written_kind": ["alone"] * 2 + ["window"] * 2 + ["all mlp"] * 2}
    facts |= {"written_place": [None, None, 3, 3, None, None]}
    facts |= {"written_text": ["I would plant them in May, when the soil is warm."] * 2 + [text] * 4}
    values = numpy.array([[0.9 if row[0] == row[1] == "chat" or row[2:] in strong else 0.1] * 8 for row in rows])
    record = MeasurementRecord(facts, {"probability": values + numpy.linspace(0, 0.05, 8), "gap": numpy.zeros((len(rows), 8))})
    (result,) = pair_results(measured_pairs([StoredMeasurement("weight-swaps", "base with chat", "{}", 1, record)]))
    _, layers, kind = findings([result])
    assert (layers.shown, kind.shown) == (broken == 0, broken == 0)
    assert ("only repeat themselves" in kind.evidence) == (broken == 1)
