"""One feature of a sparse autoencoder (SAE) as a direction: its row of the decoder.

Read from the files of SAELens (`sae_weights.safetensors`), of EleutherAI's sparsify (`sae.safetensors`), of Gemma Scope 2
(`params.safetensors`), and of Qwen-Scope (`layer12.sae.pt`). The config beside the file, or its name, may say the point of the
stream. Of a safetensors file only the one row is read, because a decoder may have millions.
"""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.direction import Direction, from_raw
from demur.directions.files.untrusted_tensors import checked
from demur.directions.provenance import Provenance
from demur.directions.sae import gemma_scope, qwen_scope, sae_lens
from demur.directions.sae.autoencoder_files import DECODERS, read_config, tensor_names
from demur.models.layouts import Site


def has_decoder(path: Path) -> bool:
    """Whether a safetensors file holds the decoder of a sparse autoencoder."""
    return not tensor_names(path).isdisjoint(DECODERS)


def read(path: Path, feature: int) -> Direction:
    """The direction that a feature writes to the stream.

    Args:
        path: the file.
        feature: the number of the feature, from 0.

    Returns:
        The unit vector. Its raw norm is unknown, because the decoder does not say how strongly the feature is active.

    Raises:
        InputError: for a file without a decoder, a feature that it does not have, and a row of zeros.
    """
    row = _row_of_pt(path, feature) if path.suffix in (".pt", ".pth") else _row(path, feature)
    vector = checked(row, path, f"feature {feature}")
    if not vector.any():
        raise InputError(f"{str(path)!r}: feature {feature} has a decoder row of zeros, which is no direction; name another one")
    place = _place(path)
    unsaid = ("position", "raw norm") if place else ("layer", "site", "position", "raw norm")
    facts = Provenance(
        method=f"decoder row of feature {feature} of a sparse autoencoder",
        file=path.name,
        format="sae",
        stored_dtype=str(vector.dtype),
        not_in_the_file=unsaid,
    )
    layer, site = place or (0, "resid_pre")
    return from_raw(vector, name=f"{path.stem}.feature{feature}", layer=layer, site=site, provenance=facts)


def _row(path: Path, feature: int) -> Tensor:
    """One row of the decoder in a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            name = next((name for name in DECODERS if name in file.keys()), None)  # noqa: SIM118 - not a dict
            if name is None:
                found = ", ".join(file.keys()) or "nothing"
                raise InputError(
                    f"{str(path)!r} holds {found}, not the tensor {DECODERS[0]!r} of a sparse autoencoder; leave feature out"
                )
            decoder = file.get_slice(name)
            shape = decoder.get_shape()
            if len(shape) != 2:
                raise InputError(f"{str(path)!r}: {name!r} has the shape {tuple(shape)}; expected (feature, d_model)")
            _check_number(path, feature, shape[0])
            return decoder[feature : feature + 1][0].clone()  # type: ignore[no-any-return]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a safetensors file: {error}") from error


def _row_of_pt(path: Path, feature: int) -> Tensor:
    """One row of the decoder in a file of Qwen-Scope."""
    decoder = qwen_scope.tensors(path)["W_dec"]
    _check_number(path, feature, decoder.shape[0])
    return decoder[feature].clone()


def _check_number(path: Path, feature: int, features: int) -> None:
    if not 0 <= feature < features:
        raise InputError(f"{str(path)!r} has no feature {feature}; its decoder has 0 to {features - 1}")


def _place(path: Path) -> tuple[int, Site] | None:
    """The layer and site at which the autoencoder reads the stream; None if nothing says it."""
    if path.suffix in (".pt", ".pth"):
        return qwen_scope.place_of(path)
    for config, place_of in ((sae_lens.CONFIG, sae_lens.place_of), (gemma_scope.CONFIG, gemma_scope.place_of)):
        facts = read_config(path.with_name(config))
        found = None if facts is None else place_of(facts)
        if found is not None:
            return found
    return None
