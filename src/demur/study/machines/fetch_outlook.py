"""What a study has to fetch from the model hub before it can run, and whether the disk has room for it."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demur.core.errors import InputError
from demur.core.hub.hub_requests import host
from demur.core.hub.repository import storage_of
from demur.models.sources import Source, adapter_bytes_to_fetch, bytes_to_fetch
from demur.study.spec import Study


@dataclass(frozen=True)
class FetchOutlook:
    """What is not on this machine yet.

    Attributes:
        bytes: of each checkpoint that has something to fetch, how much, with its adapter.
        total: all of it; files of several checkpoints count once.
        host: the hub's host.
        free: free bytes on the disk of its cache.
    """

    bytes: Mapping[str, int]
    total: int
    host: str
    free: int


def fetch_outlook(study: Study, sources: Mapping[str, Source]) -> FetchOutlook | None:
    """What the checkpoints of a study have to fetch.

    Args:
        study: the study.
        sources: the checkpoints that are on this machine or on a hub in reach, by name.

    Returns:
        The outlook; None if everything is here. Checkpoints of which neither is known are left out.

    Raises:
        InputError: if the hub refuses a checkpoint.
        WorkError: if the hub fails.
    """
    each: dict[str, int] = {}
    seen: dict[tuple[str | None, str | None], int] = {}
    for name, source in sources.items():
        spec = study.checkpoints[name]
        if source.kind == "hub":
            seen.setdefault((source.hub_id, source.revision), bytes_to_fetch(source))
            each[name] = seen[source.hub_id, source.revision]
        if spec.adapter is not None:
            seen.setdefault((spec.adapter, None), _of_adapter(spec.adapter))
            each[name] = each.get(name, 0) + seen[spec.adapter, None]
    missing = {name: count for name, count in each.items() if count}
    if not missing:
        return None
    place = storage_of("models", "owner/name").parent
    return FetchOutlook(missing, sum(seen.values()), host(), shutil.disk_usage(_existing(place)).free)


def _of_adapter(reference: str) -> int:
    try:
        return adapter_bytes_to_fetch(reference)
    except InputError:  # it is neither here nor on a hub in reach; the study's checks say so where they can
        return 0


def _existing(place: Path) -> Path:
    while not place.exists():
        place = place.parent
    return place
