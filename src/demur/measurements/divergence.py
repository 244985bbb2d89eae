"""The divergence of two next-token distributions, and the log-odds that a refusal begins: Arditi et al. 2024, section 2.3."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError


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
