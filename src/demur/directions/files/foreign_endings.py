"""Endings of files that may hold a direction but that demur does not read: what such a file is, and how to get the vector out."""

from pathlib import Path

from demur.core.errors import InputError
from demur.inputs.text_files import refuse_stand_in

_NUMBERS = "torch.tensor(NUMBERS)"
_PICKLE = ("a Python pickle, which is never opened because it can run code", "VECTOR")
# What the file is, and an expression for one of its vectors; None for files that may be a .pt file with another ending.
# IBM/activation-steering writes .svec: JSON whose "directions" has a list of numbers for each layer.
_ENDINGS: dict[str, tuple[str, str | None]] = {
    ".npy": ("a NumPy array", "torch.from_numpy(numpy.load(FILE))"),
    ".npz": ("an archive of NumPy arrays", "torch.from_numpy(numpy.load(FILE)[NAME])"),
    ".json": ("JSON", _NUMBERS),
    ".jsonl": ("JSON lines", _NUMBERS),
    ".svec": ("a steering vector of activation-steering, in JSON", "torch.tensor(json.load(open(FILE))['directions'][LAYER])"),
    ".csv": ("a table in text", _NUMBERS),
    ".tsv": ("a table in text", _NUMBERS),
    ".parquet": ("a Parquet table", _NUMBERS),
    ".h5": ("an HDF5 file", "torch.from_numpy(VECTOR)"),
    ".bin": ("weights of a model or a pickle", None),
    ".ckpt": ("a training checkpoint", None),
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".joblib": _PICKLE,
    ".dill": _PICKLE,
}


def refuse_foreign(path: Path) -> None:
    """Refuse a file by its ending, or because it only stands in for the file.

    Raises:
        InputError: for an ending of another kind of file, a pointer of Git LFS, and a web page.
    """
    kind, vector = _ENDINGS.get(path.suffix.lower(), (None, None))
    if kind is not None:
        way_out = "if torch.save wrote it, rename it to end with .pt"
        if vector is not None:
            way_out = f'write one vector with torch.save({vector}, "d.pt"), and then give its layer with --layer'
        raise InputError(
            f"{str(path)!r} is {kind}, not a direction file, which ends with .safetensors, .pt, .pth or .gguf; {way_out}"
        )
    with path.open("rb") as file:
        refuse_stand_in(file.read(200), path)
