"""Attribution: sums are exact in every family, planted differences are found in their head or MLP, and exact patches agree."""

import numpy
import pytest
import torch

import demur
from demur.analysis.diff.attribution_results import MeasuredAttribution, attribution_results
from demur.analysis.diff.diff_details import DiffDetails
from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import pair_results
from demur.core.errors import InputError, WorkError
from demur.engine.lockstep.component_patch import Component, ComponentPatch
from demur.engine.lockstep.matched_pair import matched_pair
from demur.engine.lockstep.pair_tree import explore_pair
from demur.engine.readout import direct_attribution as direct
from demur.engine.readout.attribution_patching import attribution_patching
from demur.engine.readout.direct_attribution import components_of, direct_attribution, group_log_odds
from demur.measurements.diffing.attribution import Attribution, AttributionSettings
from demur.measurements.exact_refusal.refusal_beginnings import refusal_beginnings
from demur.runs.measuring.measured_details import diff_details
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.rows import StoredMeasurement
from tests.pairs import attention_of, mlp_of, nothing, taught_pair
from tests.test_patching import QUICK, pair_subject
from tests.tiny import FAMILIES, HARMFUL, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = [tuple(TOKENIZER(text)["input_ids"]) for text in HARMFUL]
GROUP = [40, 41, 45]
SETTINGS = AttributionSettings(**{name: value for name, value in QUICK.items() if name != "completions"}, tested=3, counts=(1, 4))
# A norm between the last block and the unembedding is followed by another map in `opt-projected`.
SUMMED = tuple(family for family in FAMILIES if family != "opt-projected")


def wrapped(family="llama", seed=1, **changes):
    return demur.wrap(tiny_model(family, seed=seed, **changes), TOKENIZER, name=f"{family}-{seed}")


def patched_logits(pair, patches):
    found = torch.zeros(1 + len(patches), len(PROMPTS), pair.vocabulary)

    def follow(branches, logits):
        for place, branch in enumerate(branches):
            found[:, branch.row] = logits[:, place]
        return [[] for _ in branches]

    for _ in explore_pair(pair, PROMPTS, patches, follow, max_new_tokens=1):
        pass
    return found


