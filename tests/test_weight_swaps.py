"""`weight-swaps`: weights go in and come out to the bit, and planted differences are found in the weights that hold them."""

import pytest
import torch

import demur
from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import pair_results
from demur.core.errors import InputError
from demur.engine.lockstep.matched_pair import matched_pair
from demur.engine.lockstep.weight_swap import check_swap, exchanged, names_in, weight_places
from demur.measurements.diffing.weight_swaps import SwapSettings, WeightSwaps, windows_of
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.rows import StoredMeasurement
from tests.pairs import attention_of, mlp_of, nothing, taught_pair, unembedding
from tests.test_patching import QUICK, pair_subject
from tests.tiny import FAMILIES, tiny_model, tiny_tokenizer

SETTINGS = SwapSettings(**{name: value for name, value in QUICK.items() if name != "completions"}, shares=(0.5,))
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
