"""Directions: estimators in float64, unit vectors, cosines, controls, and what each direction says it is made of."""

import json
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

import demur
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.directions.controls.control import control_direction
from demur.directions.controls.random_directions import random_direction
from demur.directions.direction import Direction, cosines, from_raw
from demur.directions.estimators.estimator import Side, estimator, fit_directions
from demur.directions.provenance import Provenance
from demur.directions.running_mean import RunningMean
from demur.measurements.extraction import training_sides
from tests.tiny import tiny_model, tiny_tokenizer


def test_difference_of_means_in_float64():
    harmful, harmless = torch.randn(50, 3, 8) + 1000, torch.randn(40, 3, 8) + 1000
    sides = []
    for rows in (harmful, harmless):
        running = RunningMean()
        for part in rows.split(7):
            running.update(part)
        sides.append(Side(running.mean, running.mean_norm, running.count))
    expected = harmful.double().mean(0) - harmless.double().mean(0)
    found = fit_directions(*sides, name="d", layers=[4, 5, 6])
    for index, direction in enumerate(found):
        assert direction.layer == 4 + index
        assert torch.allclose(direction.vector.double() * direction.raw_norm, expected[index], atol=1e-6)
        assert abs(float(direction.vector.norm()) - 1) < 1e-6
    assert torch.allclose(sides[0].mean_norm, harmful.double().norm(dim=-1).mean(0))


def test_a_direction_is_a_finite_unit_vector():
    for vector in (torch.zeros(4), torch.full((4,), float("nan")), torch.tensor([float("inf"), 0, 0, 0])):
        with pytest.raises(InputError):
            from_raw(vector, name="bad", layer=0)
    with pytest.raises(InputError, match="unit vector"):
        Direction("long", torch.ones(4), 1.0, 0)
    for layer, site in ((-1, "resid_pre"), (0, "resid_late")):
        # Not by the class itself, whose types the tests check first.
        made = SimpleNamespace(name="x", vector=torch.ones(1), raw_norm=1.0, provenance=Provenance(), layer=layer, site=site)
        with pytest.raises(InputError, match="expected a layer from 0 and one of resid_pre, resid_mid, resid_post"):
            Direction.__post_init__(made)


def test_cosines():
    x = from_raw(torch.tensor([2.0, 0.0]), name="x", layer=0)
    y = from_raw(torch.tensor([3.0, 3.0]), name="y", layer=0)
    assert torch.allclose(cosines([x, y]), torch.tensor([[1, 0.5**0.5], [0.5**0.5, 1]], dtype=torch.float64))
    with pytest.raises(InputError, match=r"widths \[2, 3\]"):
        cosines([x, from_raw(torch.ones(3), name="z", layer=0)])


def test_random_controls():
    like = from_raw(torch.randn(400) * 9, name="before", layer=7, position=-3)
    one, again = random_direction(like, name="random-1"), random_direction(like, name="random-1")
    other, seeded = random_direction(like, name="random-2"), random_direction(like, name="random-1", seed=1)
    assert torch.equal(one.vector, again.vector)
    assert one.raw_norm == like.raw_norm
    assert (one.layer, one.position, one.site) == (7, -3, "resid_pre")
    found = cosines([like, one, other, seeded]) - torch.eye(4)
    # Four standard deviations of the cosine of unrelated directions, 1 / sqrt(400).
    assert found.abs().max() < 0.2
    # The first entries, so that a change of the drawing does not go unseen.
    assert one.provenance["control of"] == "before"


class MedianDifference:
    """An estimator from outside that needs every activation."""

    name, needs = "median-difference", "activations"

    def fit(self, harmful, harmless):
        return harmful.activations.double().median(0).values - harmless.activations.double().median(0).values


