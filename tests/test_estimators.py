"""Direction estimators: each against its formula computed in another way, and on activations with a known direction."""

import math

import numpy
import pytest
import torch
from scipy.optimize import minimize

import demur
from demur.core.errors import InputError
from demur.directions.estimators.estimator import estimator, fit_directions, fit_parts
from demur.directions.estimators.logistic import PENALTY
from demur.directions.estimators.som import trained_map
from demur.directions.estimators.whitened import ledoit_wolf_shrinkage
from demur.engine.checkpoints import wrap
from demur.measurements.extraction import whole_side
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

ADDED = ("mean-projected", "whitened", "logistic", "paired-pca")
WIDTH = 24
SIGNAL, LOUD = torch.eye(WIDTH, dtype=torch.float64)[:2]


def planted(gap, loud, n=200, seed=0, base=0.0):
    """Two sides whose means differ by `gap` along the first axis, with noise that is `loud` times as strong along the second.

    The noise along the second axis also goes, by half, along the first one.
    """
    generator = torch.Generator().manual_seed(seed)
    sides = []
    for shift in (gap, 0.0):
        rows = 0.3 * torch.randn(n, 2, WIDTH, generator=generator, dtype=torch.float64)
        strength = loud * torch.randn(n, 2, 1, generator=generator, dtype=torch.float64)
        sides.append((rows + strength * (LOUD + SIGNAL / 2) + shift * SIGNAL + base).float())
    return tuple(map(whole_side, sides))


def unit(vector):
    return vector / vector.norm()


def found(name, sides):
    (first, _) = fit_directions(*sides, name="d", layers=[4, 5], estimator_name=name)
    return first


def test_what_each_estimator_finds_where_the_noise_is_louder_than_the_signal():
    sides = planted(gap=1.0, loud=5.0, seed=1)
    # Reading along `best` cancels the loud noise, which goes along SIGNAL by half as much as along LOUD.
    best, loudest = unit(SIGNAL - LOUD / 2), unit(LOUD + SIGNAL / 2)
    vectors = {name: found(name, sides).vector.double() for name in ("difference-of-means", *ADDED)}
    along_best, along_noise = ({name: abs(float(one @ axis)) for name, one in vectors.items()} for axis in (best, loudest))
    for name in ("whitened", "logistic"):
        assert along_best[name] > 0.95
        assert along_noise[name] < 0.05
    assert along_best["difference-of-means"] < 0.85
    assert along_noise["difference-of-means"] > 0.5
    assert along_noise["paired-pca"] > 0.98


def test_all_estimators_find_a_signal_in_round_noise():
    sides = planted(gap=3.0, loud=0.0, base=1.0)
    for name in ("difference-of-means", *ADDED):
        assert float(found(name, sides).vector.double() @ SIGNAL) > 0.97, name


@pytest.mark.parametrize("name", ADDED)
def test_the_direction_is_as_long_as_the_means_are_apart_along_it(name):
    sides = planted(gap=1.0, loud=1.0, base=2.0)
    one = found(name, sides)
    apart = (sides[0].mean[0] - sides[1].mean[0]) @ one.vector.double()
    assert one.raw_norm == pytest.approx(float(apart), rel=1e-6)
    assert one.raw_norm > 0
    swapped = found(name, sides[::-1])
    if name != "mean-projected":  # It depends on which side is harmless.
        assert torch.allclose(swapped.vector, -one.vector, atol=1e-5)


@pytest.mark.parametrize("name", ADDED)
def test_layers_do_not_depend_on_each_other(name):
    sides = planted(gap=1.0, loud=1.0)
    together = fit_directions(*sides, name="d", layers=[4, 5], estimator_name=name)
    for row, direction in enumerate(together):
        (alone,) = fit_directions(*(side.at(row) for side in sides), name="d", layers=[4 + row], estimator_name=name)
        assert torch.allclose(alone.vector, direction.vector, atol=1e-6)


def test_mean_projected_is_orthogonal_to_the_harmless_mean():
    sides = planted(gap=1.0, loud=1.0, base=100.0)
    one = found("mean-projected", sides)
    harmful, harmless = (side.mean[0].numpy() for side in sides)
    expected = (harmful - harmless) - ((harmful - harmless) @ harmless) / (harmless @ harmless) * harmless
    assert one.raw_norm * one.vector.numpy() == pytest.approx(expected, abs=1e-6)
    assert abs(float(one.vector.double() @ unit(sides[1].mean[0]))) < 1e-6
    with_it = found("difference-of-means", sides)
    assert abs(float(with_it.vector.double() @ unit(sides[1].mean[0]))) > 0.01


