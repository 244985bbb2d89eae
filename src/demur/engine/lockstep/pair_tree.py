"""Runs two checkpoints in lockstep over the same tokens, each with its own KV cache, along a tree of continuations.

In every forward pass the source runs first, and what patches need of its stream is kept. Then the target runs once for each
patch or edit, over the same rows in the same batch. So the results of two patches differ only by what the patches do, and a patch
of a checkpoint into itself changes no bit.

Prepacked weights are not used here, because they are kept for one model at a time and would be made again for every pass.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from demur.core.errors import InputError
from demur.engine.batching import in_batches, pad_left, position_ids
from demur.engine.checkpoints import Checkpoint
from demur.engine.continuations.tree_levels import Level, grown, rows_of_all, walk_levels
from demur.engine.engine_protocol import Branch
from demur.engine.lockstep.component_patch import ComponentPatch
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.stream_patch import StreamPatch
from demur.engine.lockstep.target_edit import TargetEdit
from demur.engine.model_state import state_of
from demur.models.layouts import kv_width_of

Run = StreamPatch | ComponentPatch | TargetEdit | None
"""How the target runs: with a patch from the source, with an edit of its own stream, or as it is."""

FollowPair = Callable[[Sequence[Branch], Float[Tensor, "run branch vocab"]], Sequence[Sequence[int]]]
"""Gets some branches with the logits after each, and gives for each branch the tokens that are to be run after it. The first
logits are the source's, then come the target's with each patch. They are of the token ids that both checkpoints have."""

SHARE = 0.1
"""KV caches and streams of a batch may take this part of the memory of both checkpoints' weights."""
LEAST_BYTES = 2**29
"""Or half a GiB, if that is more. Small checkpoints in batches of a few rows would take about twice as long (docs/diff.md)."""


@dataclass(frozen=True, eq=False)
class _Lockstep:
    """The pair with its patches."""

    pair: MatchedPair
    patches: tuple[Run, ...]

    def new_caches(self) -> tuple[DynamicCache, ...]:
        """Empty KV caches: the source's, and the target's for each patch."""
        return tuple(DynamicCache() for _ in (None, *self.patches))

    def forward(self, ids: Tensor, mask: Tensor, caches: Sequence[DynamicCache], prompt_width: int) -> Tensor:
        """The logits after the last of these tokens, (run, row, vocab): the source's, then the target's with each patch."""
        part: Literal["prompt", "generated"] = "generated" if mask.shape[1] > prompt_width else "prompt"
        acting = [patch if patch is not None and patch.acts_on(part) else None for patch in self.patches]
        kept: dict[Hashable, Tensor] = {}
        with ExitStack() as stack:
            for reader in {patch.reads: patch for patch in acting if patch is not None}.values():
                stack.enter_context(reader.recording(self.pair.source, kept))
            found = [self._run(self.pair.source, ids, mask, caches[0])]
        for patch, cache in zip(acting, caches[1:], strict=True):
            with nullcontext() if patch is None else patch.acting_on(self.pair, kept, prompt_width):
                found.append(self._run(self.pair.target, ids, mask, cache))
        return torch.stack([one.to(found[-1].device) for one in found])

    def _run(self, checkpoint: Checkpoint, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        device = checkpoint.device
        output = checkpoint.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            position_ids=position_ids(mask)[:, -ids.shape[1] :].to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1, : self.pair.vocabulary]
        return logits


def explore_pair(
    pair: MatchedPair,
    prompts: Sequence[tuple[int, ...]],
    patches: Sequence[Run],
    follow: FollowPair,
    *,
    max_new_tokens: int,
    batch_tokens: int | None = None,
) -> Iterator[list[int]]:
    """Run continuations of each prompt as a tree, in the source and in the target with each patch.

    Every token that any of them asks for is run in all of them.

    Args:
        pair: the checkpoints.
        prompts: token ids of the prompts, the same for both.
        patches: what is put into the target, or edits of its own stream; None for the target as it is.
        follow: gets some branches with the logits after each in every run, and chooses the tokens to run after each. If a batch
            does not fit into memory, it is called again from the branch without tokens on.
        max_new_tokens: the most tokens in a continuation, counting the one that is not run.
        batch_tokens: the most tokens in a batch, padding and new ones included. By default the KV caches and streams of a batch
            take at most a tenth of the memory of both checkpoints' weights, or half a GiB if that is more.

    Returns:
        For each finished batch, the indices of its prompts.

    Raises:
        InputError: for a patch or an edit that does not fit the checkpoints.
        WorkError: if one prompt alone does not fit into memory.
        NotFinite: with the index of a prompt with logits that are not finite.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    for patch in patches:
        if patch is not None:
            patch.check(pair.target)
    running = _Lockstep(pair, tuple(patches))
    budget = fitting_tokens(pair, len(patches)) if batch_tokens is None else batch_tokens

    def work(indices: list[int]) -> None:
        with rows_of_all(indices, follow) as named, one_thread(pair):
            _explore_batch(running, [prompts[i] for i in indices], named, max_new_tokens, budget)

    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    yield from (done for done, _ in in_batches(lengths, work, model=pair.target.model, batch_tokens=budget, like=prompts))


@contextmanager
def one_thread(pair: MatchedPair) -> Iterator[None]:
    """Inside, no other thread runs either model. Locks are taken in one order, so that two threads cannot wait for each other."""
    states = {id(state): state for state in (state_of(one.model) for one in (pair.source, pair.target))}
    with ExitStack() as stack:
        for _, state in sorted(states.items()):
            stack.enter_context(state.lock)
        yield


def fitting_tokens(pair: MatchedPair, patches: int) -> int:
    """The most tokens in a batch whose KV caches and streams take `SHARE` of the memory of the weights, or `LEAST_BYTES`."""
    config, size = pair.target.model.config.get_text_config(), pair.target.dtype.itemsize
    width = kv_width_of(config)
    if width is None:
        raise InputError(
            "the config does not give the width of keys and values, so no batch size can be found; give batch_tokens"
        )
    # A decode step holds the caches of its branches and of those that they continue.
    each = size * (2 * 2 * (1 + patches) * pair.target.n_layers * width + patches * pair.target.d_model)
    weights = sum(weight.nbytes for one in (pair.source, pair.target) for weight in one.model.parameters())
    return max(LEAST_BYTES, int(SHARE * weights)) // each


@torch.inference_mode()
def _explore_batch(
    running: _Lockstep, prompts: Sequence[tuple[int, ...]], follow: FollowPair, max_new_tokens: int, batch_tokens: int
) -> None:
    """Run the trees of some prompts."""
    ids, mask = pad_left(prompts, running.pair.target.pad_id, running.pair.target.device)
    caches, prompt_width = running.new_caches(), ids.shape[1]
    logits = running.forward(ids, mask, caches, prompt_width)
    branches, places = grown([Branch(row) for row in range(len(prompts))], logits, follow)
    pending = [Level(tuple(branches), tuple(places), caches, mask)]
    del caches  # `pending` alone holds them

    def step(ids: Tensor, mask: Tensor, caches: Sequence[DynamicCache], _: Sequence[Branch]) -> Tensor:
        return running.forward(ids, mask, caches, prompt_width)

    most_rows = max(1, batch_tokens // (prompt_width + max_new_tokens))
    walk_levels(pending, step, follow, most_rows=most_rows, max_new_tokens=max_new_tokens)
