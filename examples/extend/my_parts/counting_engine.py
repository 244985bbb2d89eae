"""An engine: transformers, with a count of the rows that were generated. An engine of your own need not build on another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from demur.core.registry import registry
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Decoding, LoadRequest, Row
from demur.engine.transformers_engine import TransformersEngine


@dataclass(frozen=True, eq=False)
class CountingEngine(TransformersEngine):
    """`batches` holds the number of rows of each finished batch."""

    name: ClassVar[str] = "counting"
    batches: list[int] = field(default_factory=list)

    def generate(
        self, rows: Sequence[Row], decoding: Decoding, *, batch_tokens: int | None = None, batch_rows: int | None = None
    ) -> Iterator[dict[int, list[int]]]:
        """Yields completions batch by batch, as the protocol `demur.engine.engine_protocol.Engine` requires."""
        for finished in super().generate(rows, decoding, batch_tokens=batch_tokens, batch_rows=batch_rows):
            self.batches.append(len(finished))
            yield finished


class CountingEngines:
    """Loads checkpoints, each with a `CountingEngine`."""

    name: ClassVar[str] = "counting"

    def load(self, request: LoadRequest) -> Checkpoint:
        """Loads a checkpoint as the engine `transformers` does, and gives it a `CountingEngine`."""
        loaded: Checkpoint = registry("engine").get("transformers").load(request)
        return replace(loaded, engine=CountingEngine(loaded.model, loaded.tokenizer, loaded.layout))
