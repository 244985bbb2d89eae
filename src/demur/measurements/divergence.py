"""The divergence of two next-token distributions, and the log-odds that a refusal begins: Arditi et al. 2024, section 2.3."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError

ROWS = 8
"""The distances of so many rows are computed at a time."""


def refusal_log_odds(
    logits: Float[Tensor, "row vocab"], token_ids: Sequence[int], *, epsilon: float = 1e-8
) -> Float[Tensor, " row"]:
    """Log-odds that the next token is one of some tokens: log(p + epsilon) - log(1 - p + epsilon).

    Arditi et al. 2024, section 2.3 and appendix B; the epsilon is that of their code (pipeline/submodules/select_direction.py).

    Args:
        logits: next-token logits, one row a prompt.
        token_ids: first tokens of refusals. A token that is named twice counts once.
        epsilon: keeps the logarithms finite.

    Returns:
        One value a row, float64, in nats.

    Raises:
        InputError: if no token is given, or if one is not in the vocabulary.
    """
    ids = sorted(set(token_ids))
    if not ids or not 0 <= ids[0] <= ids[-1] < logits.shape[-1]:
        raise InputError(f"refusal tokens must be one or more ids from 0 to {logits.shape[-1] - 1}, not {ids}")
    p = logits.double().softmax(-1)[:, ids].sum(-1)
    return torch.log(p + epsilon) - torch.log(1 - p + epsilon)


def divergence(
    before: Float[Tensor, "row vocab"], after: Float[Tensor, "row vocab"], *, epsilon: float = 1e-6
) -> Float[Tensor, " row"]:
    """KL(before || after) of next-token distributions, as Arditi et al.'s code computes it.

    The epsilon in each logarithm limits the influence of tokens with almost no probability. With epsilon 0 the result is exact.

    Args:
        before: next-token logits without an edit.
        after: next-token logits with the edit, of the same rows.
        epsilon: added to every probability inside a logarithm.

    Returns:
        One value a row, float64, in nats.
    """
    p, q = before.double().softmax(-1), after.double().softmax(-1)
    return (p * (torch.log(p + epsilon) - torch.log(q + epsilon))).sum(-1)


def least_divergence(before: Float[Tensor, "row vocab"], *, epsilon: float = 1e-6) -> Float[Tensor, " row"]:
    """A lower bound of `divergence` for these logits. It is slightly below 0, because of the epsilon.

    Let P = p + epsilon and Q = q + epsilon. P and Q have the same sum, so the sum of P log(P / Q) is not negative. It is equal to
    the result of `divergence` plus epsilon times the sum of log(P / Q). The second term is largest if q is 0.

    Args:
        before: next-token logits without an edit.
        epsilon: the same as for `divergence`.

    Returns:
        One value a row, float64, in nats; none is above 0.
    """
    p = before.double().softmax(-1)
    return -(epsilon * torch.log1p(p / epsilon)).sum(-1)


@dataclass(frozen=True, eq=False)
class Distances:
    """How far apart two next-token distributions are, one value for each row.

    Attributes:
        kl: KL(first || second), in nats.
        reverse: KL(second || first), in nats. Both are 0 for equal distributions and have no upper bound.
        js: the Jensen-Shannon divergence, in nats: at most log 2, however unlikely one finds what the other says.
        agrees: 1 where both have the same most likely token, else 0.
    """

    kl: Float[Tensor, " row"]
    reverse: Float[Tensor, " row"]
    js: Float[Tensor, " row"]
    agrees: Float[Tensor, " row"]


def distances(first: Float[Tensor, "row vocab"], second: Float[Tensor, "row vocab"]) -> Distances:
    """Compare two next-token distributions, without an epsilon.

    Args:
        first: next-token logits, one row a prompt.
        second: the other logits of the same rows.

    Returns:
        The distances, float64. They are exactly 0 for equal logits.

    Example:
        >>> found = distances(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 9.0]]))
        >>> found.kl[0].item(), found.agrees.tolist(), bool(found.js[1] < math.log(2) < found.kl[1])
        (0.0, [1.0, 0.0], True)
    """
    # Some rows at a time, because about ten tensors of their size are made in float64.
    parts = [_distances(*some) for some in zip(torch.split(first, ROWS), torch.split(second, ROWS), strict=True)]
    return Distances(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Distances)))


def _distances(first: Tensor, second: Tensor) -> Distances:
    one, other = first.double().log_softmax(-1), second.double().log_softmax(-1)
    middle = torch.logaddexp(one, other) - math.log(2)

    def kl(p: Tensor, q: Tensor) -> Tensor:
        # A token that is impossible in p adds nothing, however impossible it is in q.
        return torch.where(p > -math.inf, p.exp() * (p - q), 0.0).sum(-1)

    # Half of log(2 p) of equal logits may differ from log p by rounding, so the middle of equal rows is taken as the row.
    middle = torch.where(one == other, one, middle)
    agrees = (first.max(-1).indices == second.max(-1).indices).double()
    return Distances(kl(one, other), kl(other, one), (kl(one, middle) + kl(other, middle)) / 2, agrees)
