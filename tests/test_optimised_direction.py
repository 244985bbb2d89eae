"""A direction found by gradient: its losses against plain code, its gradient against differences, and what it leaves alone."""

import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.measurements.gradient.descent import SearchSettings
from demur.measurements.gradient.optimised_cone import cone_weights, descended_cone, first_basis
from demur.measurements.gradient.vector_losses import LossWeights, VectorLosses, examples_of
from tests import reference
from tests.test_affine import direction
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def bound():
    checkpoint = demur.wrap(tiny_model("llama"), tiny_tokenizer(), name="tiny")
    return checkpoint, demur.prompt_format("{instruction}", checkpoint)


def test_the_loss_is_that_of_plain_code_and_its_gradient_that_of_differences(bound):
    checkpoint, prompt = bound
    start = direction(3, layer=1)
    engine, (three,) = examples_of(checkpoint, start, HARMFUL[:1], HARMLESS[:1], prompt, 3)
    vector = start.vector.double().float()

    def logits(example, edit):
        ids = [*example.prompt, *example.completion]
        _, found = reference.run_stream(checkpoint.model, torch.tensor([ids]), edit)
        return found[0, len(example.prompt) - 1 : -1].double().log_softmax(-1)

    def ablated(layer, site, stream):
        return stream - (stream @ vector)[..., None] * vector

    def added(layer, site, stream):
        return stream + start.raw_norm * vector if (layer, site) == (1, "resid_pre") else stream

    def cross(example, edit):
        return -logits(example, edit).gather(1, torch.tensor(example.completion)[:, None]).mean()

    plain, kept = logits(three[2], reference.leave), logits(three[2], ablated)
    expected = cross(three[0], ablated) + 0.2 * cross(three[1], added) + (plain.exp() * (plain - kept)).sum(-1).mean()
    search = VectorLosses(engine, start, LossWeights())
    leaf = vector.clone().requires_grad_()
    loss = search.loss(leaf, three)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, [leaf])
    step = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ahead, behind = (float(search.loss(vector + size * step, three)) for size in (1e-3, -1e-3))
    assert float(gradient @ step) == pytest.approx((ahead - behind) / 2e-3, rel=0.05)


def test_a_search_lowers_the_loss_and_leaves_the_model_alone(bound):
    checkpoint, prompt = bound
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    start = demur.extract_direction(checkpoint, HARMFUL[:4], HARMLESS[:4], prompt, layer=1)
    found = demur.optimise_direction(checkpoint, start, HARMFUL[:4], HARMLESS[:4], prompt, epochs=2, batch=2, tokens=3, rate=0.05)
    assert found.losses[0] > min(found.losses)
    assert (len(found.losses), found.direction.layer, found.direction.site) == (3, 1, start.site)
    assert found.direction.raw_norm == pytest.approx(start.raw_norm, rel=1e-6)
    assert found.direction.provenance.method == "gradient of ablate, add and retain losses"
    assert 0 < float(found.direction.vector @ start.vector) < 1
    assert all(torch.equal(before[name], value) for name, value in checkpoint.model.state_dict().items())
    assert all(one.grad is None for one in checkpoint.model.parameters())
    with pytest.raises(InputError, match="as many harmful as harmless instructions, not 2 and 1"):
        demur.optimise_direction(checkpoint, start, HARMFUL[:2], HARMLESS[:1], prompt)


def test_a_cone_finds_planted_directions():
    """A loss that is lowest along some planted directions: the cone turns until all of its directions are in their space."""
    planted = torch.linalg.qr(torch.randn(16, 3, generator=torch.Generator().manual_seed(4)))[0].T
    start = demur.from_raw(planted[0] + 0.5 * torch.randn(16, generator=torch.Generator().manual_seed(5)), name="d", layer=1)

    def loss(vector, _chosen):
        return 1 - (planted @ vector).square().sum() + vector.square().sum() - 1

    def total(vector, examples, batch):
        return float(loss(vector, examples))

    basis = first_basis(start, 3)
    assert torch.allclose(basis[0], start.vector, atol=1e-6)
    found, losses = descended_cone(loss, total, basis, [()] * 8, 4, SearchSettings(epochs=40, batch=2, rate=0.05))
    assert torch.allclose(found @ found.T, torch.eye(3), atol=1e-5)
    assert losses[0] > 0.5
    assert min(losses) < 1e-3
    assert (found @ planted.T).square().sum() == pytest.approx(3, abs=1e-2)
    weights = cone_weights(3, 5, torch.Generator().manual_seed(0))
    assert (weights >= 0).all()
    assert torch.allclose(weights.norm(dim=1), torch.ones(8))


def test_a_cone_lowers_the_mean_loss_of_its_directions_and_leaves_the_model_alone(bound):
    checkpoint, prompt = bound
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    start = demur.extract_direction(checkpoint, HARMFUL[:2], HARMLESS[:2], prompt, layer=1)
    sides, options = (HARMFUL[:2], HARMLESS[:2], prompt), {"epochs": 2, "batch": 2, "tokens": 3, "rate": 0.05}
    found = demur.optimise_cone(checkpoint, start, *sides, dimensions=2, samples=1, **options)
    # The loss at the start is the mean over the vectors and the drawn direction of the loss of one direction.
    basis = first_basis(start, 2)
    engine, examples = examples_of(checkpoint, start, *sides, 3)
    search = VectorLosses(engine, start, LossWeights())
    drawn = torch.randn(1, 2, generator=torch.Generator().manual_seed(0)).abs()[0]
    three = [basis[0], basis[1], (drawn[0] * basis[0] + drawn[1] * basis[1]) / drawn.norm()]
    assert found.losses[0] == pytest.approx(sum(search.total(one, examples, 2) for one in three) / 3, rel=1e-5)
    assert found.losses[0] > min(found.losses)
    one, other = found.subspace.directions
    assert abs(float(one.vector @ other.vector)) < 1e-5
    assert (one.name, one.layer, one.raw_norm) == (f"{start.name}.cone1", 1, pytest.approx(start.raw_norm, rel=1e-6))
    assert other.provenance.method == "gradient of ablate, add and retain losses over a cone, vector 2 of 2"
    assert all(torch.equal(before[name], value) for name, value in checkpoint.model.state_dict().items())
    again = demur.optimise_cone(checkpoint, start, *sides, dimensions=2, samples=1, **options)
    assert torch.equal(again.subspace.basis, found.subspace.basis)
    with pytest.raises(InputError, match="a cone has 2 to 32 dimensions, as the stream, not 1"):
        demur.optimise_cone(checkpoint, start, *sides, dimensions=1)
