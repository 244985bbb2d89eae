"""Null directions: what a direction that means nothing does when it is treated like one that should mean something.

A control takes layer, site, position and raw norm from the direction it stands beside, and nothing else. The same seed and name
give the same vector on every machine.
"""

import hashlib

import torch

from demur.directions.direction import Direction, from_raw


def random_direction(like: Direction, *, name: str, seed: int = 0) -> Direction:
    """A direction drawn uniformly from the sphere, of the same norm and read at the same place as `like`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    vector = torch.randn(like.vector.shape[0], generator=generator, dtype=torch.float64)
    facts = {"method": "random, same norm", "control of": like.name, "seed": seed}
    drawn = from_raw(vector, name=name, layer=like.layer, position=like.position, site=like.site, provenance=facts)
    return Direction(name, drawn.vector, like.raw_norm, like.layer, like.position, like.site, facts)
