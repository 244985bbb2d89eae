"""Sorts rows into passes for vLLM. All rows of a pass have the same edits, and no two have the same token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demur.engine.vllm.flat_batch import Ids
from demur.interventions.intervention import Intervention, RowEdits, edit_sequence


@dataclass(frozen=True)
class Tokens:
    """The tokens of a row that are known before it runs.

    Attributes:
        ids: its token ids.
        prompt: how many of them are its prompt; edits treat the others as generated.
        edits: its edits.
    """

    ids: Ids
    prompt: int
    edits: RowEdits = None


@dataclass(frozen=True)
class ArmPass:
    """Rows that run together.

    Attributes:
        edits: the edits of every row.
        rows: for each row, its token ids, the length of its prompt, and which of all rows it stands for. Equal rows run once.
    """

    edits: tuple[Intervention, ...]
    rows: tuple[tuple[Ids, int, tuple[int, ...]], ...]


def arm_passes(rows: Sequence[Tokens], *, most_tokens: int, most_rows: int, new_tokens: int = 0) -> Iterator[ArmPass]:
    """All rows in passes, arm after arm.

    Args:
        rows: the rows.
        most_tokens: the most tokens in a pass, new ones included. A longer row is a pass of its own.
        most_rows: the most rows in a pass.
        new_tokens: how many tokens each row may generate.

    Returns:
        The passes.
    """
    arms: dict[tuple[Intervention, ...], dict[tuple[Ids, int], list[int]]] = {}
    for index, row in enumerate(rows):
        arms.setdefault(edit_sequence(row.edits), {}).setdefault((row.ids, row.prompt), []).append(index)
    for edits, alike in arms.items():
        pending, taken, tokens = list[tuple[Ids, int, tuple[int, ...]]](), set[Ids](), 0
        for (ids, prompt), indices in alike.items():
            size = len(ids) + new_tokens
            if pending and (ids in taken or len(pending) == most_rows or tokens + size > most_tokens):
                yield ArmPass(edits, tuple(pending))
                pending, taken, tokens = [], set(), 0
            pending.append((ids, prompt, tuple(indices)))
            taken.add(ids)
            tokens += size
        yield ArmPass(edits, tuple(pending))
