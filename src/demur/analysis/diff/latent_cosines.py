"""How alike the chosen latents of two checkpoints are: pure functions of typed records."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from demur.analysis.cell import Record
from demur.analysis.diff.feature_results import MeasuredFeatures

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LatentCosine(Record):
    """A chosen latent of a later checkpoint, and the chosen latent of an earlier one whose decoder row is most like its own.

    Attributes:
        first: the earlier checkpoint.
        second: the later one.
        prompt: the prompt format of the later one.
        chosen: the set that both are from.
        latent: the latent of the later one.
        nearest: the latent of the earlier one.
        cosine: of their decoder rows.
    """

    first: str
    second: str
    prompt: str
    chosen: str
    latent: int
    nearest: int
    cosine: float


def latent_cosines(measured: Sequence[MeasuredFeatures]) -> list[LatentCosine]:
    """How alike the chosen latents of two checkpoints are, if each has an autoencoder of the same width.

    Args:
        measured: the measurements, those of earlier checkpoints first.

    Returns:
        For each chosen latent of a later arm the nearest one of the same set of an earlier arm of another checkpoint. Arms of the
        same prompt format are compared; of checkpoints that share none, their first arms.
    """
    found = []
    for number, later in enumerate(measured):
        before = [one for one in measured[:number] if one.checkpoint != later.checkpoint and _comparable(one, later)]
        for name in dict.fromkeys(one.checkpoint for one in before):
            mine = [one for one in before if one.checkpoint == name]
            earlier = next((one for one in mine if one.prompt == later.prompt), None)
            shared = {one.prompt for one in mine} & {one.prompt for one in measured if one.checkpoint == later.checkpoint}
            if earlier is None and not shared:
                earlier = mine[0]
            found += [] if earlier is None else _nearest(earlier, later)
    return found


def _comparable(one: MeasuredFeatures, other: MeasuredFeatures) -> bool:
    return bool(one.arrays["decoder"].shape[1] == other.arrays["decoder"].shape[1])


def _nearest(earlier: MeasuredFeatures, later: MeasuredFeatures) -> list[LatentCosine]:
    import numpy

    found = []
    for name, latents in later.chosen.items():
        others = earlier.chosen.get(name, ())
        if not others:
            continue
        rows = [_unit_rows(one, chosen) for one, chosen in ((later, latents), (earlier, others))]
        cosines = rows[0] @ rows[1].T
        for at, latent in enumerate(latents):
            best = int(numpy.abs(cosines[at]).argmax())
            found.append(
                LatentCosine(
                    first=earlier.checkpoint,
                    second=later.checkpoint,
                    prompt=later.prompt,
                    chosen=name,
                    latent=latent,
                    nearest=others[best],
                    cosine=float(cosines[at, best]),
                )
            )
    return found


def _unit_rows(one: MeasuredFeatures, chosen: Sequence[int]) -> "NDArray[Any]":
    import numpy

    rows = one.arrays["decoder"][[one.latents.index(latent) for latent in chosen]].astype(float)
    unit: NDArray[Any] = rows / numpy.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)
    return unit