@pytest.mark.parametrize(("n", "seed"), [(6, 1), (200, 2)])
def test_whitened_solves_the_shrunk_covariance(n, seed):
    sides = planted(gap=1.0, loud=2.0, n=n, seed=seed)
    rows = numpy.concatenate([side.activations[:, 0].double().numpy() for side in sides])
    rows[:n] -= rows[:n].mean(0)
    rows[n:] -= rows[n:].mean(0)
    sample = sum(numpy.outer(row, row) for row in rows) / len(rows)
    # Ledoit and Wolf 2004, section 3.2, with their norm |A|^2 = trace(A A^T) / width.
    level = numpy.trace(sample) / WIDTH
    spread = ((sample - level * numpy.eye(WIDTH)) ** 2).sum() / WIDTH
    error = sum(((numpy.outer(row, row) - sample) ** 2).sum() / WIDTH for row in rows) / len(rows) ** 2
    shrinkage = min(error, spread) / spread
    assert 0 < shrinkage < 1
    assert ledoit_wolf_shrinkage(torch.from_numpy(rows)) == pytest.approx(shrinkage)
    shrunk = shrinkage * level * numpy.eye(WIDTH) + (1 - shrinkage) * sample
    expected = numpy.linalg.inv(shrunk) @ (sides[0].mean[0] - sides[1].mean[0]).numpy()
    assert found("whitened", sides).vector.numpy() == pytest.approx(expected / numpy.linalg.norm(expected), abs=1e-6)


@pytest.mark.parametrize("n", [5, 60])
def test_logistic_is_the_minimum_of_its_loss(n):
    sides = planted(gap=1.0, loud=1.0, n=n, base=30.0)
    rows = numpy.concatenate([side.activations[:, 0].double().numpy() for side in sides])
    signs = numpy.repeat([1.0, -1.0], n)
    rows -= rows.mean(0)
    rows /= numpy.sqrt((rows**2).sum(1).mean())

    def loss(weights):
        return numpy.logaddexp(0, -signs * (rows @ weights[:-1] + weights[-1])).mean() + PENALTY / 2 * (weights[:-1] ** 2).sum()

    best = minimize(loss, numpy.zeros(WIDTH + 1), method="BFGS", options={"gtol": 1e-7}).x[:-1]
    assert found("logistic", sides).vector.numpy() == pytest.approx(best / numpy.linalg.norm(best), abs=1e-4)


def test_paired_pca_is_the_main_axis_of_the_differences():
    sides = planted(gap=1.0, loud=1.0, n=7)
    differences = (sides[0].activations[:, 0].double() - sides[1].activations[:, 0].double()).numpy()
    _, vectors = numpy.linalg.eigh(sum(numpy.outer(one, one) for one in differences))
    assert abs(found("paired-pca", sides).vector.numpy() @ vectors[:, -1]) == pytest.approx(1, abs=1e-6)
    other = whole_side(sides[1].activations.flip(0))
    assert not torch.allclose(found("paired-pca", (sides[0], other)).vector, found("paired-pca", sides).vector, atol=1e-3)
    with pytest.raises(InputError, match="pairs instructions, but there are 7 harmful and 6 harmless ones; give as many of both"):
        found("paired-pca", (sides[0], whole_side(sides[1].activations[:6])))


@pytest.mark.parametrize("name", ADDED)
def test_activations_that_do_not_differ_have_no_direction(name):
    same = whole_side(torch.ones(4, 2, WIDTH))
    with pytest.raises(InputError, match="harmful and harmless instructions have the same mean activation"):
        found(name, (same, same))


def test_no_direction_where_the_formula_has_none():
    one, double = whole_side(torch.ones(4, 2, WIDTH)), whole_side(2 * torch.ones(4, 2, WIDTH))
    for name in ("mean-projected", "whitened"):
        with pytest.raises(InputError, match=f"at layer 4 .* the estimator '{name}' finds no direction; choose another layer"):
            found(name, (double, one))


@pytest.mark.parametrize("name", ADDED)
def test_from_a_checkpoint_with_provenance(name):
    checkpoint = wrap(tiny_model("llama"), tiny_tokenizer(), name="toy")
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    (one,) = demur.extract_directions(checkpoint, HARMFUL, HARMLESS, prompt, layers=[2], estimator=name)
    sides = [whole_side(demur.capture(checkpoint, texts, prompt, layers=[2])) for texts in (HARMFUL, HARMLESS)]
    expected = estimator(name).fit(*sides)[0]
    assert torch.allclose(one.raw_vector(), expected, rtol=1e-5, atol=1e-6)
    assert one.provenance.method == name.replace("-", " ")
    assert one.provenance.fingerprint == checkpoint.fingerprint
    again = demur.extract_direction(checkpoint, HARMFUL, HARMLESS, prompt, layer=2, estimator=name)
    assert torch.equal(one.vector, again.vector)


