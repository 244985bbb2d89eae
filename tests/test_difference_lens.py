"""`difference-lens`: a planted constant in the stream is found to the number, read as its token, and taken away exactly."""

import copy

import numpy
import pytest
import torch

import demur
from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import MeasuredPair, MeasuredRun, pair_results
from demur.core.errors import InputError
from demur.engine.readout.stream_logits import stream_logits
from demur.measurements.diffing.difference_lens import DifferenceLens, LensSettings
from demur.measurements.measurement import ArmSubject, PairSubject
from demur.runs.measuring.measured_details import diff_details
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.rows import StoredMeasurement
from tests.pairs import nothing, taught_pair, teach
from tests.test_patching import QUICK
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer(chat_template=CHAT)
SETTINGS = LensSettings(
    **{name: value for name, value in QUICK.items() if name != "completions"}, tokens=4, first=2, words=3, draws=40, layers=(2, 3)
)


def planted():
    """A base, and a chat checkpoint whose layer 1 adds one constant vector to the stream, which makes it say `I can`."""
    base = tiny_model("llama", num_hidden_layers=4, tie_word_embeddings=False, mlp_bias=True)
    chat = copy.deepcopy(base)
    bias = chat.model.layers[1].mlp.down_proj.bias
    teach(chat, [bias], None, 200)
    vector = (bias - base.model.layers[1].mlp.down_proj.bias).detach()
    return [demur.wrap(model, TOKENIZER, name=name) for model, name in ((base, "base"), (chat, "chat"))], vector


def subject_of(base, chat):
    def arm(checkpoint):
        prompt = demur.prompt_format("native", checkpoint)
        texts = {"harmful": HARMFUL, "harmless": HARMLESS}
        return ArmSubject(f"{checkpoint.name}/native", checkpoint, prompt, texts, texts, "resid_pre", -1, (2,))

    return PairSubject(f"{base.name} with {chat.name} under native", arm(base), arm(chat))


def looked(base, chat):
    record = DifferenceLens().measure(subject_of(base, chat), SETTINGS)
    stored = [StoredMeasurement("difference-lens", "base with chat", "{}", 1, record)]
    (result,), details = pair_results(measured_pairs(stored)), diff_details(stored)
    return record, result, details


@pytest.fixture(scope="module")
def found():
    checkpoints, vector = planted()
    return *looked(*checkpoints), vector


def test_the_planted_vector_is_found_at_every_place_after_its_layer(found):
    record, _, details, vector = found
    difference = torch.from_numpy(record.arrays["difference"])
    assert difference.shape == (4, 3, 32)
    assert torch.equal(difference[:2], torch.zeros(2, 3, 32))
    torch.testing.assert_close(difference[2], vector.expand(3, 32), atol=1e-5, rtol=1e-4)
    assert record.arrays["halves"][2] == pytest.approx([1, 1, 1], abs=1e-5)
    assert numpy.isnan(record.arrays["halves"][:2]).all()
    (lens,) = details.difference_lens
    at = next(one for one in lens.places if (one.layer, one.position) == (2, None))
    chat = planted()[0][1].model
    expected = chat.lm_head(chat.model.norm(vector[None]))[0]
    assert (at.up[0], at.down[0]) == tuple(TOKENIZER.decode([int(end)]) for end in (expected.argmax(), expected.argmin()))
    assert at.norm == pytest.approx(float(vector.norm()), rel=1e-4)
    assert (lens.texts, lens.tokens, lens.layer) == (6, 4, 2)


def test_taking_it_away_gives_the_earlier_checkpoint_and_adding_it_the_later_one(found):
    record, result, _, _ = found
    assert result.differs
    recovered = {(curve.source, curve.kind, run.place): run.recovery for curve in result.curves for run in curve.runs}
    assert recovered["base", "mean difference", 2] == pytest.approx(1, abs=1e-3)
    assert recovered["chat", "mean difference", 2] == pytest.approx(1, abs=1e-3)
    assert abs(recovered["chat", "random shift", 2]) < 0.1
    assert ("chat", "component", 2) not in recovered
    kinds = set(record.facts["kind"])
    assert kinds == {"alone", "mean difference", "random shift", "component", "random component"}


@pytest.mark.parametrize(("null", "shown"), [(0.9, True), (0.3, False)])
def test_the_argument_says_whether_refusals_change_back(null, shown):
    """A vector that does it counts only if a random one does not."""

    def run(source, target, kind, place, rate):
        return MeasuredRun(source, target, kind, place, tuple(rate + 0.001 * number for number in range(8)))

    runs = [run("base", "base", "alone", None, 0.1), run("chat", "chat", "alone", None, 0.9)]
    runs += [
        run("base", "chat", kind, 2, rate)
        for kind, rate in (("mean difference", 0.3), ("component", 0.5), ("random shift", null))
    ]
    runs += [run("chat", "base", "mean difference", 2, 0.6)]
    measured = MeasuredPair("difference-lens", "x", "base", "chat", "native", "starts", tuple(runs), 0.0)
    _, step = findings(pair_results([measured]))
    assert step.shown == shown
    assert ("Up to 75 %" in step.answer) == shown
    assert "its component removed 50 %" in step.evidence


def test_the_cosines_are_those_of_the_differences_of_means(found):
    record, _, details, vector = found
    checkpoints, _ = planted()
    for place, one in enumerate(checkpoints):
        prompt = demur.prompt_format("native", one)
        means = [demur.capture(one, rows, prompt).double().mean(0) for rows in (HARMFUL, HARMLESS)]
        expected = torch.nn.functional.cosine_similarity((means[0] - means[1])[2], vector.double(), dim=0)
        assert record.arrays["cosine"][place, 2, -1] == pytest.approx(float(expected), abs=1e-5)
    assert ((record.arrays["p"] > 0) & (record.arrays["p"] <= 1)).all()
    (step,) = findings([], details)
    assert step.shown == (record.arrays["p"][1, 2, -1] < 0.05)
    assert "its tokens: '" in step.evidence


def test_of_equal_checkpoints_it_says_that_nothing_was_added():
    record, result, details = looked(*taught_pair(nothing))
    assert not record.arrays["difference"].any()
    assert {curve.kind for curve in result.curves} == set()
    (step,) = findings([], details)
    assert step.answer.startswith("Nothing was added")
    assert not step.shown
    assert not result.differs


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "granite", "opt-projected"])
def test_the_lens_of_the_last_stream_is_the_model_itself(family):
    checkpoint = demur.wrap(tiny_model(family), TOKENIZER)
    ids = torch.tensor([[5, 9, 7]])
    stream = []
    blocks = checkpoint.layout.find_blocks(checkpoint.model)
    handle = blocks[-1].register_forward_hook(
        lambda *given: stream.append(given[-1][0] if isinstance(given[-1], tuple) else given[-1])
    )
    with torch.inference_mode():
        expected = checkpoint.model(input_ids=ids).logits[0]
    handle.remove()
    torch.testing.assert_close(stream_logits(checkpoint, stream[0].reshape(3, -1)), expected, atol=1e-5, rtol=1e-5)


def test_many_vectors_are_read_in_parts():
    checkpoint = demur.wrap(tiny_model(), TOKENIZER)
    vectors = torch.randn(70, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stream_logits(checkpoint, vectors)[65:], stream_logits(checkpoint, vectors[65:]))


def test_texts_that_are_too_short_are_refused():
    base, chat = taught_pair(nothing)
    with pytest.raises(InputError, match="have 40 tokens, but the mean difference needs 4"):
        DifferenceLens().measure(subject_of(base, chat), SETTINGS.model_copy(update={"tokens": 40}))
