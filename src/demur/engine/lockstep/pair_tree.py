"""Runs two checkpoints in lockstep over the same tokens, each with its own KV cache, along a tree of continuations.

In every forward pass the source runs first, and what patches need of its stream is kept. Then the target runs once for each
patch or edit, over the same rows in the same batch. So the results of two patches differ only by what the patches do, and a patch
of a checkpoint into itself changes no bit. Blocks of the target that come before all patches run once for all of them.

Prepacked weights are not used here, because they are kept for one model at a time and would be made again for every pass.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from demur.engine.lockstep.batch_room import BatchRoom, batch_room
from demur.engine.lockstep.block_skipping import Begun, begun, can_skip
from demur.engine.lockstep.component_patch import ComponentPatch
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.stream_patch import StreamPatch
from demur.engine.lockstep.target_edit import TargetEdit
from demur.engine.model_state import state_of

Run = StreamPatch | ComponentPatch | TargetEdit | None
"""How the target runs: with a patch from the source, with an edit of its own stream, or as it is."""

FollowPair = Callable[[Sequence[Branch], Float[Tensor, "run branch vocab"]], Sequence[Sequence[int]]]
"""Gets some branches with the logits after each, and gives for each branch the tokens that are to be run after it. The first
logits are the source's, then come the target's with each patch. They are of the token ids that both checkpoints have."""


@dataclass(frozen=True, eq=False)
class _Lockstep:
    """The pair with its patches.

    Attributes:
        pair: the checkpoints.
        patches: the patches.
        begins: for each patch, how many blocks of the target run as without it. They run once for all patches.
    """

    pair: MatchedPair
    patches: tuple[Run, ...]
    begins: tuple[int, ...]

    def new_caches(self) -> tuple[DynamicCache, ...]:
        """Empty KV caches: the source's, that of the target's blocks that run once, and the target's for each patch."""
        return tuple(DynamicCache() for _ in range(2 + len(self.patches)))

    def forward(self, ids: Tensor, mask: Tensor, caches: Sequence[DynamicCache], prompt_width: int) -> Tensor:
        """The logits after the last of these tokens, (run, row, vocab): the source's, then the target's with each patch."""
        target, before = self.pair.target, mask.shape[1] - ids.shape[1]
        part: Literal["prompt", "generated"] = "generated" if before else "prompt"
        acting = [patch if patch is not None and patch.acts_on(part) else None for patch in self.patches]
        kept: dict[Hashable, Tensor] = {}
        with ExitStack() as stack:
            for reader in {patch.reads: patch for patch in acting if patch is not None}.values():
                stack.enter_context(reader.recording(self.pair.source, kept))
            logits = self._run(self.pair.source, ids, mask, caches[0])
        # Not stacked at the end, which would hold them all twice.
        found = logits.new_empty(1 + len(acting), *logits.shape, device=target.device, dtype=self.pair.dtype)
        found[0] = logits
        first_blocks = self._begun(ids, mask, caches[1])
        for place, (patch, begin) in enumerate(zip(acting, self.begins, strict=True), start=1):
            cache = caches[1 + place]
            with ExitStack() as stack:
                stack.enter_context(first_blocks.resumed(target.model, target.layout, begin, cache, before))
                if patch is not None:
                    stack.enter_context(patch.acting_on(self.pair, kept, prompt_width))
                found[place] = self._run(target, ids, mask, cache)
        return found

    def _begun(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Begun:
        """Run the blocks that come before a patch, once for all patches."""
        depths = {*self.begins} - {0}
        if not depths:
            return Begun({})
        with begun(self.pair.target.model, self.pair.target.layout, depths) as found:
            self._run(self.pair.target, ids, mask, cache)
        return found

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
    batch_bytes: int | None = None,
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
        batch_bytes: how much memory the keys, values and logits of a batch may take. By default 6 % of the memory of both
            checkpoints' weights, or 16 MiB if that is more.

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
    running = _Lockstep(pair, tuple(patches), begins_of(pair, patches))
    room = batch_room(pair, running.begins, batch_bytes)

    def work(indices: list[int]) -> None:
        with rows_of_all(indices, follow) as named, one_thread(pair):
            _explore_batch(running, [prompts[i] for i in indices], named, max_new_tokens, room)

    lengths, rows = [len(prompt) + max_new_tokens for prompt in prompts], room.prompts(max(map(len, prompts), default=1))
    tokens, model = rows * max(lengths, default=1), pair.target.model
    yield from (done for done, _ in in_batches(lengths, work, model=model, batch_tokens=tokens, batch_rows=rows, like=prompts))


@contextmanager
def one_thread(pair: MatchedPair) -> Iterator[None]:
    """Inside, no other thread runs either model. Locks are taken in one order, so that two threads cannot wait for each other."""
    states = {id(state): state for state in (state_of(one.model) for one in (pair.source, pair.target))}
    with ExitStack() as stack:
        for _, state in sorted(states.items()):
            stack.enter_context(state.lock)
        yield


def begins_of(pair: MatchedPair, patches: Sequence[Run]) -> tuple[int, ...]:
    """For each patch, how many blocks of the target run as without it, and can run once for all patches."""
    if not can_skip(pair.target):
        return (0,) * len(patches)
    return tuple(pair.target.n_layers if patch is None else patch.begins(pair.target) for patch in patches)


@torch.inference_mode()
def _explore_batch(
    running: _Lockstep, prompts: Sequence[tuple[int, ...]], follow: FollowPair, max_new_tokens: int, room: BatchRoom
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

    walk_levels(pending, step, follow, most_rows=room.branches, max_new_tokens=max_new_tokens)
