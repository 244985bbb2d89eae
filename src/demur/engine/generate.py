"""Completions of instructions: text in, text out, every intervention as rows of the same batches."""

from collections.abc import Sequence
from dataclasses import dataclass

from demur.core.errors import InputError, NotFinite
from demur.core.html_repr import facts_table, shortened
from demur.core.progress import Progress, silent
from demur.engine.capture import mean_activations
from demur.engine.checkpoints import Checkpoint
from demur.engine.decode import Decoding, decode
from demur.engine.prefill import Row
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, RowEdits
from demur.judges.early_stopping import enough_for


@dataclass(frozen=True)
class Completion:
    """What a checkpoint wrote behind one prompt. `text` leaves special tokens out; `token_ids` keeps them."""

    instruction: str
    text: str
    token_ids: tuple[int, ...]
    prompt: str = ""

    def __repr__(self) -> str:
        return f"Completion({shortened(self.instruction)!r} -> {shortened(self.text)!r}, {len(self.token_ids)} tokens)"

    def _repr_html_(self) -> str:
        rows = [("instruction", self.instruction), ("prompt", self.prompt), ("completion", self.text)]
        return facts_table(f"Completion of {len(self.token_ids)} tokens", rows)


def generate(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
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
    """Greedy completions, `result[i][j]`: intervention i, instruction j. All interventions run as rows of the same batches.

    An intervention is None, one edit, or a sequence of edits that apply in order. A coefficient in units of `residual` counts the
    mean norm of this checkpoint's stream over these instructions; a study takes that over its training instructions
    (`edit.with_residual_norm` fixes it). `batch_tokens`, padding and new tokens included, is found from the free memory unless
    given. `until_verdict` names a judge; a completion then ends where this judge's verdict can no longer change. Raises
    `InputError` for an intervention that does not fit the checkpoint, and for a judge that needs whole completions.
    """
    if isinstance(interventions, Intervention):
        raise InputError("interventions is a list, one entry for each list of completions; give [edit], or [None, edit]")
    if not instructions or not interventions:
        raise InputError(f"nothing to generate: {len(instructions)} instructions, {len(interventions)} interventions")
    prompts = [tuple(ids) for ids in prompt.encode(instructions)]
    bound = [bind(edits, checkpoint, instructions, prompt) for edits in interventions]
    rows = [Row(ids, edits) for edits in bound for ids in prompts]
    enough = None if until_verdict is None else enough_for([until_verdict], checkpoint.tokenizer)
    decoding = Decoding(max_new_tokens, checkpoint.stop_ids if stop_at_eos else (), checkpoint.pad_id, use_cache, enough)
    tokens: dict[int, list[int]] = {}
    n = len(instructions)
    try:
        for done in decode(checkpoint.model, checkpoint.layout, rows, decoding, batch_tokens=batch_tokens, batch_rows=batch_rows):
            tokens.update(done)
            progress(len(done))
    except NotFinite as error:
        raise error.named(checkpoint.name, instructions[error.row % n]) from error
    return [
        [completion(checkpoint, instructions[j], tokens[i * n + j], prompt.text(instructions[j])) for j in range(n)]
        for i in range(len(interventions))
    ]


def completion(checkpoint: Checkpoint, instruction: str, token_ids: Sequence[int], prompt: str = "") -> Completion:
    """Token ids as a completion with text."""
    text = checkpoint.tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return Completion(instruction, text, tuple(token_ids), prompt)


def bind(edits: RowEdits, checkpoint: Checkpoint, instructions: Sequence[str], prompt: Prompt) -> tuple[Intervention, ...]:
    """The same edits with the norm of this checkpoint's own stream, where a coefficient counts residual norms.

    The norm is the mean over these instructions at the direction's position and the edited layer.
    """
    given = (edits,) if isinstance(edits, Intervention) else tuple(edits or ())
    return tuple(
        edit.with_residual_norm(residual_norm(edit, checkpoint, instructions, prompt)) if edit.needs_residual_norm else edit
        for edit in given
    )


def residual_norm(edit: Intervention, checkpoint: Checkpoint, instructions: Sequence[str], prompt: Prompt) -> float:
    """Mean norm of the checkpoint's stream at the edited layer. Raises `InputError` where several layers are edited."""
    like, layers = edit.direction, edit.layers or (edit.direction.layer,)
    if len(layers) != 1:
        raise InputError(f"unit 'residual' counts norms at one layer, but {len(layers)} are edited; use unit 'raw' or 'unit'")
    means = mean_activations(checkpoint, instructions, prompt, layers=layers, site=like.site, position=like.position)
    return float(means.mean_norm[0])
