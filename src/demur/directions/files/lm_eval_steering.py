"""Steering files of lm-evaluation-harness, which add vectors (`lm_eval --model steered --model_args steer_path=FILE.pt`).

Source: EleutherAI/lm-evaluation-harness, lm_eval/models/hf_steered.py. A dict maps the name of a module inside the base model to
a vector, a coefficient and an action on the output of that module, at every position. Only the output of a block is a point of
the stream: `layers.N` is `resid_post` of layer N. Entries for other modules, for single heads and with biases are not directions
of the stream. They are refused, except in the files that demur itself writes for ablation.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.direction import Direction, from_raw
from demur.directions.file_formats import Architecture
from demur.directions.files.requirements import one_a_block
from demur.directions.files.untrusted_tensors import checked, write_pt
from demur.directions.provenance import Provenance
from demur.models.families import families, layout_of
from demur.models.layouts import Layout

# The name of a block inside the base model, in every registered family.
_BLOCK = re.compile(r"(?:[a-z_]{1,40}\.){0,3}(?:layers|h|blocks)\.(0|[1-9]\d{0,5})")


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write additions to the outputs of blocks, one for each block: unit vectors whose coefficient is the raw norm.

    The harness then does what `demur.add(direction, 1, unit="raw")` does.
    """
    blocks = in_base_model(layout_for(architecture))
    by_block = one_a_block(directions, 0, "the harness adds to outputs of blocks only, not to the first block's input")
    write_pt({f"{blocks}.{n}": entry(d.vector, "add", d.raw_norm) for n, d in by_block.items()}, path)


def entry(vector: Tensor, action: str, coefficient: float) -> dict[str, Tensor | str | float | None]:
    """One module's part of a steering file."""
    return {
        "steering_vector": vector.clone(),
        "steering_coefficient": coefficient,
        "action": action,
        "bias": None,
        "head_index": None,
    }


def layout_for(architecture: Architecture) -> Layout:
    """The layout of the architecture.

    Raises:
        InputError: if the architecture is not given, or demur has no layout for it.
    """
    family = architecture.family
    if family is None:
        raise InputError(
            "a steering file names the modules of a model, and these directions do not say which family it is of; give the "
            f"model_type with family=... or --family: {', '.join(families())}"
        )
    from transformers import AutoConfig

    try:
        config = AutoConfig.for_model(family)
    except ValueError:
        raise InputError(f"transformers knows no model_type {family!r}, so the harness could not load it") from None
    return layout_of(config)


def in_base_model(layout: Layout) -> str:
    """The path of the blocks inside the base model, as the harness writes it."""
    return layout.blocks.partition(".")[2]


def read(entries: Mapping[Any, Any], path: Path) -> list[Direction]:
    """The directions of a steering file, in the order of blocks, or the one direction that an ablation file ablates.

    The raw norm of an addition is the length of what is added, including the coefficient. A negative coefficient reverses it.

    Raises:
        InputError: for any other dict.
    """
    if not entries:
        raise InputError(f"{str(path)!r} steers nothing")
    parts = [_part(name, value, path) for name, value in entries.items()]
    vectors = [vector for _, vector, _, _ in parts]
    facts = Provenance(file=path.name, format="lm-eval", stored_dtype=str(vectors[0].dtype))
    clamped = all(action == "clamp" and coefficient == 0 for _, _, action, coefficient in parts)
    blocks = [_BLOCK.fullmatch(name) for name, _, _, _ in parts]
    if clamped and not all(blocks) and all(torch.equal(vector, vectors[0]) for vector in vectors):
        ablation = facts.replaced(
            action="ablation", modules=len(parts), not_in_the_file=("layer", "site", "position", "raw norm")
        )
        return [from_raw(vectors[0], name=path.stem, layer=0, provenance=ablation)]
    found = []
    for (name, vector, action, coefficient), block in zip(parts, blocks, strict=True):
        if block is None:
            raise InputError(
                f"{str(path)!r} steers the output of {name!r}, which is not a block; only the output of a block "
                "(layers.N, h.N, decoder.layers.N) is a point of the stream"
            )
        unsaid = ("position",) if action == "add" else ("position", "raw norm")
        found.append(
            from_raw(
                vector.double() * coefficient if action == "add" else vector,
                name=f"{path.stem}.{block[1]}",
                layer=int(block[1]),
                site="resid_post",
                provenance=facts.replaced(action=action, steering_coefficient=coefficient, not_in_the_file=unsaid),
            )
        )
    return sorted(found, key=lambda direction: direction.layer)


def _part(name: Any, value: Any, path: Path) -> tuple[str, Tensor, str, float]:
    if not isinstance(name, str) or not isinstance(value, Mapping) or not {"steering_vector", "action"} <= set(value):
        raise InputError(
            f"{str(path)!r} holds a dict, but not one of steering vectors: it has {name!r}, a {type(value).__name__}; expected "
            "names of modules, each with steering_vector, steering_coefficient and action; write one vector to a file of its own "
            "with torch.save"
        )
    vector = checked(value["steering_vector"], path, f"the vector of {name!r}")
    vector = vector[0] if vector.ndim == 2 and vector.shape[0] == 1 else vector
    if vector.ndim != 1:
        raise InputError(f"{str(path)!r}: the vector of {name!r} has the shape {tuple(vector.shape)}, not (d_model,)")
    action, coefficient = value["action"], value.get("steering_coefficient", 1.0)
    if action not in ("add", "clamp"):
        raise InputError(f"{str(path)!r}: the action of {name!r} is {action!r}; expected add or clamp")
    if isinstance(coefficient, bool) or not isinstance(coefficient, int | float) or not abs(coefficient) < 1e38:
        raise InputError(f"{str(path)!r}: the coefficient of {name!r} is {coefficient!r}, not a finite number")
    for key in ("bias", "head_index"):
        if value.get(key) is not None:
            raise InputError(f"{str(path)!r}: {name!r} has a {key}, which a direction of the stream cannot represent; remove it")
    return name, vector, action, float(coefficient)
