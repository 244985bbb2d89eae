"""Folders that hold more than one answer: two sets of weights, two chat templates, an adapter that nobody named.

transformers chooses one of them by an order of file names, and says nothing. demur compares them, and refuses a folder whose
answers differ. Files that transformers does not read by themselves are left alone: GGUF files, `consolidated.safetensors`, the
folder `original`, variants such as `model.fp16.safetensors`, and weights for other programs.
"""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from demur.core.errors import InputError
from demur.models.file_digests import ADAPTER_WEIGHTS, WEIGHTS, files_of_index
from demur.models.library_errors import first_line
from demur.models.sources import Source

BUFFER = re.compile(r"(attn|attention)\.(bias|masked_bias)$|\binv_freq$")
"""Causal masks and rotary frequencies. Older files store them as if they were weights."""


def refuse_unnamed_adapter(model: str, source: Source, adapter: str | None) -> None:
    """Refuse a model's folder with an adapter in it, unless an adapter is named.

    transformers puts such an adapter on the model by itself.

    Args:
        model: the name of the model in error messages.
        source: its files.
        adapter: the adapter that was named; None for no adapter.

    Raises:
        InputError: if the folder has an `adapter_config.json` and no adapter is named.
    """
    if (
        adapter is None
        and source.kind == "folder"
        and source.path is not None
        and (source.path / "adapter_config.json").is_file()
    ):
        raise InputError(
            f"the folder of {model!r} holds a model and an adapter (adapter_config.json), and only the model was named; name the "
            "adapter too (the same folder) to put it on, or move its files away"
        )


def refuse_other_weights(model: str, folder: Path, config: Any) -> None:
    """Refuse a folder that holds several complete sets of weights with different values.

    Args:
        model: the name of the model in error messages.
        folder: its folder.
        config: its transformers config, which may name the file of its weights.

    Raises:
        InputError: if there is no set, or if two sets differ or cannot be compared.
    """
    answers: dict[frozenset[str], str] = {}
    named = getattr(config, "transformers_weights", None)
    for name in ([str(named)] if named else []) + list(WEIGHTS):
        files = _complete(folder, name)
        if files:
            answers.setdefault(files, name)
    if not answers:
        raise InputError(f"the folder of {model!r} holds no whole set of weights that transformers reads{_other_files(folder)}")
    (first, *others) = [(name, files) for files, name in answers.items()]
    for name, files in others:
        difference = _difference(folder, first[1], files)
        if difference:
            raise InputError(
                f"the folder of {model!r} holds two sets of weights, {first[0]} and {name}, and {difference}; move away the one "
                "that is not meant"
            )


def _other_files(folder: Path) -> str:
    names = sorted(path.name for pattern in ("*.safetensors", "*.bin", "*.gguf") for path in folder.glob(pattern))
    indices = [name for name in WEIGHTS if name.endswith(".index.json") and (folder / name).is_file()]
    if indices:
        return f"; some of the files that {indices[0]} names are missing; fetch them again"
    shown = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
    return f" (model.safetensors, or shards with an index); it holds {shown or 'no weights'}"


def refuse_other_adapter_weights(adapter: str, folder: Path) -> None:
    """Refuse an adapter's folder with no weights, or with two sets of different values.

    Raises:
        InputError: if it does.
    """
    files = [name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not files:
        raise InputError(f"adapter {adapter!r} holds no adapter_model.safetensors and no adapter_model.bin; fetch it again")
    if len(files) == 2:
        difference = _difference(folder, frozenset(files[:1]), frozenset(files[1:]))
        if difference:
            raise InputError(
                f"the folder of adapter {adapter!r} holds two sets of weights, {files[0]} and {files[1]}, and {difference}; move "
                "away the one that is not meant"
            )


def stored_template(whose: str, folder: Path) -> str | None:
    """The chat template among the files of a folder.

    Args:
        whose: the owner of the folder in error messages.
        folder: the folder.

    Returns:
        The template, None if there is none. Named templates besides the default one are not used.

    Raises:
        InputError: if `chat_template.jinja` and `tokenizer_config.json` hold different templates. transformers uses the first.
    """
    own, inside = folder / "chat_template.jinja", template_inside(folder / "tokenizer_config.json")
    if not own.is_file():
        return inside
    try:
        text = own.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"the chat_template.jinja of {whose} cannot be read: {error}; fetch it again") from error
    # Jinja drops one newline at the end of a template.
    if inside is not None and text.removesuffix("\n") != inside.removesuffix("\n"):
        raise InputError(
            f"the folder of {whose} holds two different chat templates, in chat_template.jinja and in tokenizer_config.json; "
            "remove the one that is not meant"
        )
    return text


def template_inside(path: Path) -> str | None:
    """The default chat template in a JSON file; None if the file does not hold one."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(found, list):
        named = {str(one.get("name")): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _complete(folder: Path, name: str) -> frozenset[str]:
    """The files of one set of weights; empty if it is not there or not whole."""
    path = folder / name
    if not path.is_file():
        return frozenset()
    if not name.endswith(".index.json"):
        return frozenset([name])
    files = files_of_index(path) or frozenset()
    return files if all((folder / file).is_file() for file in files) else frozenset()


def _difference(folder: Path, first: frozenset[str], second: frozenset[str]) -> str:
    """In what two sets of weights differ, in words; empty if they are equal.

    One set may lack causal masks, rotary frequencies and copies of a weight under a second name, as safetensors files do.
    """
    try:
        one, other = _Weights(folder, first), _Weights(folder, second)
        shared = sorted(one.files.keys() & other.files.keys())
        if not shared:
            return "they share no name of a weight"
        for name in shared:
            if not _same(one[name], other[name]):
                return f"the weight {name!r} differs"
        for weights, lacking in ((one, other), (other, one)):
            for name in sorted(weights.files.keys() - lacking.files.keys()):
                if not BUFFER.search(name) and not any(_same(weights[name], weights[known]) for known in shared):
                    return f"only one of them has the weight {name!r}"
    except Exception as error:  # torch, safetensors and zipfile each have errors of their own
        return f"they cannot be compared ({first_line(error)[:200]})"
    return ""


# Any: torch is imported by the functions that need it.
def _same(one: Any, other: Any) -> bool:
    import torch

    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    # Bytes, because NaN differs from itself.
    return torch.equal(one.contiguous().view(-1).view(torch.uint8), other.contiguous().view(-1).view(torch.uint8))


class _Weights:
    """The tensors of several files by name, each read when it is asked for."""

    def __init__(self, folder: Path, names: frozenset[str]) -> None:
        import torch
        from safetensors import safe_open

        # Any: an open safetensors file, or a tensor.
        self.files: dict[str, object] = {}
        for name in sorted(names):
            if name.endswith(".safetensors"):
                opened: Any = safe_open(folder / name, framework="pt")
                self.files |= dict.fromkeys(opened.keys(), opened)
            else:
                # Only tensors are read, never pickled code.
                mapped = zipfile.is_zipfile(folder / name)  # files of early versions of torch cannot be mapped
                found = torch.load(folder / name, map_location="cpu", weights_only=True, mmap=mapped)
                self.files |= {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}

    def __getitem__(self, name: str) -> Any:
        place: Any = self.files[name]
        return place.get_tensor(name) if hasattr(place, "get_tensor") else place
