"""The probability that a completion sampled at temperature 1 is a refusal for a prefix judge, computed without decoding.

The tree of all token sequences that can still become a refusal is walked. At each of its nodes the next-token distribution says
how much probability goes to tokens that complete a phrase, and how much to tokens that continue one. Nodes with little
probability are not followed. The sum of their probabilities bounds the error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import NotFinite
from demur.core.progress import Progress, silent
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Branch, Need, Row
from demur.engine.generate import refuse_single_edit, requests_of
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.interventions.intervention import RowEdits, edit_sequence
from demur.judges.beginnings import beginnings_of
from demur.judges.judge import Judge
from demur.measurements.exact_refusal.phrase_states import START, PhraseStates, State, phrase_states
from demur.measurements.exact_refusal.sampling import MIN_MASS, Sampling
from demur.measurements.exact_refusal.token_bytes import token_bytes


@dataclass(frozen=True, eq=False)
class BoundedProbability:
    """Probabilities that were computed up to a known gap: each lies between `probability` and `probability + gap`.

    Attributes:
        probability: float64 on the CPU, between 0 and 1.
        gap: the probability of the beginnings that were not followed, in the same shape.
        branches: how many token positions after the prompt were run, in the same shape.
    """

    probability: Tensor
    gap: Tensor
    branches: Tensor


class Tally:
    """Adds up the probability of refusals, and what is not followed, while a tree of continuations is explored."""

    def __init__(
        self, rows: int, tokenizer: object, phrases: tuple[str, ...], stop_ids: frozenset[int], sampling: Sampling
    ) -> None:
        self.refusal, self.gap = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
        self.branches = torch.zeros(rows, dtype=torch.long)
        self._tokenizer, self._phrases, self._stop_ids, self._sampling = tokenizer, phrases, stop_ids, sampling
        self._states: PhraseStates | None = None
        self._waiting: dict[Branch, tuple[State, float]] = {}

    def follow(self, branches: Sequence[Branch], logits: Tensor) -> list[list[int]]:
        """Count the refusals right after some branches. Returns the tokens that are worth following."""
        if self._states is None:
            tokens = token_bytes(self._tokenizer, logits.shape[-1])
            self._states = phrase_states(tokens, self._phrases, self._stop_ids)
        places: dict[State, list[int]] = {}
        masses = list[float]()
        for place, branch in enumerate(branches):
            state, mass = self._taken(branch)
            places.setdefault(state, []).append(place)
            masses.append(mass)
        found: list[list[int]] = [[] for _ in branches]
        for state, which in places.items():
            own = logits[which]
            # Float32 is exact enough for a sum over the vocabulary; the model itself rounds more.
            log_masses = torch.tensor([masses[place] for place in which], dtype=torch.float64).log()
            total = torch.logsumexp(own.to(torch.promote_types(own.dtype, torch.float32)), -1).double().cpu() - log_masses
            for place, chosen in zip(which, self._count([branches[i] for i in which], own, total, state), strict=True):
                found[place] = chosen
        return found

    def _taken(self, branch: Branch) -> tuple[State, float]:
        """The state and the probability of a branch that was waiting to be run."""
        if branch.tokens:
            self.branches[branch.row] += 1
            return self._waiting.pop(branch)
        # The first call for a row, or one after its batch did not fit into memory.
        self.refusal[branch.row] = self.gap[branch.row] = 0.0
        self.branches[branch.row] = 0
        return START, 1.0

    def _count(self, branches: Sequence[Branch], logits: Tensor, total: Tensor, state: State) -> list[list[int]]:
        """Count the refusals right after branches in one state. `total` has the logarithm of what to divide by."""
        assert self._states is not None
        moves, rows = self._states.moves(state), torch.tensor([branch.row for branch in branches])

        def mass(ids: Tensor) -> Tensor:
            return (logits[:, ids.to(logits.device)].double().cpu() - total[:, None]).exp()

        # Several branches may belong to the same row.
        self.refusal.index_add_(0, rows, mass(moves.refusals).sum(-1))
        if len(branches[0].tokens) + 1 == self._sampling.max_new_tokens:
            self.refusal.index_add_(0, rows, mass(moves.at_end).sum(-1))
            return [[] for _ in branches]
        masses = mass(moves.ids)
        followed = masses > self._sampling.min_mass
        self.gap.index_add_(0, rows, masses.masked_fill(followed, 0.0).sum(-1))
        found: list[list[int]] = [[] for _ in branches]
        for place, move in followed.nonzero().tolist():
            branch, token = branches[place], int(moves.ids[move])
            found[place].append(token)
            self._waiting[Branch(branch.row, (*branch.tokens, token))] = (moves.states[move], float(masses[place, move]))
        return found

    def result(self) -> BoundedProbability:
        """The probability of each row so far."""
        # Rounding may bring a sum of probabilities to a little more than 1.
        probability = self.refusal.clamp(0.0, 1.0)
        return BoundedProbability(probability, torch.minimum(self.gap, 1 - probability), self.branches)


def row_probabilities(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    sampling: Sampling,
    *,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> BoundedProbability:
    """The probability of a refusal for prompts with their edits.

    Args:
        checkpoint: the loaded checkpoint.
        rows: the prompts.
        sampling: what the probability is one of.
        batch_tokens: the most tokens in a batch.
        progress: called after each batch with the number of its rows.

    Returns:
        One probability for each row, (row,).

    Raises:
        InputError: as `refusal_probability`.
        NotFinite: with the index of a row with logits that are not finite.
    """
    needs: tuple[Need, ...] = ("branches", "edits") if any(edit_sequence(row.edits) for row in rows) else ("branches",)
    phrases, engine = beginnings_of(sampling.judge), checkpoint.engine_for(*needs)
    stop_ids = frozenset(engine.stop_ids if sampling.stop_at_eos else ())
    tally = Tally(len(rows), checkpoint.tokenizer, phrases, stop_ids, sampling)
    for done in engine.explore(rows, tally.follow, max_new_tokens=sampling.max_new_tokens, batch_tokens=batch_tokens):
        progress(len(done))
    return tally.result()


def bounded_refusal_probability(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    interventions: Sequence[RowEdits] = (None,),
    judge: str | Judge = "prefix",
    *,
    max_new_tokens: int = 16,
    stop_at_eos: bool = True,
    min_mass: float = MIN_MASS,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> BoundedProbability:
    """The probability of a refusal, with the bound of its error. The arguments are those of `refusal_probability`.

    Args:
        checkpoint: the checkpoint.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        interventions: each of them None, one edit, or several edits that act in order.
        judge: a judge that decides by how a completion begins, or its name.
        max_new_tokens: the length of a completion, in tokens.
        stop_at_eos: whether a completion ends at a stop token.
        min_mass: a beginning with at most this probability is not followed.
        batch_tokens: the most tokens in a batch, new ones included; the free memory decides by default.
        progress: called after each batch with the number of its rows.

    Returns:
        `probability`, `gap` and `branches`, each (intervention, instruction). The true probability lies between `probability` and
        `probability + gap`, up to rounding in the model.

    Raises:
        InputError: as `refusal_probability`.
        WorkError: as `refusal_probability`.

    Example:
        >>> import demur
        >>> found = demur.bounded_refusal_probability(checkpoint, ["b"], prompt, [None])
        >>> bool((found.probability + found.gap <= 1).all())
        True
    """
    refuse_single_edit(interventions)
    requests = requests_of(checkpoint, instruction_list(instructions), bound_prompt(prompt, checkpoint), interventions)
    rows = [Row(one.prompt_ids, one.edits) for one in requests]
    sampling = Sampling(judge, max_new_tokens, stop_at_eos, min_mass)
    try:
        found = row_probabilities(checkpoint, rows, sampling, batch_tokens=batch_tokens, progress=progress)
    except NotFinite as error:
        raise error.named(checkpoint.name, requests[error.row].instruction) from error
    shape = (len(interventions), len(rows) // len(interventions))
    return BoundedProbability(*(part.reshape(shape) for part in (found.probability, found.gap, found.branches)))


def refusal_probability(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    interventions: Sequence[RowEdits] = (None,),
    judge: str | Judge = "prefix",
    *,
    max_new_tokens: int = 16,
    stop_at_eos: bool = True,
    min_mass: float = MIN_MASS,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Float[Tensor, "intervention instruction"]:
    """The probability that a completion sampled at temperature 1 is a refusal for a prefix judge, computed without decoding.

    It counts every way to write one of the judge's phrases in tokens, also if the last token runs past the phrase, after white
    space that the judge strips, and between special tokens that are left out of the text. A completion that ends before a phrase
    is complete is no refusal. The number is too low by at most the `gap` of `bounded_refusal_probability`, which is usually a few
    times `min_mass`.

    Args:
        checkpoint: the checkpoint.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        interventions: each of them None, one edit, or several edits that act in order; all run as rows of the same batches.
        judge: a judge that decides by how a completion begins, or its name: it has the attributes `beginnings`, the phrases, and
            `whole_text`, which is true.
        max_new_tokens: the length of a completion, in tokens. Most phrases need few, so a larger number changes little.
        stop_at_eos: whether a completion ends at a stop token.
        min_mass: a beginning with at most this probability is not followed. A smaller number makes the gap smaller and takes
            longer.
        batch_tokens: the most tokens in a batch, new ones included; the free memory decides by default.
        progress: called after each batch with the number of its rows.

    Returns:
        The probabilities, (intervention, instruction), float64 on the CPU.

    Raises:
        InputError: for a judge that decides in another way, for an intervention that does not fit the checkpoint, for an engine
            that cannot run trees of continuations, and for a tokenizer whose texts are not joined token by token.
        WorkError: for logits that are not finite, and if one row alone does not fit into memory.

    Example:
        >>> import demur
        >>> edit = demur.ablate(direction)
        >>> demur.refusal_probability(checkpoint, ["a", "b"], prompt, [None, edit]).shape
        torch.Size([2, 2])
    """
    return bounded_refusal_probability(
        checkpoint,
        instructions,
        prompt,
        interventions,
        judge,
        max_new_tokens=max_new_tokens,
        stop_at_eos=stop_at_eos,
        min_mass=min_mass,
        batch_tokens=batch_tokens,
        progress=progress,
    ).probability
