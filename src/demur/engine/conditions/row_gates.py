"""Decides the gates of rows before they run: edits whose gate is closed are left out, the others act without a gate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from demur.directions.direction import Direction
from demur.engine.engine_protocol import Continuation, Row
from demur.interventions.gates.gate import Gate, Tokens
from demur.interventions.intervention import edit_sequence
from demur.models.layouts import Site

AnyRow = TypeVar("AnyRow", Row, Continuation)
Ids = tuple[int, ...]


@runtime_checkable
class Reads(Protocol):
    """The `read` of an engine."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], *, layers: Sequence[int], site: Site, positions: Sequence[int]
    ) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
        """See `Engine.read`."""
        ...


def with_open_gates(rows: Sequence[AnyRow], read: Reads) -> Sequence[AnyRow]:
    """The same rows with every gate decided.

    Args:
        rows: rows whose edits may have gates.
        read: reads the unedited stream of prompts.

    Returns:
        The rows in their order. An edit whose gate is open has no gate, and one whose gate is closed is not there. Rows without
        gates are the same objects.
    """
    asked: dict[Gate, dict[Ids, bool]] = {}
    for row in rows:
        for edit in edit_sequence(row.edits):
            if edit.gate is not None:
                asked.setdefault(edit.gate, {})[tuple(row.prompt)] = False
    if not asked:
        return rows
    for gate, prompts in asked.items():
        for prompt, stream in prompt_streams(list(prompts), gate.direction, gate.tokens, read):
            prompts[prompt] = gate.opens(stream)
    return [_decided(row, lambda gate, prompt: asked[gate][prompt]) for row in rows]


def _decided(row: AnyRow, opens: Callable[[Gate, Ids], bool]) -> AnyRow:
    edits = edit_sequence(row.edits)
    if all(edit.gate is None for edit in edits):
        return row
    kept = tuple(replace(edit, gate=None) for edit in edits if edit.gate is None or opens(edit.gate, tuple(row.prompt)))
    return replace(row, edits=kept or None)


def prompt_streams(
    prompts: Sequence[Ids], direction: Direction, tokens: Tokens | str, read: Reads
) -> Iterator[tuple[Ids, Tensor]]:
    """The stream of each prompt at the direction's place, (token, d_model); prompts of one length are read together."""
    lengths: dict[int, list[Ids]] = {}
    for prompt in prompts:
        lengths.setdefault(len(prompt) if tokens == "all" else 1, []).append(prompt)
    for length, group in lengths.items():
        positions = range(-length, 0)
        for indices, states in read(group, layers=[direction.layer], site=direction.site, positions=positions):
            yield from ((group[index], states[place, 0]) for place, index in enumerate(indices))
