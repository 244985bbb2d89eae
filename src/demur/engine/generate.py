"""Completions of instructions. All interventions run as rows of the same batches."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from demur.core.errors import InputError, NotFinite
from demur.core.html_repr import facts_table, shortened
from demur.core.progress import Progress, silent
from demur.engine.capture import mean_activations
from demur.engine.checkpoints import Checkpoint
from demur.engine.engine_protocol import Decoding, Need, Row
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_prompt, instruction_list
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, RowEdits, edit_sequence
from demur.interventions.target_facts import TargetFacts
from demur.judges.early_stopping import enough_for
from demur.judges.turn_end import own_length, special_thought_marks, turn_end_ids


@dataclass(frozen=True)
class Completion:
    """The text that a checkpoint generated after one prompt.

    Attributes:
        instruction: the instruction.
        text: the completion without special tokens.
        token_ids: its token ids, special tokens included.
        prompt: the prompt text; empty if it was not kept.
        own_turn: the text up to the first token that ends the turn, where the completion goes on after it; else None. Judges
            other than the published ones judge this text. If special tokens mark a thought, this text has their marks.

    Example:
        >>> import demur
        >>> demur.Completion("tell me a joke", "I cannot", (40, 4))
        Completion('tell me a joke' -> 'I cannot', 2 tokens)
    """

    instruction: str
    text: str
    token_ids: tuple[int, ...]
    prompt: str = ""
    own_turn: str | None = None

    def __repr__(self) -> str:
        return f"Completion({shortened(self.instruction)!r} -> {shortened(self.text)!r}, {len(self.token_ids)} tokens)"

    def _repr_html_(self) -> str:
        rows = [("instruction", self.instruction), ("prompt", self.prompt), ("completion", self.text)]
        return facts_table(f"Completion of {len(self.token_ids)} tokens", rows)


@dataclass(frozen=True)
class CompletionRequest:
    """One completion that is wanted.

    Attributes:
        instruction: the instruction, for messages and for the completion.
        prompt_ids: the token ids of its prompt.
        edits: its edits of the stream.
        prompt: the text of its prompt, for the completion.
    """

    instruction: str
    prompt_ids: tuple[int, ...]
    edits: RowEdits = None
    prompt: str = ""


def generate_batches(
    checkpoint: Checkpoint,
    requests: Sequence[CompletionRequest],
    *,
    max_new_tokens: int = 16,
    stop_at_eos: bool = True,
    use_cache: bool = True,
    until_verdicts: Sequence[str] = (),
    batch_tokens: int | None = None,
    batch_rows: int | None = None,
) -> Iterator[dict[int, Completion]]:
    """Greedy completions, batch after batch. `demur.generate` and runs both use this function.

    Args:
        checkpoint: the checkpoint that generates.
        requests: the completions that are wanted. Any of them may share a batch.
        max_new_tokens: the most new tokens in a completion.
        stop_at_eos: whether a completion ends at a stop token.
        use_cache: whether keys and values are kept between decode steps.
        until_verdicts: names of judges; a completion ends when none of their verdicts can change any more.
        batch_tokens: the most tokens in a batch, padding and new ones included; the free memory decides by
            default.
        batch_rows: the most rows in a batch.

    Yields:
        For each finished batch, index of the request -> completion.

    Raises:
        InputError: for an edit that does not fit the checkpoint, for edits if the engine cannot make any, and for a judge that
            needs whole completions.
        NotFinite: for logits that are not finite; the message names the checkpoint and the instruction.
    """
    needs: tuple[Need, ...] = ("edits",) if any(edit_sequence(one.edits) for one in requests) else ()
    engine = checkpoint.engine_for(*needs)
    enough = enough_for(until_verdicts, checkpoint.tokenizer) if until_verdicts else None
    decoding = Decoding(max_new_tokens, engine.stop_ids if stop_at_eos else (), engine.pad_id, use_cache, enough)
    rows = [Row(one.prompt_ids, one.edits) for one in requests]
    ends, marks = turn_end_ids(checkpoint.tokenizer, engine.stop_ids), special_thought_marks(checkpoint.tokenizer)
    try:
        for finished in engine.generate(rows, decoding, batch_tokens=batch_tokens, batch_rows=batch_rows):
            yield {
                index: _completion(checkpoint.tokenizer, requests[index], token_ids, ends, marks)
                for index, token_ids in finished.items()
            }
    except NotFinite as error:
        raise error.named(checkpoint.name, requests[error.row].instruction) from error


def _completion(
    tokenizer: Any,
    request: CompletionRequest,
    token_ids: Sequence[int],
    ends: Collection[int],
    marks: frozenset[int] = frozenset(),
) -> Completion:
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    own = own_length(token_ids, ends, getattr(tokenizer, "bos_token_id", None))
    if marks.intersection(token_ids[:own]):
        before = _with_marks(tokenizer, token_ids[:own], marks)
    else:
        before = text if own == len(token_ids) else tokenizer.decode(list(token_ids[:own]), skip_special_tokens=True)
    return Completion(request.instruction, text, tuple(token_ids), request.prompt, None if before == text else before)


def _with_marks(tokenizer: Any, token_ids: Sequence[int], marks: Collection[int]) -> str:
    """A text without special tokens, except the marks of thoughts, which judges need to tell a thought from an answer."""
    parts: list[str] = []
    for is_mark, run in groupby(token_ids, key=lambda token: token in marks):
        parts.append(str(tokenizer.decode(list(run), skip_special_tokens=not is_mark)))
    return "".join(parts)


def generate(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    interventions: Sequence[RowEdits] = (None,),
    *,
    max_new_tokens: int = 16,
    stop_at_eos: bool = True,
    use_cache: bool = True,
    batch_tokens: int | None = None,
    batch_rows: int | None = None,
    until_verdict: str | None = None,
    progress: Progress = silent,
) -> list[list[Completion]]:
    """Greedy completions under several interventions, which all run as rows of the same batches.

    Args:
        checkpoint: the checkpoint that generates.
        instructions: the instructions; a list of texts, or of conversations with one user turn.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        interventions: each of them None, one edit, or several edits that act in order. The unit `residual` is the mean norm of
            this checkpoint's stream over these instructions, unless `edit.with_residual_norm` has set it.
        max_new_tokens: the most new tokens in a completion.
        stop_at_eos: whether a completion ends at a stop token.
        use_cache: whether keys and values are kept between decode steps.
        batch_tokens: the most tokens in a batch, new ones included; the free memory decides by default.
        batch_rows: the most rows in a batch.
        until_verdict: the name of a judge; a completion ends when this judge's verdict can no longer change.
        progress: called after each batch with the number of its completions.

    Returns:
        `result[i][j]` is the completion of instruction j under intervention i.

    Raises:
        InputError: for an intervention that does not fit the checkpoint, and for a judge that needs whole completions.
        WorkError: for logits that are not finite, and if one row alone does not fit into memory.

    Example:
        >>> import demur
        >>> edit = demur.ablate(direction)
        >>> len(demur.generate(checkpoint, ["b"], prompt, [None, edit], max_new_tokens=4))
        2
    """
    refuse_single_edit(interventions)
    requests = requests_of(checkpoint, instruction_list(instructions), bound_prompt(prompt, checkpoint), interventions)
    batches = generate_batches(
        checkpoint,
        requests,
        max_new_tokens=max_new_tokens,
        stop_at_eos=stop_at_eos,
        use_cache=use_cache,
        until_verdicts=() if until_verdict is None else (until_verdict,),
        batch_tokens=batch_tokens,
        batch_rows=batch_rows,
    )
    return _in_lists(batches, progress, len(requests) // len(interventions))


def _in_lists(batches: Iterator[dict[int, Completion]], progress: Progress, n: int) -> list[list[Completion]]:
    """All completions, in lists of n in the order of their requests."""
    found: dict[int, Completion] = {}
    for finished in batches:
        found.update(finished)
        progress(len(finished))
    return [[found[i + j] for j in range(n)] for i in range(0, len(found), n)]


def refuse_single_edit(interventions: object) -> None:
    """Raise `InputError` for one edit where a list of them is expected."""
    if isinstance(interventions, Intervention):
        raise InputError("interventions is a single edit, but must be a list; give [edit], or [None, edit] for a baseline too")


def requests_of(
    checkpoint: Checkpoint, instructions: Sequence[str], prompt: Prompt, interventions: Sequence[RowEdits]
) -> list[CompletionRequest]:
    """Every instruction under the first intervention, then every instruction under the next.

    Args:
        checkpoint: the checkpoint.
        instructions: the instructions.
        prompt: the prompt format with its tokenizer.
        interventions: each of them None, one edit, or several edits that act in order.

    Raises:
        InputError: if there is no instruction or no intervention.
    """
    if not instructions or not interventions:
        raise InputError(
            f"there is nothing to run for {len(instructions)} instructions and {len(interventions)} interventions; give at least "
            "one of each"
        )
    prompts = [tuple(ids) for ids in prompt.encode(instructions)]
    texts = [prompt.text(instruction) for instruction in instructions]
    return [
        CompletionRequest(instruction, ids, edits, text)
        for edits in [bind(edits, checkpoint, instructions, prompt) for edits in interventions]
        for instruction, ids, text in zip(instructions, prompts, texts, strict=True)
    ]


def bind(edits: RowEdits, checkpoint: Checkpoint, instructions: Sequence[str], prompt: Prompt) -> tuple[Intervention, ...]:
    """The same edits. Those with the unit `residual` get the mean norm of this checkpoint's stream.

    The norm is the mean over these instructions at the edited layer and the direction's site and position. Other facts of the
    target cannot be read from the instructions that are answered; an edit that lacks them is refused when it is made a table.
    """
    return tuple(
        edit.with_facts(TargetFacts(residual_norm=residual_norm(edit, checkpoint, instructions, prompt)))
        if "residual norm" in edit.missing_facts
        else edit
        for edit in edit_sequence(edits)
    )


def residual_norm(edit: Intervention, checkpoint: Checkpoint, instructions: Sequence[str], prompt: Prompt) -> float:
    """Mean norm of the checkpoint's stream at the edited layer. Raises `InputError` if several layers are edited."""
    own = edit.direction
    layers = edit.layers or (() if own is None else (own.layer,))
    if len(layers) != 1:
        raise InputError(
            f"unit 'residual' is the norm at one layer, but {len(layers)} layers are edited; use unit 'raw' or 'unit'"
        )
    if own is None:
        means = mean_activations(checkpoint, instructions, prompt, layers=layers)
    else:
        means = mean_activations(checkpoint, instructions, prompt, layers=layers, site=own.site, position=own.position)
    return float(means.mean_norm[0])