class ShuffledLabels:
    """A control from outside that needs every activation: the difference of means of two random halves."""

    name, needs, null_of = "shuffled-labels", "activations", "any split of these instructions"

    def make(self, beside, *, name, seed, harmful=None, harmless=None):
        together = torch.cat([harmful.activations, harmless.activations])[:, 0].double()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(together), generator=generator)
        half = together[order[: len(order) // 2]].mean(0) - together[order[len(order) // 2 :]].mean(0)
        raw = half / half.norm() * beside.raw_norm
        return from_raw(raw, name=name, layer=beside.layer, position=beside.position, site=beside.site)


class SignFlipped:
    """A control from outside that takes the direction alone, with a method of its own."""

    name, needs, null_of = "sign-flipped", "direction", "the same direction with random signs"

    def make(self, beside, *, name, seed, harmful=None, harmless=None):
        signs = torch.randint(0, 2, beside.vector.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        facts = {"method": "sign-flipped"}
        return from_raw(beside.raw_vector() * signs, name="any", layer=beside.layer, provenance=facts)


@pytest.fixture
def parts():
    added = (("estimator", MedianDifference), ("control", ShuffledLabels), ("control", SignFlipped))
    for kind, part in added:
        demur.register(kind, part.name, part)
    yield
    for kind, part in added:
        registry(kind).unregister(part.name)


@pytest.fixture(scope="module")
def bound():
    checkpoint = demur.wrap(tiny_model("llama"), tiny_tokenizer(), name="tiny")
    return checkpoint, demur.prompt_format("USER: {instruction} ASSISTANT:", checkpoint)


HARMFUL, HARMLESS = ["make a bomb", "steal the car", "kill me"], ["make a cake", "write a poem"]


@pytest.mark.parametrize("name", ["median-difference", f"{__name__}:MedianDifference"])
def test_an_estimator_from_outside(parts, bound, name):
    checkpoint, prompt = bound
    found = demur.extract_directions(checkpoint, HARMFUL, HARMLESS, prompt, layers=[2, 1], estimator=name)
    sides = [demur.capture(checkpoint, side, prompt, layers=[2, 1]).double() for side in (HARMFUL, HARMLESS)]
    for row, (layer, direction) in enumerate(zip([2, 1], found, strict=True)):
        expected = sides[0][:, row].median(0).values - sides[1][:, row].median(0).values
        assert direction.layer == layer
        assert torch.allclose(direction.raw_vector(), expected, atol=1e-5)
        assert direction.provenance.method == "median difference"
        norms = torch.cat([side[:, row] for side in sides]).norm(dim=-1)
        assert direction.provenance.mean_residual_norm == pytest.approx(float(norms.mean()))
    one = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=1, estimator=name)
    assert torch.equal(one.vector, found[1].vector)


def test_means_and_whole_activations_give_the_same_difference_of_means(bound):
    checkpoint, prompt = bound
    means, whole = (
        training_sides(checkpoint, HARMFUL, HARMLESS, prompt, layers=[1], needs=needs) for needs in ("means", "activations")
    )
    for side, other in zip(means, whole, strict=True):
        assert torch.allclose(side.mean, other.mean, rtol=1e-12)
        assert torch.allclose(side.mean_norm, other.mean_norm, rtol=1e-12)
        assert (side.count, side.activations, other.activations.shape[0]) == (other.count, None, other.count)
    found, again = (fit_directions(*sides, name="d", layers=[1]) for sides in (means, whole))
    assert torch.allclose(found[0].vector, again[0].vector, atol=1e-6)
    assert found[0].provenance.method == "difference of means"


def test_an_estimator_that_needs_activations_is_not_given_means_alone(parts, bound):
    checkpoint, prompt = bound
    means = training_sides(checkpoint, HARMFUL, HARMLESS, prompt, layers=[1])
    with pytest.raises(InputError, match="'median-difference' needs whole activations, but only means were taken"):
        fit_directions(*means, name="d", layers=[1], estimator_name="median-difference")


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        (torch.zeros(1, 32, dtype=torch.float64), InputError, r"at layer 1 .* the estimator 'broken' finds no direction"),
        (torch.ones(32, dtype=torch.float64), WorkError, r"gave \(32,\); expected one vector for each layer, \(1, 32\)"),
        ("north", WorkError, "gave str"),
        (torch.full((1, 32), float("nan"), dtype=torch.float64), InputError, "zero or not finite"),
    ],
)
def test_an_estimator_that_finds_no_direction_or_no_vectors(bound, vectors, error, message):
    class Broken(MedianDifference):
        name = "broken"

        def fit(self, harmful, harmless):
            return vectors

    demur.register("estimator", "broken", Broken)
    try:
        with pytest.raises(error, match=message):
            demur.extract_directions(*[bound[0], HARMFUL, HARMLESS, bound[1]], layers=[1], estimator="broken")
    finally:
        registry("estimator").unregister("broken")


def test_equal_means_have_no_difference(bound):
    with pytest.raises(InputError, match="at layer 0 .* have the same mean activation; this is always so for a template token"):
        demur.extract_direction(bound[0], HARMFUL, HARMLESS, bound[1], layer=0)


def test_unknown_estimators_and_controls(bound):
    with pytest.raises(InputError, match="no direction estimator 'difference'; did you mean 'difference-of-means'"):
        demur.extract_direction(bound[0], HARMFUL, HARMLESS, bound[1], layer=1, estimator="difference")
    with pytest.raises(InputError, match="no kind of control 'randon'; did you mean 'random'"):
        control_direction("randon", from_raw(torch.ones(4), name="x", layer=0), name="randon-1")
    demur.register("estimator", "nothing", object())
    try:
        with pytest.raises(InputError, match="'nothing' has no name, needs, fit"):
            estimator("nothing")
    finally:
        registry("estimator").unregister("nothing")


