"""Reads tensors and numbers from untrusted files. They are read as data, never as code, and need no more memory than the file.

A `.pt` file must be an archive as torch.save writes it. Nothing in it may be compressed, so that reading it takes no more memory
than its size. `torch.load` then unpickles only plain tensors. Only a finite, strided tensor of a floating type is accepted.
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, TypeGuard
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError

_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def read_pt(path: Path) -> Any:
    """The content of a `.pt` file: tensors, numbers, texts, and lists and dicts of them.

    Raises:
        InputError: for any other content.
    """
    try:
        with ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises many kinds for a file that is not its own
        raise InputError(
            f"{str(path)!r} cannot be read as plain tensors: it is not a file that torch.save wrote, or it was cut short"
        ) from error
    compressed = any(entry.compress_type != ZIP_STORED for entry in entries)
    if compressed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(
            f"{str(path)!r} has compressed or overlapping entries, which torch.save never writes, and may unpack to far more "
            "than its size; write it again with torch.save"
        )
    try:
        # When torch refuses an unsafe pickle, it also prints a warning. The error message is enough.
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds too
        raise InputError(f"{str(path)!r} cannot be read as plain tensors: {type(error).__name__}") from error


def write_pt(value: Any, path: Path) -> None:
    """Write tensors, or a dict of them, as `read_pt` reads them."""
    content = BytesIO()
    torch.save(value, content)
    replace_file(path, content.getvalue())


def checked(value: Any, path: Path, what: str = "its tensor") -> Tensor:
    """The value, if it is a finite tensor of a floating type that the file is large enough for.

    Raises:
        InputError: for anything else.
    """
    return checked_size(value, str(path), path.stat().st_size, what)


def checked_size(value: Any, where: str, size: int, what: str = "its tensor") -> Tensor:
    """The same as `checked`, for a value from a source of `size` bytes, which error messages call `where`."""
    if not isinstance(value, Tensor):
        raise InputError(f"{where!r} holds a {type(value).__name__} where a tensor is expected")
    if value.layout != torch.strided or value.device.type != "cpu" or value.dtype not in _DTYPES:
        raise InputError(f"{where!r}: {what} is {value.dtype}, {value.layout}, on {value.device}; expected plain floating point")
    # A tensor with strides of zero can claim any size with one number, so this is checked before anything is computed from it.
    if value.numel() * value.element_size() > size:
        raise InputError(f"{where!r}: {what} claims the shape {tuple(value.shape)}, which is more than the file holds")
    if not torch.isfinite(value).all():
        raise InputError(f"{where!r}: {what} holds values that are not finite")
    return value.detach()


def whole_number(value: object) -> TypeGuard[int]:
    """Whether a value from JSON is an integer. True and false do not count."""
    return isinstance(value, int) and not isinstance(value, bool)
