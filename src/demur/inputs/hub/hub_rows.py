"""Rows of a published data set from the model hub, or from what earlier programs have left of it on this machine."""

from collections.abc import Collection, Mapping
from pathlib import Path

from demur.core import network
from demur.core.errors import InputError
from demur.core.hub.fetched_files import fetch_files, missing_files
from demur.core.hub.hub_requests import host
from demur.core.hub.repository import ask_repository, commit_here, repository_here, storage_of
from demur.inputs.instruction_files import Row, has_known_ending, read_rows


def hub_rows(dataset: str, configuration: str | None, part: str, *, what: str, way_out: str) -> list[Row]:
    """The rows of one part of a data set.

    What is on this machine is read without asking the hub: the files in huggingface_hub's cache or, if no hub can be reached,
    what the package `datasets` has kept.

    Args:
        dataset: its hub id.
        configuration: its configuration as `datasets` names it; None for its only one.
        part: the part, such as `train`. The names of its files contain it.
        what: what is wanted, for messages.
        way_out: what to do without a hub, for messages.

    Returns:
        The rows, in the order of the files.

    Raises:
        InputError: if the set is not here and no hub can be reached, if the hub refuses it, or if it has no such part.
        WorkError: if the hub or the network fails.
    """
    here = _files_here(dataset, part)
    if not here:
        if not network.reachable() and (kept := _kept_by_datasets(dataset, configuration, part)) is not None:
            return kept
        network.require(what, way_out)
        repository = ask_repository("datasets", dataset, None)
        names = _files_of(part, repository.files)
        if not names:
            raise InputError(f"{dataset!r} on {host()} holds no file of rows for {part!r}, so {what} cannot be read; {way_out}")
        folder = fetch_files(repository, names)
        here = [folder / name for name in names]
    return [row for path in here for row in read_rows(path)]


def _files_of(part: str, names: Collection[str]) -> list[str]:
    """The files of a part, in order: those whose names contain it, all of one kind; else the only file of rows."""
    found = sorted(name for name in names if has_known_ending(Path(name)) and not name.endswith((".txt", "dataset_infos.json")))
    of_part = [name for name in found if part in name.rpartition("/")[2]]
    if not of_part:
        return found if len(found) == 1 else []
    return [name for name in of_part if Path(name).suffix == Path(of_part[0]).suffix]


def _files_here(dataset: str, part: str) -> list[Path]:
    """The files of a part if all of them are on this machine; else none."""
    known = repository_here("datasets", dataset, None)
    if known is not None:
        names = _files_of(part, known.files)
        return [] if missing_files(known, names) else [known.snapshot / name for name in names]
    commit = commit_here("datasets", dataset, None)
    folder = storage_of("datasets", dataset) / "snapshots" / str(commit)
    names = _files_of(part, [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()])
    # Without the list of its files, only a part of one file is known to be whole.
    return [folder / names[0]] if len(names) == 1 else []


def _kept_by_datasets(dataset: str, configuration: str | None, part: str) -> list[Row] | None:
    """The rows as the package `datasets` has kept them; None if it has not, or is not installed."""
    with network.offline():
        try:
            from datasets import load_dataset  # type: ignore[import-not-found, import-untyped, unused-ignore]

            rows: list[Mapping[str, object]] = list(load_dataset(dataset, configuration, split=part))
        except (
            Exception
        ):  # it passes on errors of many packages; each means that the set is not here, which is said by the caller
            return None
    return [dict(row) for row in rows]
