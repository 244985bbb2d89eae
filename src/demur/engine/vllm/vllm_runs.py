"""Calls of vLLM: rows in, and tokens, logits or streams out, each of them for the row that it belongs to."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from demur.core.errors import InputError, WorkError
from demur.engine.vllm.arms import ArmPass, Tokens, arm_passes
from demur.engine.vllm.flat_batch import ExpectedRows, Ids
from demur.engine.vllm.stream_access import StreamAccess, Taken, Wanted
from demur.interventions.edit_table import EditTable, tabulate
from demur.models.layouts import Layout, Point

ROWS = 256
"""The number of rows that vLLM gets at a time, so that finished ones can be stored. It forms its own batches within them."""
PASS_TOKENS = 16_384
"""The most tokens of prompts that vLLM gets at a time where their streams or logits are read, which are kept in memory."""


@dataclass(frozen=True, eq=False)
class VllmRuns:
    """vLLM with a model in it.

    Attributes:
        runner: the `LLM` of vLLM.
        access: the stream of its model; None if it cannot be reached.
        layout: the layout of the model's family.
        n_layers: number of blocks.
        d_model: width of the stream.
        most_tokens: the most tokens of a prompt with its completion.
        cache_tokens: how many tokens fit into vLLM's KV cache at a time. With more, vLLM would take rows back and run them again.
        block: the cache is given out in blocks of so many tokens.
    """

    runner: Any  # vLLM is not among the dependencies of demur, so its types are not known here.
    access: StreamAccess | None
    layout: Layout
    n_layers: int
    d_model: int
    most_tokens: int
    cache_tokens: int
    block: int

    def check_length(self, prompt: int, new: int) -> None:
        """Raises `InputError` for a row of more tokens than the model takes."""
        if prompt + new > self.most_tokens:
            raise InputError(
                f"a prompt of {prompt:,} tokens and {new:,} new ones are {prompt + new:,} tokens, and "
                f"the model takes {self.most_tokens:,}; ask for fewer new tokens, or leave the instruction out"
            )

    def completed(
        self, rows: Sequence[Tokens], max_new_tokens: int, stop_ids: Sequence[int], batch_rows: int | None
    ) -> Iterator[tuple[ArmPass, list[Any]]]:
        """Greedy completions, pass after pass.

        Args:
            rows: the prompts and their edits.
            max_new_tokens: the most tokens in a completion.
            stop_ids: tokens that end a completion.
            batch_rows: the most rows in a pass.

        Yields:
            The rows of a pass, and vLLM's output for each of them.
        """
        passes = arm_passes(
            rows,
            most_tokens=self.cache_tokens,
            most_rows=batch_rows or ROWS,
            new_tokens=max_new_tokens + self.block,
        )
        for one in passes:
            # The log-probability of the chosen token shows whether logits are finite.
            yield one, self._run(one, max_new_tokens, Wanted(), stop_token_ids=list(stop_ids), logprobs=0)[0]

    def prefilled(
        self, rows: Sequence[Tokens], wanted: Wanted, *, logits: Sequence[int] = (), batch_tokens: int | None = None
    ) -> Iterator[list[tuple[int, Taken]]]:
        """Streams and logits of rows that are run from their first token to their last, pass after pass.

        Args:
            rows: the rows.
            wanted: the points and positions to read.
            logits: for each row, after how many of its last tokens logits are wanted; none by default.
            batch_tokens: the most tokens in a pass.

        Yields:
            For each row of a pass, its index and what was read of it.

        Raises:
            InputError: for a row of more tokens than the model takes.
            WorkError: if a row cannot be told apart, or an edit did not act.
        """
        for row in rows:
            self.check_length(len(row.ids), 1)
        most = min(self.cache_tokens, batch_tokens or PASS_TOKENS)
        for one in arm_passes(rows, most_tokens=most, most_rows=ROWS, new_tokens=self.block):
            counts = {ids: max(logits[i] for i in indices) for ids, _, indices in one.rows} if logits else {}
            asked = Wanted(wanted.points, wanted.positions, counts)
            _, taken = self._run(one, 1, asked)
            yield [(index, taken[ids]) for ids, _, indices in one.rows for index in indices]

    def _run(
        self, one: ArmPass, max_new_tokens: int, wanted: Wanted, **settings: int | list[int]
    ) -> tuple[list[Any], dict[Ids, Taken]]:
        from vllm import SamplingParams

        asked = [list(ids) for ids, _, _ in one.rows]
        # Its own end tokens are ignored: a study says itself which tokens end a row.
        greedy = SamplingParams(temperature=0, ignore_eos=True, detokenize=False, max_tokens=max_new_tokens, **settings)
        expected = ExpectedRows({ids: prompt for ids, prompt, _ in one.rows})
        taken: dict[Ids, Taken] = {}
        reads = bool(one.edits or wanted.points or wanted.logits)
        with ExitStack() as stack:
            if reads:
                if self.access is None:
                    raise WorkError("vLLM's model cannot be reached, so no stream can be read or edited")
                taken = stack.enter_context(self.access.acting(expected, self._table(one, self.access), wanted))
            outputs = self.runner.generate([{"prompt_token_ids": ids} for ids in asked], greedy, use_tqdm=False)
        if [list(output.prompt_token_ids) for output in outputs] != asked:
            raise WorkError("vLLM answered other prompts than it was asked, so its output is not used; load the checkpoint again")
        if reads:
            expected.check_all_ran(ids for ids, _, _ in one.rows)
        return outputs, taken

    def _table(self, one: ArmPass, access: StreamAccess) -> EditTable:
        device = next(access.model.parameters()).device
        return tabulate([one.edits], self.layout, self.n_layers, self.d_model, device) if one.edits else {}


def stacked(found: Sequence[tuple[int, Taken]]) -> tuple[list[int], torch.Tensor, torch.Tensor]:
    """The indices of some rows, their states (row, point, position, d_model) and their logits (row, token, vocab)."""
    return (
        [index for index, _ in found],
        torch.stack([one.states for _, one in found]),
        torch.stack([one.logits for _, one in found]),
    )


def points_of(layout: Layout, n_layers: int) -> tuple[Point, ...]:
    """All points of the stream that a family has, in their order."""
    inner = [Point(layer, site) for layer in range(n_layers) for site in layout.sites if site != "resid_post"]
    return (*inner, Point(n_layers, "resid_pre"))
