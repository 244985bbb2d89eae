"""Which files of a repository demur reads: those at its top that describe the model, and one set of weights.

Repositories often hold their weights several times, in `onnx/`, `checkpoint-500/`, `consolidated.safetensors` or as
`pytorch_model.bin` beside `model.safetensors`. Only the set that loading reads is fetched.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from threading import Event

from demur.core.errors import InputError
from demur.core.hub.fetched_files import bytes_missing, fetch_files, missing_files
from demur.core.hub.repository import Repository
from demur.models.file_digests import ADAPTER_WEIGHTS, WEIGHTS, files_of_index, named_weights

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
_ENDINGS = (".json", ".model", ".txt", ".jinja")
_NOT_READ = ("license", "licence", "readme", "notice", "requirements", "trainer_state.json")
_TEMPLATES = "additional_chat_templates/"


def beside_weights(names: Collection[str]) -> list[str]:
    """The files that describe the model and its tokenizer."""
    top = [name for name in names if "/" not in name and name.endswith(_ENDINGS) and not name.lower().startswith(_NOT_READ)]
    return [*top, *(name for name in names if name.startswith(_TEMPLATES) and name.endswith(".jinja"))]


def weights_among(names: Collection[str], folder: Path, want: str) -> list[str]:
    """The files with the weights that loading reads.

    Args:
        names: the files of the repository.
        folder: a folder with its small files: the config may name the weights, and an index names its shards.
        want: the config of what is loaded, `CONFIG` or `ADAPTER_CONFIG`.

    Returns:
        The first complete set, in the order in which transformers and peft look for one; empty if there is none.
    """
    for name in (*named_weights(folder), *_order(want)):
        if name in names:
            shards = files_of_index(folder / name) if name.endswith(".index.json") else frozenset([name])
            if shards and shards <= set(names):
                return sorted(shards)
    return []


def fetch_checkpoint(repository: Repository, want: str, stop: Event | None = None) -> Path:
    """Fetch the files of a model or an adapter that are not on this machine yet.

    Args:
        repository: the repository.
        want: its config, `CONFIG` or `ADAPTER_CONFIG`.
        stop: ends the transfers when it is set.

    Returns:
        The folder with its files.

    Raises:
        InputError: if it holds no such config or no weights that can be read, or if the hub refuses.
        WorkError: if the hub or the network fails.
    """
    _refuse_without(repository, want)
    folder = fetch_files(repository, beside_weights(repository.files), stop)
    weights = weights_among(repository.files, folder, want)
    if not weights:
        held = sorted(name for name in repository.files if name.endswith((".safetensors", ".bin", ".gguf")))
        shown = ", ".join(held[:4]) + (" and others" if len(held) > 4 else "")
        raise InputError(
            f"{repository.name!r} on the hub holds no whole set of weights that can be read ({' or '.join(_order(want))}); it "
            f"holds {shown or 'no weights'}"
        )
    return fetch_files(repository, weights, stop)


def fetch_config(repository: Repository, want: str = CONFIG) -> Path:
    """Fetch only the config. Returns its path on this machine."""
    _refuse_without(repository, want)
    return fetch_files(repository, [want]) / want


def bytes_to_fetch(repository: Repository, want: str = CONFIG) -> int:
    """How many bytes `fetch_checkpoint` would fetch. The config and the indices of weights say so, so they are fetched."""
    _refuse_without(repository, want)
    indices = [name for name in _order(want) if name.endswith(".index.json") and name in repository.files]
    folder = fetch_files(repository, [want, *indices])
    names = beside_weights(repository.files)
    return bytes_missing(repository, [*names, *weights_among(repository.files, folder, want)])


def is_whole(repository: Repository, want: str) -> bool:
    """Whether everything that loading reads is on this machine."""
    if want not in repository.files or missing_files(repository, beside_weights(repository.files)):
        return False
    weights = weights_among(repository.files, repository.snapshot, want)
    return bool(weights) and not missing_files(repository, weights)


def looks_whole(folder: Path, want: str) -> bool:
    """The same for a folder whose list of files is not known: a config, and a set of weights that lacks no shard."""
    names = {path.name for path in folder.iterdir()}
    return want in names and bool(weights_among(names, folder, want))


def _order(want: str) -> Sequence[str]:
    return WEIGHTS if want == CONFIG else ADAPTER_WEIGHTS


def _refuse_without(repository: Repository, want: str) -> None:
    if want not in repository.files:
        ggufs = sorted(name for name in repository.files if name.endswith(".gguf"))
        hint = f"; download one of its GGUF files, such as {ggufs[0]}, and name that file" if ggufs and want == CONFIG else ""
        other = {CONFIG: ADAPTER_CONFIG, ADAPTER_CONFIG: CONFIG}.get(want)
        if other in repository.files:
            hint = f"; it holds {'a PEFT adapter, so give it as the adapter' if want == CONFIG else 'a model, not an adapter'}"
        raise InputError(f"{repository.name!r} on the hub holds no {want}{hint}")
