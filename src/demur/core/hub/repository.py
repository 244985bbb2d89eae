"""A repository on the hub: its commit and its files with their sizes and digests, as the hub states them.

The list of a commit never changes, so it is kept beside the files, in the place and form in which huggingface_hub keeps it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError, WorkError
from demur.core.hub.hub_refusals import Asked
from demur.core.hub.hub_requests import ask, endpoint, host

Kind = Literal["models", "datasets"]

COMMIT_DIGITS = 40
_TREE_FORMAT = 1
"""The version of huggingface_hub's form of a kept list."""


@dataclass(frozen=True)
class HubFile:
    """A file as the hub states it.

    Attributes:
        size: bytes.
        digest: sha256 of its content, 64 hex digits; for small files that are stored in git, git's sha1, 40 hex digits.
    """

    size: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """One commit of a repository.

    Attributes:
        kind: models or data sets.
        name: `owner/name`.
        commit: the commit, 40 hex digits.
        files: its files by their path in the repository.
        revision: the branch, tag or commit that was asked for; None for the default branch.
    """

    kind: Kind
    name: str
    commit: str
    files: Mapping[str, HubFile]
    revision: str | None = None

    @property
    def storage(self) -> Path:
        """The folder on this machine with everything of this repository."""
        return storage_of(self.kind, self.name)

    @property
    def snapshot(self) -> Path:
        """The folder on this machine with the files of this commit, which may not all be there."""
        return self.storage / "snapshots" / self.commit

    def asked(self, file: str | None = None) -> Asked:
        """How messages name a request for one of its files, or for their list."""
        return _asked(self.kind, self.name, self.revision, file)


def storage_of(kind: Kind, name: str) -> Path:
    """The folder in huggingface_hub's cache for a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"{kind}--{name.replace('/', '--')}"


def check_name(reference: str, name: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        InputError: if it is one.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not in __all__

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{reference!r} is not a hub id: {error}") from error


def commit_here(kind: Kind, name: str, revision: str | None) -> str | None:
    """The commit of a revision as this machine knows it; None if it does not."""
    if revision is not None and _is_commit(revision):
        return revision
    try:
        found = (storage_of(kind, name) / "refs" / (revision or "main")).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return found if _is_commit(found) else None


def repository_here(kind: Kind, name: str, revision: str | None) -> Repository | None:
    """A repository as this machine knows it, without asking the hub. None if the list of its files is not here."""
    commit = commit_here(kind, name, revision)
    files = None if commit is None else _kept_list(_list_file(kind, name, commit))
    return None if commit is None or files is None else Repository(kind, name, commit, files, revision)


def ask_repository(kind: Kind, name: str, revision: str | None) -> Repository:
    """Ask the hub for the commit of a revision and for its files.

    Args:
        kind: models or data sets.
        name: `owner/name`.
        revision: a branch, tag or commit; None for the default branch.

    Returns:
        The repository.

    Raises:
        InputError: if it does not exist or may not be read.
        WorkError: if the hub fails.
    """
    asked, api = _asked(kind, name, revision), f"/api/{kind}/{name}"
    commit = revision if revision is not None and _is_commit(revision) else None
    if commit is None:
        said, _ = ask(f"{api}/revision/{quote(revision or 'main', safe='')}", asked)
        commit = said.get("sha") if isinstance(said, dict) else None
        if not isinstance(commit, str) or not _is_commit(commit):
            raise WorkError(f"{host()} does not name a commit of {name!r}; check HF_ENDPOINT, or try again later")
    place = _list_file(kind, name, commit)
    files = _kept_list(place)
    if files is None:
        entries: list[object] = []
        page: str | None = f"{api}/tree/{commit}?recursive=true"
        while page is not None:
            found, page = ask(page, asked)
            entries += found if isinstance(found, list) else []
        kept = dict(filter(None, map(_stated, entries)))
        _keep(place, kept)
        files = _read(kept)
    return Repository(kind, name, commit, files, revision)


def _asked(kind: Kind, name: str, revision: str | None, file: str | None = None) -> Asked:
    page = f"{endpoint()}/{'' if kind == 'models' else 'datasets/'}{name}"
    return Asked(host(), name, page, file, revision)


def _is_commit(text: str) -> bool:
    return len(text) == COMMIT_DIGITS and not set(text) - set("0123456789abcdef")


def _list_file(kind: Kind, name: str, commit: str) -> Path:
    return storage_of(kind, name) / "trees" / f"{commit}.json"


Stated = dict[str, str | int]
"""What a kept list says of one file."""


def _stated(entry: object) -> tuple[str, Stated] | None:
    """The path of an entry of the hub's list, and what is kept of it. None for a folder."""
    if not isinstance(entry, dict) or entry.get("type") != "file":
        return None
    found: Stated = {"size": int(entry["size"]), "blob_id": str(entry["oid"])}
    if isinstance(lfs := entry.get("lfs"), dict):
        found |= {"lfs_sha256": str(lfs["oid"]), "lfs_size": int(lfs["size"])}
    if entry.get("xetHash"):
        found["xet_hash"] = str(entry["xetHash"])
    return str(entry["path"]), found


def _read(kept: Mapping[str, Stated]) -> dict[str, HubFile]:
    return {
        path: HubFile(int(one.get("lfs_size", one["size"])), str(one.get("lfs_sha256", one["blob_id"])))
        for path, one in kept.items()
    }


def _keep(place: Path, kept: Mapping[str, Stated]) -> None:
    replace_file(place, json.dumps({"format_version": _TREE_FORMAT, "files": dict(sorted(kept.items()))}, indent=1))


def _kept_list(place: Path) -> dict[str, HubFile] | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return _read(found["files"]) if found["format_version"] == _TREE_FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
