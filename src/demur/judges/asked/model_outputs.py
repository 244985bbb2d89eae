"""What a judge's model answered, word for word, and a memory of such outputs, so that no request is sent twice.

An output's key covers the rendered request, the judge's version (a digest of its spec) and the model as the server names it. If
one of them changes, the request is sent again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True)
class ModelOutput:
    """One output of a judge's model.

    Attributes:
        key: what `output_key` gives for its request.
        judge: the judge's name.
        model: the model that answered, as the server names it; for a local model, its name and revision.
        text: the output, word for word. For a classifier, the probabilities as JSON.
        input_tokens: tokens of the request; None if the server does not say.
        output_tokens: tokens of the output; None if the server does not say.
        cost: what the request cost by the prices in the judge's spec; 0 without prices.
    """

    key: str
    judge: str
    model: str
    text: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float = 0.0


def output_key(request: "JsonValue", version: int | str, model: str) -> str:
    """The key of an output: sha256 over the rendered request, the judge's version and the model as served."""
    return hashlib.sha256(json.dumps([request, version, model], sort_keys=True).encode()).hexdigest()


class OutputMemory(Protocol):
    """Keeps the outputs of judges. A run keeps them in its folder."""

    def served(self, judge: str) -> str | None:
        """The model that answered this judge last; None if none has."""
        ...

    def known(self, keys: Sequence[str]) -> Mapping[str, ModelOutput]:
        """Those of the outputs with these keys that are kept."""
        ...

    def keep(self, outputs: Iterable[ModelOutput]) -> None:
        """Keep outputs. After this call they survive a kill, if the memory is on a disk."""
        ...

    def cost(self, judge: str) -> float:
        """What all kept outputs of a judge cost together."""
        ...


class OutputsInMemory:
    """A memory that lasts as long as this object, for judging outside a run.

    Attributes:
        outputs: everything that was kept, by key, in order of entry.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, ModelOutput] = {}

    def served(self, judge: str) -> str | None:
        """The model that answered this judge last; None if none has."""
        return next((one.model for one in reversed(self.outputs.values()) if one.judge == judge), None)

    def known(self, keys: Sequence[str]) -> Mapping[str, ModelOutput]:
        """Those of the outputs with these keys that are kept."""
        return {key: self.outputs[key] for key in keys if key in self.outputs}

    def keep(self, outputs: Iterable[ModelOutput]) -> None:
        """Keep outputs."""
        self.outputs |= {one.key: one for one in outputs}

    def cost(self, judge: str) -> float:
        """What all kept outputs of a judge cost together."""
        return sum(one.cost for one in self.outputs.values() if one.judge == judge)
