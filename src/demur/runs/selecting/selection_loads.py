"""The checkpoints of a selection, one in memory at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from demur.core.progress import Phases
from demur.engine.checkpoints import Checkpoint
from demur.models.freed_memory import free_memory
from demur.runs.execution import load_named
from demur.study.plan import Arm
from demur.study.spec import Study


class OfArm(Protocol):
    """Work on one arm."""

    @property
    def arm(self) -> Arm:
        """The arm."""


Work = TypeVar("Work", bound=OfArm)


@dataclass
class Loads:
    """Loads checkpoints, one at a time; the last one stays in memory until another is asked for."""

    study: Study
    device: str
    phases: Phases
    last: str | None = None
    n_layers: int = 0
    fingerprints: dict[str, str] = field(default_factory=dict)
    _loaded: Checkpoint | None = None

    @contextmanager
    def checkpoint(self, name: str) -> Iterator[Checkpoint]:
        """The loaded checkpoint with this name in the study."""
        if self.last != name or self._loaded is None:
            self.free()
            with self.phases(f"loading {name}", 1) as progress:
                self._loaded = load_named(self.study, name, self.device)
                progress(1)
            self.last, self.n_layers = name, self._loaded.n_layers
            self.fingerprints[name] = self._loaded.fingerprint
        yield self._loaded

    def last_first(self, works: Sequence[Work]) -> list[Work]:
        """The arms of the checkpoint that is still in memory, then the others, checkpoint by checkpoint."""
        order = [self.last, *(name for name in self.study.checkpoints if name != self.last)]
        return sorted(works, key=lambda work: order.index(work.arm.checkpoint))

    def free(self) -> None:
        """Let the last checkpoint go."""
        self._loaded = None
        free_memory()
