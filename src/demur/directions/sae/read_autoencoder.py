"""Reads a sparse autoencoder; its content says in which format it is."""

from pathlib import Path

from demur.core.errors import InputError
from demur.directions.sae import gemma_scope, qwen_scope, sae_lens
from demur.directions.sae.autoencoder_files import tensor_names
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder


def read_autoencoder(path: str | Path, *, k: int | None = None) -> SparseAutoencoder:
    """Read a sparse autoencoder.

    Args:
        path: a file of Gemma Scope 2 (`params.safetensors`), of Qwen-Scope (`layer12.sae.pt`), or of SAELens (any safetensors
            file with `W_enc` and `W_dec`); the first and the last with their config beside it.
        k: how many latents are active at a token, for a file of Qwen-Scope whose path does not say it.

    Returns:
        The autoencoder, in float32 on the CPU.

    Raises:
        InputError: for a file that is missing or of no known format, and for what is not understood.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r} of a sparse autoencoder")
    if path.suffix in (".pt", ".pth"):
        return qwen_scope.read(path, k)
    if k is not None:
        raise InputError(f"k is for files of Qwen-Scope, and {str(path)!r} is none; leave it out")
    names = tensor_names(path)
    for read, needed in ((gemma_scope.read, {"w_enc", "w_dec"}), (sae_lens.read, {"W_enc", "W_dec"})):
        if needed <= names:
            return read(path)
    found = ", ".join(sorted(names)) or "no tensors"
    raise InputError(
        f"{str(path)!r} holds {found}; expected w_enc and w_dec (Gemma Scope 2), W_enc and W_dec (SAELens), or a .pt file of "
        "Qwen-Scope"
    )
