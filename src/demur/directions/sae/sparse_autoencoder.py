"""A sparse autoencoder (SAE) of the residual stream: what it computes, whatever file it was read from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from demur.core.errors import InputError
from demur.models.layouts import Site


@dataclass(frozen=True)
class ModulePoint:
    """The input or the output of a module inside a block.

    Attributes:
        layer: the block, from 0.
        path: the module's path inside the block, such as `mlp`.
        end: which of both.
    """

    layer: int
    path: str
    end: Literal["input", "output"]


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """z = (x - b_dec if centred else x) W_enc + b_enc, f = the active part of relu(z), and x^ = f W_dec + b_dec.

    A latent is active where z is above its threshold (JumpReLU; Rajamanoharan et al. 2024, arXiv 2407.14435), or if it is one of
    the k largest at its token (TopK; Gao et al. 2024, arXiv 2406.04093), or else where z is above 0.

    Attributes:
        name: the name of its file.
        format: the format of the file.
        encoder: W_enc, (d_in, latent). Shapes are checked here and not by annotations, because files may have any.
        encoder_bias: b_enc, (latent,).
        decoder: W_dec, (latent, d_out); its rows are what the latents write.
        decoder_bias: b_dec, (d_out,).
        threshold: the threshold of each latent, (latent,); None without thresholds.
        k: how many latents are active at a token; None if this is not fixed.
        centred: whether b_dec is subtracted from the input.
        place: the layer and site at which it was trained; None if its files do not say.
        off_stream: why it is no autoencoder of the residual stream; empty if it is one.
        modules: where it reads and what it reconstructs, if that is not the stream and its files name modules of the model.

    Example:
        >>> eye, zero = torch.eye(2), torch.zeros(2)
        >>> sae = SparseAutoencoder("toy", "sae-lens", eye, zero, eye, zero)
        >>> sae.encode(torch.tensor([3.0, -1.0])).tolist()
        [3.0, 0.0]
    """

    name: str
    format: str
    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    threshold: Tensor | None = None
    k: int | None = None
    centred: bool = False
    place: tuple[int, Site] | None = None
    off_stream: str = ""
    modules: tuple[ModulePoint, ModulePoint] | None = None

    def __post_init__(self) -> None:
        for name, matrix in (("W_enc", self.encoder), ("W_dec", self.decoder)):
            if matrix.ndim != 2:
                raise InputError(
                    f"the sparse autoencoder {self.name!r} has {name} of shape {tuple(matrix.shape)}; expected a matrix"
                )
        latents, width = self.decoder.shape
        wanted = {
            "W_enc": (self.encoder, (self.encoder.shape[0], latents)),
            "b_enc": (self.encoder_bias, (latents,)),
            "b_dec": (self.decoder_bias, (width,)),
            "threshold": (self.threshold, (latents,)),
        }
        for name, (tensor, shape) in wanted.items():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise InputError(
                    f"the sparse autoencoder {self.name!r} has {name} of shape {tuple(tensor.shape)}, but its W_dec of shape "
                    f"{(latents, width)} needs {shape}; use the file as it was published"
                )
        if self.k is not None and not 1 <= self.k <= latents:
            raise InputError(f"the sparse autoencoder {self.name!r} has {latents} latents, so k cannot be {self.k}")

    @property
    def latents(self) -> int:
        """The number of latents."""
        return int(self.decoder.shape[0])

    def check_width(self, d_model: int, checkpoint: str) -> None:
        """Check that it fits a checkpoint's stream.

        Raises:
            InputError: for another width.
        """
        widths = (self.encoder.shape[0], self.decoder.shape[1])
        if widths != (d_model, d_model):
            raise InputError(
                f"the sparse autoencoder {self.name!r} reads width {widths[0]} and writes width {widths[1]}, but the stream of "
                f"{checkpoint!r} has width {d_model}; name one that was trained on this model"
            )

    def on(self, device: torch.device) -> "SparseAutoencoder":
        """The same with its tensors on a device."""
        threshold = None if self.threshold is None else self.threshold.to(device)
        moved = {name: getattr(self, name).to(device) for name in ("encoder", "encoder_bias", "decoder", "decoder_bias")}
        return replace(self, **moved, threshold=threshold)

    def encode(self, stream: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows latent"]:
        """The latents of a stream, in float32. None is below 0, and a latent that is not active is 0."""
        positive = self._before(stream, slice(None)).relu()
        if self.k is not None:
            top = positive.topk(self.k, dim=-1)
            return torch.zeros_like(positive).scatter(-1, top.indices, top.values)
        if self.threshold is not None:
            return positive * (positive > self.threshold)
        return positive

    def some(self, stream: Float[Tensor, "*rows d_in"], chosen: Sequence[int]) -> Float[Tensor, "*rows chosen"]:
        """Some latents of a stream: the same as `encode` gives, with less work where latents do not depend on each other.

        Args:
            stream: the stream.
            chosen: the numbers of the latents.
        """
        places = torch.tensor(list(chosen), device=self.encoder.device)
        if self.k is not None:
            return self.encode(stream)[..., places]
        positive = self._before(stream, places).relu()
        return positive if self.threshold is None else positive * (positive > self.threshold[places])

    def _before(self, stream: Tensor, chosen: slice | Tensor) -> Shaped[Tensor, "..."]:
        given = stream.to(self.encoder)
        if self.centred:
            given = given - self.decoder_bias
        return given @ self.encoder[:, chosen] + self.encoder_bias[chosen]

    def decode(self, latents: Float[Tensor, "*rows latent"]) -> Float[Tensor, "*rows d_out"]:
        """The reconstruction of a stream from its latents."""
        return latents @ self.decoder + self.decoder_bias
