"""Checks, before weights are read, whether a direction of one checkpoint can be used in another.

Only configs and tokenizer files are read. Checkpoints of different widths or numbers of layers are refused. Different families,
vocabularies or special tokens give a warning, because results may then differ for reasons other than the weights. The warning is
stored with the run and shown in its summary.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.core.errors import InputError
from demur.models import gguf_files
from demur.models.sources import Source, read_config

_WIDTH = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def shape(source: Source) -> tuple[int, int] | None:
    """(layers, width) of a checkpoint, from its config or its GGUF header; None if these do not say."""
    if source.kind == "gguf":
        return _gguf_shape(source)
    config = read_config(source) or {}
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    layers, width = (
        next((config[name] for name in names if isinstance(config.get(name), int)), None) for names in (_LAYERS, _WIDTH)
    )
    return None if layers is None or width is None else (layers, width)


def compare(sources: Mapping[str, Source]) -> tuple[str, ...]:
    """Compare every checkpoint with the first.

    Args:
        sources: the files of each checkpoint, by its name.

    Returns:
        A sentence for each difference that makes a comparison doubtful.

    Raises:
        InputError: for checkpoints of different widths or numbers of layers.
    """
    warnings: list[str] = []
    names = list(sources)
    for number, name in enumerate(names[1:], 1):
        first = names[0]
        mine, other = shape(sources[name]), shape(sources[first])
        if mine is not None and other is not None and mine != other:
            raise InputError(
                f"{name!r} has {mine[0]} layers of width {mine[1]} and {first!r} has {other[0]} of {other[1]}, so their "
                "directions cannot be exchanged"
            )
        # Checkpoints that share their files, such as a model with and without an adapter, are reported once.
        if not any(sources[name].path == sources[earlier].path for earlier in names[:number]):
            warnings += _differences(first, sources[first], name, sources[name])
    return tuple(warnings)


def refuse_foreign_tokens(sources: Mapping[str, Source]) -> None:
    """Refuse two checkpoints whose tokenizers have no token in common, so that no text is the same input for both.

    Args:
        sources: the files of both checkpoints, by name.

    Raises:
        InputError: if they share no token. Checkpoints without a `tokenizer.json` are not refused.
    """
    if len({source.path for source in sources.values()}) < len(sources):
        return  # the same files, such as a model with and without an adapter
    known = {name: found for name, source in sources.items() if source.kind == "folder" and (found := _tokens(source))}
    if len(known) < 2:
        return
    (first, (one, _)), (second, (other, _)) = known.items()
    if one and other and _texts(one).isdisjoint(_texts(other)):
        raise InputError(
            f"the tokenizers of {first!r} and {second!r} have no token in common, so no text is the same input for both; give "
            "two checkpoints of one family"
        )


def _texts(vocabulary: Mapping[str, int] | Sequence[Sequence[object]]) -> set[str]:
    """The tokens of a vocabulary: a table of ids, or a list of pairs of a token and its score."""
    return set(vocabulary) if isinstance(vocabulary, Mapping) else {str(entry[0]) for entry in vocabulary}


def _gguf_shape(source: Source) -> tuple[int, int] | None:
    assert source.path is not None
    try:
        return gguf_files.header(source.path).shape
    except InputError:
        # Loading the file will give the error.
        return None


def _differences(first: str, one: Source, second: str, other: Source) -> list[str]:
    if {one.kind, other.kind} != {"folder"}:
        return []  # a GGUF file has no tokenizer.json, and the files of a hub id are not on this machine yet
    configs = [read_config(source) or {} for source in (one, other)]
    mine, others = _tokens(one), _tokens(other)
    pair, found = f"{first} and {second}", []
    families = [config.get("model_type") for config in configs]
    if families[0] != families[1]:
        found.append(f"{pair} are of different families, {families[0]} and {families[1]}.")
    if mine is not None and others is not None:
        (vocabulary, special), (other_vocabulary, other_special) = mine, others
        if vocabulary != other_vocabulary:
            found.append(f"{pair} have tokenizers of different vocabularies, so the same text is not the same input.")
        differing = sorted(dict(special.items() ^ other_special.items()))
        if differing:
            shown = ", ".join(repr(token) for token in differing[:4]) + (" and others" if len(differing) > 4 else "")
            found.append(f"{pair} have different special tokens: {shown}.")
    return found


def _tokens(source: Source) -> tuple[Any, dict[str, int]] | None:
    """The vocabulary and the special tokens with their ids, from tokenizer.json; None without such a file."""
    assert source.path is not None
    path = Path(source.path) / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        added = {str(entry["content"]): int(entry["id"]) for entry in data.get("added_tokens", ())}
        return data["model"].get("vocab"), added
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"{source.reference!r} has a tokenizer.json that cannot be read; fetch it again") from error
