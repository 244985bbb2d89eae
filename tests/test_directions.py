"""Directions: difference of means in float64, unit vectors, cosines, controls."""

import pytest
import torch

from demur.core.errors import InputError
from demur.directions.controls.random_directions import random_direction
from demur.directions.direction import Direction, RunningMean, cosines, difference_of_means, from_raw


def test_difference_of_means_in_float64():
    harmful, harmless = torch.randn(50, 3, 8) + 1000, torch.randn(40, 3, 8) + 1000
    sides = []
    for rows in (harmful, harmless):
        running = RunningMean()
        for part in rows.split(7):
            running.update(part)
        sides.append(running)
    expected = harmful.double().mean(0) - harmless.double().mean(0)
    found = difference_of_means(sides[0].mean, sides[1].mean, name="d", layers=[4, 5, 6])
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