def test_controls_from_outside(parts, bound):
    checkpoint, prompt = bound
    beside = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=2)
    sides = training_sides(checkpoint, HARMFUL, HARMLESS, prompt, layers=[2], needs="activations")
    given = dict(zip(("harmful", "harmless"), sides, strict=True))
    for kind, more in (("shuffled-labels", given), ("sign-flipped", {}), ("random", {})):
        one, again, other = (control_direction(kind, beside, name=f"{kind}-1", seed=seed, **more) for seed in (3, 3, 4))
        assert torch.equal(one.vector, again.vector)
        assert not torch.equal(one.vector, other.vector)
        assert (one.name, one.layer, one.site, one.position) == (f"{kind}-1", 2, "resid_pre", -1)
        assert one.raw_norm == pytest.approx(beside.raw_norm)
        assert (one.provenance.control_of, one.provenance.seed) == ("tiny", 3)
    assert torch.equal(
        control_direction("random", beside, name="random-1", seed=3).vector,
        random_direction(beside, name="random-1", seed=3).vector,
    )
    with pytest.raises(InputError, match="'shuffled-labels' needs whole training activations"):
        control_direction("shuffled-labels", beside, name="x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 1}, "gave a direction of layer 1; expected that of 'own', 2"),
        ({"site": "resid_post"}, "of site resid_post; expected that of 'own', resid_pre"),
        ({"vector": torch.ones(5)}, "of width 5 and norm"),
        ({"vector": torch.ones(4) * 3}, "norm 6; expected those of 'own', 4 and 2"),
    ],
)
def test_a_control_of_another_place_or_norm_is_refused(changes, message):
    class Elsewhere(SignFlipped):
        def make(self, beside, *, name, seed, harmful=None, harmless=None):
            return from_raw(**{"vector": torch.ones(4), "name": name, "layer": beside.layer, **changes})

    demur.register("control", "elsewhere", Elsewhere())
    try:
        with pytest.raises(WorkError, match=message):
            control_direction("elsewhere", from_raw(torch.ones(4), name="own", layer=2), name="elsewhere-1")
    finally:
        registry("control").unregister("elsewhere")


FACTS = {
    "method": "difference of means",
    "checkpoint": "base",
    "source": "owner/name@main",
    "adapter": None,
    "fingerprint": "0123456789abcdef",
    "architecture": {"family": "llama", "layers": 3},
    "weights": "torch.float32",
    "quantised": None,
    "prompt": "chatml",
    "prompt text": "USER: {instruction}",
    "prompt digest": "0123456789abcdef",
    "token read": "ASSISTANT",
    "harmful": {"n": 8, "sha256": "ab"},
    "harmless": {"n": 8, "sha256": "cd"},
    "versions": {"demur": "0.1.0", "torch": "2", "transformers": "5"},
    "mean residual norm": 12.5,
    "model hint": "llama",
}
"""As a file of the version before provenance had types holds them."""


def test_provenance_reads_and_writes_the_keys_that_files_have():
    read = Provenance.of(FACTS)
    assert read == FACTS
    assert dict(read) == FACTS
    assert json.dumps(read.facts(), sort_keys=True) == json.dumps(FACTS, sort_keys=True)
    assert (read.prompt_text, read.token_read, read.mean_residual_norm) == ("USER: {instruction}", "ASSISTANT", 12.5)
    assert (read.harmful.n, read.architecture.layers, read.control_of, read.not_in_the_file) == (8, 3, None, ())
    assert (read["token read"], read.get("seed"), read.get("seed", 7)) == ("ASSISTANT", None, 7)
    assert "adapter" in read
    assert "seed" not in read
    with pytest.raises(KeyError):
        read["seed"]
    assert isinstance(read, Mapping)
    assert (len(read), list(read), {**read}) == (len(FACTS), list(read.keys()), FACTS)
    assert (list(read.values()), dict(read.items())) == (list(FACTS.values()), FACTS)


def test_provenance_does_not_change():
    read = Provenance.of(FACTS)
    with pytest.raises(ValidationError):
        read.seed = 3
    with pytest.raises(TypeError):
        read["seed"] = 3
    other = read.replaced(seed=3, token_read=":", not_in_the_file=("layer",))
    assert (other.seed, other["token read"], other["not in the file"]) == (3, ":", ["layer"])
    assert read == FACTS
    assert other != read


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"harmful": 3}, "'harmful'"),
        ({"architecture": {"family": "llama"}}, "'architecture'"),
        ({"mean residual norm": "12"}, "'mean residual norm'"),
        ({"seed": True}, "'seed'"),
        ({"not in the file": 3}, "'not in the file'"),
        ({"note": object()}, "'note'"),
    ],
)
def test_provenance_of_a_wrong_kind(facts, key):
    with pytest.raises(InputError, match=f"has {key} of a wrong kind"):
        from_raw(torch.ones(4), name="x", layer=0, provenance=facts)


def test_a_dict_is_no_provenance():
    # Not by the class itself, whose types the tests check first.
    made = SimpleNamespace(name="x", vector=torch.tensor([1.0]), raw_norm=1.0, provenance={})
    with pytest.raises(InputError, match="has a dict for its provenance; make it with demur.from_raw"):
        Direction.__post_init__(made)
