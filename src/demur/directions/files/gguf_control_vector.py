"""Control vectors in GGUF: what `llama-cli --control-vector` and repeng's `ControlVector.import_gguf` read.

The tensor `direction.N` is added to the output of block N, counted from 0. This is `resid_post` of layer N, or `resid_pre` of
layer N + 1 (llama.cpp: src/llama-adapter.cpp and `build_cvec` in src/models; repeng: repeng/control.py). The vector keeps its raw
norm, in float32; position, name and provenance are lost.
"""

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, GGUFWriter

from demur.core.atomic_files import replacing
from demur.core.errors import InputError
from demur.directions.direction import UNSAID, Direction, from_raw
from demur.directions.file_formats import Architecture
from demur.directions.files.requirements import one_a_block
from demur.directions.files.untrusted_tensors import checked
from demur.directions.provenance import Provenance

ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(0|[1-9]\d{0,5})")


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write raw vectors, float32, one for each block. llama.cpp adds nothing before block 1, so earlier ones are refused."""
    by_block = one_a_block(
        directions, 1, "llama.cpp adds to the output of block 1 and later ones only (from resid_pre of layer 2)"
    )
    vectors = {block: by_block[block].raw_vector().float() for block in by_block}
    for block, vector in vectors.items():
        if not torch.isfinite(vector).all():
            raise InputError(f"direction {by_block[block].name!r} is too long for float32")
    with replacing(path) as partial, closing(GGUFWriter(partial, ARCHITECTURE)) as writer:
        # This is only a hint for people. llama.cpp ignores it, and repeng compares it only when vectors are combined.
        writer.add_string(f"{ARCHITECTURE}.model_hint", architecture.family or "unknown")
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for block, vector in vectors.items():
            writer.add_tensor(f"direction.{block}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def read(path: Path) -> list[Direction]:
    """The directions of a control vector, in the order of blocks.

    Raises:
        InputError: for any other GGUF file, and for a damaged one.
    """
    try:
        reader = _Bounded(path)
        kind, hint = (_text(reader, key) for key in ("general.architecture", f"{ARCHITECTURE}.model_hint"))
    except (ValueError, LookupError, ArithmeticError, RecursionError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF file: {type(error).__name__}: {error}") from error
    if kind != ARCHITECTURE:
        raise InputError(f"{str(path)!r} is a GGUF file of architecture {kind!r}, not of control vectors ({ARCHITECTURE!r})")
    found = []
    for entry in reader.tensors:
        name = str(entry.name)
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(
                f"{str(path)!r} holds the tensor {name!r}; a control vector has only direction.N, with the number of a block"
            )
        native = entry.data.astype(entry.data.dtype.newbyteorder("="))
        vector = checked(torch.from_numpy(native), path, name)
        if vector.ndim != 1:
            raise InputError(f"{str(path)!r}: {name} has the shape {tuple(vector.shape)}, not (d_model,)")
        facts = Provenance.of(
            {"file": path.name, "format": "gguf", "stored dtype": str(vector.dtype), "model hint": hint, UNSAID: ["position"]}
        )
        found.append(from_raw(vector, name=f"{path.stem}.{match[1]}", layer=int(match[1]), site="resid_post", provenance=facts))
    if not found:
        raise InputError(f"{str(path)!r} holds no direction")
    return sorted(found, key=lambda direction: direction.layer)


class _Bounded(GGUFReader):  # type: ignore[misc]
    """The package's reader with a limit: without it, the reader loops over as many array entries as a file claims to have."""

    def _get(self, offset: Any, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
        found = super()._get(offset, dtype, count, override_order)
        if len(found) != int(count):
            raise ValueError("it claims more than it holds")
        return found


def _text(reader: GGUFReader, key: str) -> str | None:
    field = reader.get_field(key)
    return None if field is None else str(field.contents())
