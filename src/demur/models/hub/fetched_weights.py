"""The weights of a checkpoint that a run fetched from the hub itself, so that it may delete them again."""

from pathlib import Path

from demur.core.hub.repository import repository_here, storage_of
from demur.models.hub.needed_files import CONFIG, weights_among
from demur.models.sources import Source


class FetchedWeights:
    """Tells the weights that arrive from now on from those that were on this machine before."""

    def __init__(self, source: Source) -> None:
        """Note what is here now."""
        assert source.hub_id is not None
        self._source, self._storage = source, storage_of("models", source.hub_id)
        self._before = {path.name for path in (self._storage / "blobs").glob("*")}

    def delete(self) -> None:
        """Delete the weights that arrived since, unless another commit on this machine has them too. Small files stay."""
        assert self._source.hub_id is not None
        known = repository_here("models", self._source.hub_id, self._source.revision)
        if known is None:
            return
        for name in weights_among(known.files, known.snapshot, CONFIG):
            blob = self._storage / "blobs" / known.files[name].digest
            if blob.name not in self._before and not self._is_used_elsewhere(blob, known.snapshot):
                (known.snapshot / name).unlink(missing_ok=True)
                blob.unlink(missing_ok=True)

    def _is_used_elsewhere(self, blob: Path, snapshot: Path) -> bool:
        others = [folder for folder in (self._storage / "snapshots").glob("*") if folder != snapshot]
        return any(path.resolve() == blob.resolve() for folder in others for path in folder.rglob("*") if path.is_symlink())