@pytest.mark.parametrize("family", SUMMED)
def test_components_sum_up_to_the_difference_of_logits(family):
    checkpoint = wrapped(family)
    found = direct_attribution(checkpoint, PROMPTS[:3], GROUP, 96)
    assert found.parts.shape == (3, len(components_of(checkpoint)))
    assert found.worst < 1e-5
    torch.testing.assert_close(found.parts.sum(1) + found.embedding + found.rest, found.total, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_number_is_that_of_naive_code(family):
    """Removing a part before the final norm, whose scale is held fixed, lowers the number by that part."""
    checkpoint = wrapped(family)
    found = direct_attribution(checkpoint, PROMPTS[:1], GROUP, 96)
    head = checkpoint.model.get_output_embeddings()
    seen = []
    handle = head.register_forward_hook(lambda _, given, output: seen.append((given[0][0, -1], output[0, -1])))
    with torch.inference_mode():
        checkpoint.model(input_ids=torch.tensor([PROMPTS[0]]))
    handle.remove()
    logits = seen[0][1].double()
    inside = torch.zeros(96, dtype=torch.bool)
    inside[GROUP] = True
    expected = (logits[inside].softmax(-1) * logits[inside]).sum() - (logits[~inside].softmax(-1) * logits[~inside]).sum()
    assert float(found.total[0]) == pytest.approx(float(expected), abs=1e-5)
    odds = logits[inside].exp().sum().log() - logits[~inside].exp().sum().log()
    assert float(found.log_odds[0]) == pytest.approx(float(odds), abs=1e-5)


def test_a_model_that_is_more_than_a_norm_after_its_blocks_is_refused():
    with pytest.raises(WorkError, match="leads from the last block to the unembedding"):
        direct_attribution(wrapped("opt-projected"), PROMPTS[:2], GROUP, 96)


def test_a_sum_that_is_wrong_is_refused(monkeypatch):
    whole = direct.HeadProjection.of_head
    monkeypatch.setattr(direct.HeadProjection, "of_head", lambda self, head: whole(self, 0 if head == 1 else head))
    with pytest.raises(WorkError, match="do not sum up to what the attention adds"):
        direct_attribution(wrapped(), PROMPTS[:2], GROUP, 96)


@pytest.mark.parametrize("family", ["llama", "gemma2", "bloom", "gpt_neox", "mixtral"])
def test_a_component_of_a_checkpoint_in_itself_changes_no_bit(family):
    checkpoint = wrapped(family)
    patches = [ComponentPatch((one,)) for one in (Component(1, "attention"), Component(1, "mlp"), Component(1, "head", 2))]
    source, floor, *patched = patched_logits(matched_pair(checkpoint, checkpoint), (None, *patches))
    assert torch.equal(source, floor)
    assert all(torch.equal(one, floor) for one in patched)


def test_all_components_together_are_the_source_where_the_rest_is_shared():
    first, second = wrapped(), wrapped(seed=2)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        second.model.get_parameter(name).data.copy_(first.model.get_parameter(name))
    parts = [tuple(Component(layer, part) for layer in range(3)) for part in ("attention", "mlp")]
    heads = tuple(one for one in components_of(first) if one.part == "head")
    patches = (ComponentPatch((*parts[0], *parts[1])), ComponentPatch((*heads, *parts[1])), ComponentPatch(parts[1]))
    source, whole, by_heads, half = patched_logits(matched_pair(second, first), patches)
    torch.testing.assert_close(whole, source, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(by_heads, source, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(half, source, atol=1e-2)


def test_a_scrambled_component_moves_the_stream_as_far_but_elsewhere():
    first, second = taught_pair(mlp_of(2))
    pair = matched_pair(second, first)
    one = Component(2, "mlp")
    source, floor, real, null = patched_logits(pair, (None, ComponentPatch((one,)), ComponentPatch((one,), scrambled=1)))
    torch.testing.assert_close(real, source, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(null, source, atol=0.1)
    assert not torch.allclose(null, floor, atol=1e-3)


def test_a_component_that_does_not_exist_is_refused():
    pair = matched_pair(wrapped(), wrapped(seed=2))
    for one, said in ((Component(9, "mlp"), "layers 0 to 2"), (Component(0, "head", 4), "heads 0 to 3")):
        with pytest.raises(InputError, match=said):
            patched_logits(pair, (ComponentPatch((one,)),))


@pytest.mark.parametrize(
    ("weights", "head", "place"), [(mlp_of(2), None, ("mlp", 2, None)), (attention_of(1), 1, ("head", 1, 1))]
)
def test_a_planted_difference_is_found_in_its_component(weights, head, place):
    first, second = taught_pair(weights, head=head, steps=10)
    pair, components = matched_pair(second, first), components_of(first)
    group = [TOKENIZER.convert_tokens_to_ids("I")]
    estimates = attribution_patching(pair, PROMPTS, group).mean(0)
    found = components[int(estimates.argmax())]
    assert (found.part, found.layer, found.head) == place
    # At this component alone both checkpoints differ: elsewhere the same inputs give the same outputs, or later ones differ.
    earlier = [index for index, one in enumerate(components) if one.layer < place[1]]
    assert not estimates[earlier].any()
    source, exact = patched_logits(pair, (ComponentPatch((found,)),))
    torch.testing.assert_close(exact, source, atol=1e-3, rtol=1e-3)


def test_estimates_are_the_derivative_of_exact_patches():
    """For a small difference of the weights the estimate is the exact change."""
    first, second = wrapped(), wrapped()
    for name, weight in second.model.named_parameters():
        generator = torch.Generator().manual_seed(len(name))
        if "lm_head" not in name:
            weight.data += 1e-3 * torch.randn(weight.shape, generator=generator)
    pair, components = matched_pair(second, first), components_of(first)
    estimates = attribution_patching(pair, PROMPTS, GROUP)
    chosen = range(0, len(components), 4)
    _, floor, *exact = patched_logits(pair, (None, *(ComponentPatch((components[index],)) for index in chosen)))
    before = group_log_odds(floor, GROUP)
    changes = torch.stack([group_log_odds(one, GROUP) - before for one in exact], 1)
    torch.testing.assert_close(changes.double(), estimates[:, list(chosen)], atol=2e-4, rtol=0.1)
    assert estimates.abs().max() > 2e-3


def test_a_batch_changes_no_estimate_and_equal_checkpoints_have_none():
    first, second = wrapped(), wrapped(seed=2)
    pair = matched_pair(second, first)
    alone = torch.cat([attribution_patching(pair, [one], GROUP) for one in PROMPTS])
    torch.testing.assert_close(attribution_patching(pair, PROMPTS, GROUP), alone, atol=1e-4, rtol=1e-3)
    assert attribution_patching(matched_pair(first, first), PROMPTS, GROUP).abs().max() < 1e-6


def attributed(*pair):
    record = Attribution().measure(pair_subject(*pair), SETTINGS)
    stored = [StoredMeasurement("attribution", "base with chat", "{}", 1, record)]
    (result,), details = pair_results(measured_pairs(stored)), diff_details(stored)
    return record, result, details


@pytest.fixture(scope="module")
def taught():
    return attributed(*taught_pair(mlp_of(2)))


def test_one_component_that_was_taught_carries_all_of_it(taught):
    _, result, details = taught
    assert result.differs
    recovered = {(curve.source, curve.kind, run.place): run.recovery for curve in result.curves for run in curve.runs}
    for source in ("chat", "base"):
        assert recovered[source, "top components", 1] == pytest.approx(1, abs=1e-4)
    (found,) = details.attribution
    assert found.components[0].name == "MLP of layer 2"
    assert found.components[0].p < 0.05
    steps = findings([result], details)
    few = next(step for step in steps if step.question.startswith("Do few components"))
    assert few.answer == '1 of the heads and MLPs brings 100 % of the difference into "base".'
    assert few.shown
    writes = next(step for step in steps if step.question.startswith("Which components"))
    assert "MLP of layer 2" in writes.answer
    assert writes.shown


def test_the_exact_changes_are_those_of_single_patches(taught):
    record, _, details = taught
    tested = numpy.array(record.facts["tested"]).reshape(2, -1)
    components = list(zip(record.facts["layer"], record.facts["head"], strict=True))
    top = components[tested[0][0]]
    assert top == (2, -1)
    odds = record.arrays["log_odds"]
    numpy.testing.assert_allclose(record.arrays["exact"][0, 0], odds[1] - odds[0], atol=1e-3)
    numpy.testing.assert_allclose(record.arrays["exact"][1, 0], odds[0] - odds[1], atol=1e-3)
    assert details.attribution[0].correlations[0].n == 6


def test_the_tokens_are_those_with_which_a_refusal_begins():
    base, chat = taught_pair(nothing)
    pair = matched_pair(chat, base)
    found = refusal_beginnings(pair.target, SETTINGS.judge, pair.vocabulary, pair.stop_ids)
    # The judge's phrases begin with `I` and `no`, and the vocabulary has `I` and `not`, which is no beginning.
    assert TOKENIZER.convert_ids_to_tokens(list(found)) == ["I"]


def test_nothing_is_said_of_equal_checkpoints():
    record, result, details = attributed(*taught_pair(nothing))
    assert not result.differs
    assert not record.arrays["exact"].any()
    (step,) = findings([], details)
    assert step.answer.startswith("None of the")
    assert not step.shown


def noise(seed, components=40, n=16):
    draw = numpy.random.default_rng(seed)
    direct = numpy.repeat(draw.normal(size=(1, n, components)), 2, axis=0) + draw.normal(size=(2, n, components))
    estimate, exact = draw.normal(size=(2, n, components)), draw.normal(size=(2, 12, n))
    tested = numpy.arange(12)[None].repeat(2, axis=0)
    heads = [-1 if place % 10 == 9 else place % 10 for place in range(components)]
    return MeasuredAttribution(
        "x", "base", "chat", [place // 10 for place in range(components)], heads, direct, direct.sum(-1), estimate, exact, tested
    )


def test_components_that_differ_by_chance_are_rarely_shown():
    """200 pairs of noise: a component is named, or estimates are trusted, in at most one of twenty, up to chance."""
    named = trusted = 0
    for seed in range(200):
        (result,) = attribution_results([noise(seed)])
        writes, agrees = findings([], DiffDetails(attribution=(result,)))
        named += writes.shown
        trusted += agrees.shown
    assert named <= 20
    assert trusted <= 20


def test_estimates_that_agree_are_trusted():
    one = noise(0)
    exact = one.estimate[:, :, :12].mean(1)[:, :, None] + 0.01 * one.exact
    (result,) = attribution_results([MeasuredAttribution(**{**one.__dict__, "exact": exact})])
    assert all(each.r > 0.95 for each in result.correlations)
    assert findings([], DiffDetails(attribution=(result,)))[1].shown
