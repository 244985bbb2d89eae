"""Two hundred tiny pairs of each known difference: how often patching finds it, and how often it shows something else.

The chat checkpoint was taught to refuse by one MLP, one head, or its unembedding alone; or it is the base checkpoint itself.
"""

import pytest

from demur.analysis.diff.findings import findings
from demur.analysis.diff.pair_results import pair_results
from demur.measurements.diffing.patching import Patching, PatchingSettings
from tests.pairs import HEADS, LAYERS, attention_of, mlp_of, nothing, taught_pair, unembedding
from tests.test_patching import QUICK, measured, pair_subject

pytestmark = pytest.mark.soak

PAIRS = 200
SMALL = {**QUICK, "judge": "tests.study_parts:StartsWithI", "max_new_tokens": 1, "instructions": 8, "parts": False}
LAYER = 'By which layer does the stream of "chat" hold what decides?'
BRANCH = "Does what one layer's attention or MLP adds carry the difference?"
HEAD = "Does one head carry the difference?"


def argument(weights, seed, *, head=None, steps=20, **settings):
    """The steps of the argument about a pair, by their questions."""
    subject = pair_subject(*taught_pair(weights, seed=seed, head=head, steps=steps))
    record = Patching().measure(subject, PatchingSettings(**{**SMALL, "components": False, **settings}))
    return {step.question: step for step in findings(pair_results([measured(record)]))}


def counted(name, seeds, ask):
    """How many of some pairs are told apart, show what is true in answer to every question, and show something else to any.

    Args:
        name: what is known of the pairs.
        seeds: their seeds.
        ask: from a seed to the argument, and to how the true answer to each question begins.
    """
    told = found = wrong = 0
    for seed in seeds:
        steps, true = ask(seed)
        # Of checkpoints that are not told apart the argument says nothing else.
        told += len(steps) > 1
        shown = {question: steps[question] for question in true if question in steps and steps[question].shown}
        right = [question for question, step in shown.items() if step.answer.startswith(true[question])]
        found += len(right) == len(true)
        wrong += len(right) < len(shown)
    print(f"{name}: of {len(seeds)} pairs {told} are told apart, {found} are found, and {wrong} show something else")
    return told, found, wrong


def one_mlp(seed):
    layer = seed % LAYERS
    steps = argument(mlp_of(layer), seed, components=True, layers=(max(0, layer - 1), layer))
    return steps, {LAYER: f"By layer {layer} ", BRANCH: f"The MLP of layer {layer} alone"}


def one_head(seed):
    layer, head = seed % LAYERS, seed // LAYERS % HEADS
    steps = argument(attention_of(layer), seed, head=head, steps=40, layers=(3,), heads=2)
    return steps, {HEAD: f"Head {head} of layer {layer} alone"}


def only_the_unembedding(seed):
    return argument(unembedding, seed, layers=(3,)), {LAYER: "No layer's stream carries half"}


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(("truth", "apart"), [(one_mlp, 0.9), (one_head, 0.4), (only_the_unembedding, 0.6)])
def test_a_planted_difference_is_found_and_rarely_anything_else_is_shown(truth, apart, half):
    """Nine tenths of the pairs that are told apart are found, and at most a tenth of all show something else.

    One head of a random checkpoint can rarely be taught to change refusals much, so fewer of these pairs are told apart.
    """
    seeds = range(half * PAIRS // 2, (half + 1) * PAIRS // 2)
    told, found, wrong = counted(truth.__name__, seeds, truth)
    assert told >= apart * len(seeds)
    assert found >= 0.9 * told
    assert wrong <= 0.1 * len(seeds)


def test_of_equal_checkpoints_nothing_is_shown():
    for seed in range(PAIRS):
        (step,) = argument(nothing, seed, layers=(3,)).values()
        assert step.answer.startswith("Nothing is shown")
        assert not step.shown
