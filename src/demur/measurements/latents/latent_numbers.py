"""What a sparse autoencoder makes of a stream: its reconstruction error, how often latents are active, and which are alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder

POOL = 50
"""A random latent is drawn from as many that are most like the chosen one."""


@dataclass(frozen=True, eq=False)
class LatentNumbers:
    """How latents behave on some token positions.

    Attributes:
        frequency: the share of token positions at which each latent is active.
        mean: the mean activation of each, over all token positions.
        unexplained: the variance of the stream that the reconstruction leaves, as a share of its variance.
        tokens: the number of token positions.
    """

    frequency: Float[Tensor, " latent"]
    mean: Float[Tensor, " latent"]
    unexplained: float
    tokens: int


def latent_numbers(sae: SparseAutoencoder, streams: Sequence[Tensor], targets: Sequence[Tensor] | None = None) -> LatentNumbers:
    """The numbers over all token positions of some prompts but the first of each.

    Args:
        sae: the autoencoder.
        streams: the stream of each prompt at all its token positions, (token, d_model).
        targets: what is reconstructed, if that is not what is read: what the MLP writes, for a transcoder.

    Raises:
        InputError: if there is no token position but the first.
    """
    # The first token has activations of its own kind (attention sinks), which would dominate every mean.
    rest = [one[1:] for one in streams if len(one) > 1]
    wanted = rest if targets is None else [one[1:] for one in targets if len(one) > 1]
    if not rest:
        raise InputError("the prompts have one token each, and the first token of a prompt is left out; give longer prompts")
    device = sae.encoder.device
    tokens = sum(map(len, rest))
    active, total = (torch.zeros(sae.latents, dtype=torch.float64, device=device) for _ in range(2))
    middle = torch.cat(wanted).double().mean(0).to(device)
    left, whole = 0.0, 0.0
    for one, other in zip(rest, wanted, strict=True):
        stream, target = one.to(device), other.double().to(device)
        found = sae.encode(stream)
        active += (found > 0).sum(0)
        total += found.double().sum(0)
        left += float((sae.decode(found).double() - target).square().sum())
        whole += float((target - middle).square().sum())
    return LatentNumbers((active / tokens).cpu(), (total / tokens).cpu(), left / whole if whole else 0.0, tokens)


def norm_limit(streams: Sequence[Tensor]) -> float | None:
    """A norm between those of the first token of each prompt and those of all others, if the first ones are massive.

    Args:
        streams: the stream of each prompt at all its token positions, (token, d_model).

    Returns:
        The limit, between both on a logarithmic scale; None unless the first tokens have at least twice the norm of any other.
    """
    first = min(float(one[0].norm()) for one in streams)
    other = max(float(one[1:].norm(dim=-1).max()) for one in streams if len(one) > 1)
    return (first * other) ** 0.5 if first >= 2 * other > 0 else None


def largest_cosines(
    rows: Float[Tensor, "latent d_model"], directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, " direction"]:
    """The largest absolute cosine of each direction with any row.

    Args:
        rows: unit vectors.
        directions: vectors.
    """
    unit = torch.nn.functional.normalize(directions, dim=-1)
    return torch.stack([(rows @ one).abs().max() for one in unit])


def shuffled_differences(
    harmful: Float[Tensor, "harmful d_model"], harmless: Float[Tensor, "harmless d_model"], *, draws: int, seed: int
) -> Float[Tensor, "draw d_model"]:
    """Differences of means of activations whose labels are shuffled.

    Args:
        harmful: the activations of harmful instructions.
        harmless: those of harmless ones.
        draws: how often labels are shuffled.
        seed: the seed.
    """
    activations, generator = torch.cat((harmful, harmless)).double(), torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        order = torch.randperm(len(activations), generator=generator)
        found.append(activations[order[: len(harmful)]].mean(0) - activations[order[len(harmful) :]].mean(0))
    return torch.stack(found).float()


def alike_sets(
    chosen: Sequence[int],
    frequency: Float[Tensor, " latent"],
    norm: Float[Tensor, " latent"],
    *,
    sets: int,
    seed: int,
) -> list[tuple[int, ...]]:
    """Random latents that are about as often active as the chosen ones, with about the same decoder norm.

    Args:
        chosen: the latents that they stand beside; none of them is drawn.
        frequency: the share of token positions at which each latent is active.
        norm: the norm of each latent's decoder row.
        sets: how many sets of as many latents.
        seed: the seed.

    Returns:
        The sets. A latent is drawn from the `POOL` others that are most like it, and is in a set once.

    Raises:
        InputError: if there are too few latents.
    """
    latents = len(frequency)
    if latents < 3 * len(chosen):
        raise InputError(f"{len(chosen)} of {latents} latents leave too few to draw random ones from; clamp fewer")
    # On a logarithmic scale, because a latent that is active twice as often is as different at 1 % as at 0.1 %.
    places = torch.stack((frequency.double().clamp(min=1e-6).log(), norm.double().clamp(min=1e-12).log()), 1)
    places = (places - places.mean(0)) / places.std(0).clamp(min=1e-9)
    taken = set(chosen)
    pools = []
    for one in chosen:
        order = (places - places[one]).square().sum(1).argsort().tolist()
        pools.append([latent for latent in order if latent not in taken][: max(POOL, 2 * len(chosen))])
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(sets):
        own: list[int] = []
        for pool in pools:
            left = [latent for latent in pool if latent not in own]
            own.append(left[int(torch.randint(len(left), (), generator=generator))])
        found.append(tuple(own))
    return found
