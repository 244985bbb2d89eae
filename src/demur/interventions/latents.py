"""Edits of the latents of a sparse autoencoder: a few of them are set to a value, or the whole reconstruction takes the stream's
place.

x' = x + (c - f_j(x)) W_dec[j], summed over the chosen latents j: what the autoencoder does not reconstruct stays as it is.
Clamping is the usual edit of latents (Templeton et al. 2024, "Scaling Monosemanticity"; O'Brien et al. 2024, arXiv 2411.11296).
The reconstruction alone, x' = f(x) W_dec + b_dec, is a control: it says what the error of the autoencoder does by itself.

This kind takes weights, which no study can contain. So it is not registered; `clamped_latents` and `spliced` make such edits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
from demur.interventions.intervention import Intervention
from demur.interventions.operation import Operation, Pointwise

if TYPE_CHECKING:
    from torch import Tensor

    from demur.models.layouts import Site

KIND = f"{__name__}:LatentEdit"


class LatentSettings(BaseModel):
    """What is done to which latents.

    Attributes:
        sae: the autoencoder, on the model's device. Edits with the same object are equal.
        chosen: the numbers of the latents that are clamped; None to put the whole reconstruction in.
        value: what they are set to; None for the value that they have, which changes nothing.
        most_norm: token positions with a stream of a larger norm are left as they are; None to act on all. The first token often
            has massive activations, on which autoencoders are not trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    sae: SparseAutoencoder
    chosen: tuple[int, ...] | None = None
    value: float | None = 0.0
    most_norm: float | None = None


class LatentEdit:
    """The kind of edit."""

    name: ClassVar[str] = "latents"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "none"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[type[BaseModel] | None] = LatentSettings
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(
            action="latents",
            kind="latents",
            doing="setting latents of",
            into="in",
            done="set",
            moved="set in",
            figure="latents",
            title="Refusal rates with latents set",
        ),
    )

    def action(self, coefficient: float | None) -> str:  # noqa: ARG002
        """Always `latents`."""
        return "latents"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:  # noqa: ARG002
        """It depends on the latents."""
        return 0

    def operation(self, edit: Intervention) -> Operation:
        """Moves the stream along the decoder rows of the chosen latents, or puts the reconstruction in its place."""
        settings = edit.settings
        assert isinstance(settings, LatentSettings)
        sae, chosen, value, most_norm = settings.sae, settings.chosen, settings.value, settings.most_norm

        def where_it_acts(stream: "Tensor", changed: "Tensor") -> "Tensor":
            return changed if most_norm is None else changed.where(stream.norm(dim=-1, keepdim=True) <= most_norm, stream)

        if chosen is None:
            return Pointwise(lambda stream: where_it_acts(stream, sae.decode(sae.encode(stream)).to(stream)))
        rows = sae.decoder[list(chosen)]

        def clamped(stream: "Tensor") -> "Tensor":
            found = sae.some(stream, chosen)
            # Without a value the difference is exactly 0, and so is the change.
            wanted = found if value is None else value
            return where_it_acts(stream, stream + ((wanted - found) @ rows).to(stream))

        return Pointwise(clamped)


def clamped_latents(
    sae: SparseAutoencoder,
    chosen: Sequence[int],
    value: float | None,
    *,
    layer: int,
    site: "Site" = "resid_post",
    most_norm: float | None = None,
) -> Intervention:
    """Set latents to a value, and leave the error of the autoencoder as it is.

    Args:
        sae: the autoencoder, on the model's device.
        chosen: the numbers of the latents.
        value: what they are set to; None for the value that they have.
        layer: the layer at which it reads the stream.
        site: the site of that layer.
        most_norm: see `LatentSettings`.
    """
    settings = LatentSettings(sae=sae, chosen=tuple(chosen), value=value, most_norm=most_norm)
    return Intervention(KIND, layers=(layer,), sites=(site,), settings=settings)


def spliced(sae: SparseAutoencoder, *, layer: int, site: "Site" = "resid_post", most_norm: float | None = None) -> Intervention:
    """Put the reconstruction in the place of the stream.

    Args:
        sae: the autoencoder, on the model's device.
        layer: the layer at which it reads the stream.
        site: the site of that layer.
        most_norm: see `LatentSettings`.
    """
    return Intervention(KIND, layers=(layer,), sites=(site,), settings=LatentSettings(sae=sae, most_norm=most_norm))