def test_k_means_finds_the_centres_of_planted_clusters():
    generator = torch.Generator().manual_seed(3)
    centres = 6 * torch.eye(WIDTH, dtype=torch.float64)[[4, 7, 9]] + 20.0
    rows = torch.cat([
        centre + 0.1 * torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
        for centre, n in zip(centres, (5, 9, 7), strict=True)
    ])  # fmt: skip
    order = torch.randperm(len(rows), generator=generator)
    harmful = whole_side(rows[order][:, None].expand(-1, 2, -1).float())
    harmless = whole_side(torch.randn(8, 2, WIDTH, generator=generator).float())
    parts = fit_parts(harmful, harmless, name="d", layers=[4, 5], count=3, estimator_name="k-means")
    # The largest cluster first, each from the harmless mean to the mean of its own rows.
    for (one, other), (start, end) in zip(parts, ((5, 14), (14, 21), (0, 5)), strict=True):
        expected = rows[start:end].float().double().mean(0) - harmless.mean[0]
        assert torch.allclose(one.raw_vector(), expected, atol=1e-5)
        assert (one.layer, other.layer) == (4, 5)
    assert [one.provenance.method for one, _ in parts] == [f"k means, part {number} of 3" for number in (1, 2, 3)]
    again = fit_parts(harmful, harmless, name="d", layers=[4, 5], count=3, estimator_name="k-means")
    assert all(torch.equal(one[0].vector, other[0].vector) for one, other in zip(parts, again, strict=True))
    (single,) = fit_parts(harmful, harmless, name="d", layers=[4, 5], count=1, estimator_name="k-means")
    assert torch.allclose(single[0].vector, found("difference-of-means", (harmful, harmless)).vector, atol=1e-6)


def test_k_means_is_no_worse_than_another_implementation():
    from scipy.cluster.vq import kmeans2

    rows = numpy.random.default_rng(5).normal(size=(60, WIDTH))
    harmful, zero = whole_side(torch.tensor(rows)[:, None].float()), whole_side(torch.zeros(2, 1, WIDTH))
    parts = fit_parts(harmful, zero, name="d", layers=[0], count=4, estimator_name="k-means")
    centres = torch.stack([one.raw_vector() for (one,) in parts]).numpy()

    def spread(points):
        return (((rows[:, None] - points[None]) ** 2).sum(-1).min(1)).sum()

    theirs = min(spread(kmeans2(rows, 4, minit="++", seed=seed)[0]) for seed in range(10))
    assert spread(centres) <= 1.02 * theirs


def test_a_map_is_that_of_plain_loops():
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    starts, drawn = torch.randint(9, (16,), generator=generator), torch.randint(9, (60,), generator=generator)
    neurons = [[float(value) for value in rows[start]] for start in starts]
    spots = [(column + (0.5 if row in (1, 3) else 0.0), row * math.sqrt(0.75)) for row in range(4) for column in range(4)]
    for step, row in enumerate(drawn):
        target, decay = [float(value) for value in rows[row]], 1 + step / (60 / 2)
        lengths = [math.dist(target, neuron) for neuron in neurons]
        winner = lengths.index(min(lengths))
        for neuron, spot in zip(neurons, spots, strict=True):
            near = math.exp(-(math.dist(spot, spots[winner]) ** 2) / 2 / (0.33 / decay) ** 2)
            for axis, value in enumerate(target):
                neuron[axis] += 0.01 / decay * near * (value - neuron[axis])
    assert torch.allclose(trained_map(rows, starts, drawn), torch.tensor(neurons, dtype=torch.float64), atol=1e-12)


def test_a_map_finds_planted_clusters():
    generator = torch.Generator().manual_seed(3)
    centres = 6 * torch.eye(WIDTH, dtype=torch.float64)[[4, 7, 9]] + 20.0
    rows = torch.cat([centre + 0.1 * torch.randn(7, WIDTH, generator=generator, dtype=torch.float64) for centre in centres])
    harmful = whole_side(rows[:, None].float())
    harmless = whole_side(torch.randn(8, 1, WIDTH, generator=generator).float())
    parts = fit_parts(harmful, harmless, name="d", layers=[4], count=5, estimator_name="som")
    near = [torch.cdist((one.raw_vector() + harmless.mean[0])[None], centres)[0] for (one,) in parts]
    assert all(float(each.min()) < 0.6 for each in near)
    assert {int(each.argmin()) for each in near} == {0, 1, 2}
    assert parts[4][0].provenance.method == "som, part 5 of 5"
    again = fit_parts(harmful, harmless, name="d", layers=[4], count=5, estimator_name="som")
    assert all(torch.equal(one[0].vector, other[0].vector) for one, other in zip(parts, again, strict=True))
    with pytest.raises(InputError, match="'som' is asked for 17 directions, but only .* of its 16 neurons win"):
        fit_parts(harmful, harmless, name="d", layers=[4], count=17, estimator_name="som")


def test_estimators_that_cannot_give_so_many_say_so():
    sides = planted(gap=1.0, loud=0.0, n=3)
    with pytest.raises(InputError, match="asked for 4 directions, but there are only 3 different harmful activations"):
        fit_parts(*sides, name="d", layers=[4, 5], count=4, estimator_name="k-means")
    with pytest.raises(InputError, match="'whitened' gives one direction, and 2 are asked for"):
        fit_parts(*sides, name="d", layers=[4, 5], count=2, estimator_name="whitened")
