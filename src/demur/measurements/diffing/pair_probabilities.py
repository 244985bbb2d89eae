"""The exact probability of a refusal in both checkpoints of a pair, with patches of the target or mixtures of both logits."""

from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

from demur.core.progress import Progress, silent
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Branch, Need, Row
from demur.engine.lockstep.matched_pair import MatchedPair
from demur.engine.lockstep.pair_tree import Run, explore_pair
from demur.interventions.intervention import RowEdits
from demur.judges.beginnings import beginnings_of
from demur.measurements.exact_refusal.refusal_probability import BoundedProbability, Tally
from demur.measurements.exact_refusal.sampling import Sampling

Mixtures = Callable[[Float[Tensor, "run branch vocab"]], Iterable[Float[Tensor, "branch vocab"]]]
"""From the logits of the source and of the target with each patch to the logits that are counted."""


def as_they_are(logits: Float[Tensor, "run branch vocab"]) -> Sequence[Float[Tensor, "branch vocab"]]:
    """The logits of every run."""
    return list(logits)


def of_target(logits: Float[Tensor, "run branch vocab"]) -> Sequence[Float[Tensor, "branch vocab"]]:
    """The logits of the target's runs. Continuations that only the source would go on with are then not run."""
    return list(logits[1:])


def pair_probabilities(
    pair: MatchedPair,
    prompts: Sequence[tuple[int, ...]],
    patches: Sequence[Run],
    sampling: Sampling,
    *,
    mixtures: Mixtures = as_they_are,
    counted: int | None = None,
    batch_bytes: int | None = None,
    progress: Progress = silent,
) -> list[BoundedProbability]:
    """The probability that a completion is a refusal, in each run of a pair.

    Both checkpoints end at the same tokens, and only the tokens that both have are counted.

    Args:
        pair: the checkpoints.
        prompts: token ids of the prompts.
        patches: what is put into the target; None for the target as it is.
        sampling: what the probability is one of.
        mixtures: the logits that are counted; by default those of the source, then of the target with each patch.
        counted: how many logits `mixtures` gives; one for each run unless given.
        batch_bytes: how much memory a batch may take; see `explore_pair`.
        progress: called after each batch with the number of its prompts.

    Returns:
        One value for each of the counted logits, with one number for each prompt.

    Raises:
        InputError: as `demur.refusal_probability` and `explore_pair`.
        NotFinite: with the index of a prompt with logits that are not finite.
    """
    phrases, stop_ids = beginnings_of(sampling.judge), frozenset(pair.stop_ids if sampling.stop_at_eos else ())
    number = 1 + len(patches) if counted is None else counted
    tallies = [Tally(len(prompts), pair.target.tokenizer, phrases, stop_ids, sampling) for _ in range(number)]
    wanted: list[set[Branch]] = [set() for _ in tallies]

    def follow(branches: Sequence[Branch], logits: Tensor) -> list[list[int]]:
        found: list[dict[int, None]] = [{} for _ in branches]
        for tally, own, each in zip(tallies, wanted, mixtures(logits), strict=True):
            # A tally gets the branches that it asked for. Others were asked for by another run.
            places = [place for place, branch in enumerate(branches) if not branch.tokens or branch in own]
            if not places:
                continue
            own.difference_update(branches[place] for place in places)
            asked = tally.follow([branches[place] for place in places], each[places])
            for place, tokens in zip(places, asked, strict=True):
                own.update(Branch(branches[place].row, (*branches[place].tokens, token)) for token in tokens)
                found[place] |= dict.fromkeys(tokens)
        return [list(tokens) for tokens in found]

    for done in explore_pair(pair, prompts, patches, follow, max_new_tokens=sampling.max_new_tokens, batch_bytes=batch_bytes):
        progress(len(done))
    return [tally.result() for tally in tallies]


def edited_probabilities(
    checkpoint: Checkpoint,
    pair: MatchedPair,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling,
    edits: Sequence[RowEdits] = (None,),
    *,
    progress: Progress = silent,
) -> list[BoundedProbability]:
    """The probability of a refusal in one checkpoint of a pair alone, with edits, as rows of the same batches.

    It ends at the same tokens as the other checkpoint, and only the tokens that both have are counted.

    Args:
        checkpoint: one of the pair.
        pair: the pair.
        prompts: token ids of the prompts.
        sampling: what the probability is one of.
        edits: each of them None, one edit, or several that act in order.
        progress: called after each batch with the number of its rows.

    Returns:
        One value for each of the edits, with one number for each prompt.

    Raises:
        InputError: as `demur.refusal_probability`.
        NotFinite: with the index of a row with logits that are not finite.
    """
    stop_ids = frozenset(pair.stop_ids if sampling.stop_at_eos else ())
    rows = [Row(ids, edit) for edit in edits for ids in prompts]
    tally = Tally(len(rows), checkpoint.tokenizer, beginnings_of(sampling.judge), stop_ids, sampling)

    def follow(branches: Sequence[Branch], logits: Tensor) -> list[list[int]]:
        return tally.follow(branches, logits[:, : pair.vocabulary])

    needs: tuple[Need, ...] = ("branches", "edits") if any(edit is not None for edit in edits) else ("branches",)
    for done in checkpoint.engine_for(*needs).explore(rows, follow, max_new_tokens=sampling.max_new_tokens):
        progress(len(done))
    found, n = tally.result(), len(prompts)
    own = [slice(start, start + n) for start in range(0, len(rows), n)]
    return [BoundedProbability(found.probability[one], found.gap[one], found.branches[one]) for one in own]
