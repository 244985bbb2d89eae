"""The library's verbs over text: instructions in, activations, directions and completions out.

Each composes the parts that do the work and holds no arithmetic of its own. A notebook, the command line and the runner
call these.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from demur.activations import stream_activations
from demur.checkpoints import Checkpoint
from demur.directions import Direction, RunningMean, difference_of_means
from demur.errors import InputError, NotFinite
from demur.generation import Decoding, decode
from demur.instructions import digest
from demur.interventions import Intervention, RowEdits
from demur.judges.early import enough_for
from demur.layouts import Site
from demur.notebook import facts_table, shortened
from demur.prefill import Row
from demur.progress import Progress, silent
from demur.prompts import Prompt


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


def capture(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
) -> Float[Tensor, "instruction layer d_model"]:
    """Residual-stream activations of each instruction at one prompt position, float32: at every layer unless told otherwise.

    `position` counts from the prompt's end, -1 is its last token. Raises `InputError` for a layer, site or position that is not
    there, and `WorkError` for activations that are not finite.
    """
    chosen = list(range(checkpoint.n_layers)) if layers is None else list(layers)
    found = _activations(checkpoint, instructions, prompt, chosen, site, position, batch_tokens)
    result = torch.empty(len(instructions), len(chosen), checkpoint.d_model)
    for indices, activations in found:
        result[indices] = activations
    return result


@dataclass(frozen=True)
class Means:
    """Mean activations of one instruction set in one checkpoint: (layer, d_model), and mean norms (layer,), in float64."""

    layers: tuple[int, ...]
    mean: Float[Tensor, "layer d_model"]
    mean_norm: Float[Tensor, " layer"]
    count: int


def mean_activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> Means:
    """Streaming means: memory does not grow with the number of instructions. Raises `InputError` where there are none."""
    if not instructions:
        raise InputError("a mean activation needs at least one instruction")
    running = RunningMean()
    for indices, activations in _activations(checkpoint, instructions, prompt, layers, site, position, batch_tokens):
        running.update(activations)
        progress(len(indices))
    return Means(tuple(layers), running.mean, running.mean_norm, running.count)


def _activations(
    checkpoint: Checkpoint,
    instructions: Sequence[str],
    prompt: Prompt,
    layers: Sequence[int],
    site: Site,
    position: int,
    batch_tokens: int | None,
) -> Iterator[tuple[list[int], Tensor]]:
    found = stream_activations(
        checkpoint.model,
        checkpoint.layout,
        prompt.encode(instructions),
        layers=layers,
        site=site,
        positions=(position,),
        pad_id=checkpoint.pad_id,
        batch_tokens=batch_tokens,
    )
    return _named(found, checkpoint, instructions)


def _named(
    found: Iterator[tuple[list[int], Tensor]], checkpoint: Checkpoint, instructions: Sequence[str]
) -> Iterator[tuple[list[int], Tensor]]:
    try:
        for indices, activations in found:
            yield indices, activations[:, :, 0]
    except NotFinite as error:
        raise error.named(checkpoint.name, instructions[error.row]) from error


def extract_directions(
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    position: int = -1,
    name: str | None = None,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> list[Direction]:
    """One direction a layer: difference of mean activations, harmful minus harmless (Arditi et al. 2024, section 2.3).

    Raises `InputError` for a layer, site or position that is not there, and where both means are the same, as at a template
    token at the first layer's input; `WorkError` for activations that are not finite.
    """
    sides = [
        mean_activations(
            checkpoint,
            instructions,
            prompt,
            layers=layers,
            site=site,
            position=position,
            batch_tokens=batch_tokens,
            progress=progress,
        )
        for instructions in (harmful, harmless)
    ]
    facts = provenance(checkpoint, prompt, position, harmful, harmless)
    return directions_between(*sides, name=name or checkpoint.name, site=site, position=position, facts=facts)


def directions_between(
    harmful: Means,
    harmless: Means,
    *,
    name: str,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    position: int = -1,
    facts: Mapping[str, Any] | None = None,
) -> list[Direction]:
    """One direction a layer from means that were taken already: at all of their layers, or at some."""
    chosen = list(harmful.layers if layers is None else layers)
    rows = [harmful.layers.index(layer) for layer in chosen]
    count = harmful.count + harmless.count
    norms = (harmful.mean_norm * harmful.count + harmless.mean_norm * harmless.count) / count
    found = difference_of_means(
        harmful.mean[rows], harmless.mean[rows], name=name, layers=chosen, position=position, site=site, provenance=facts
    )
    for direction, norm in zip(found, norms[rows].tolist(), strict=True):
        direction.provenance["mean residual norm"] = norm  # type: ignore[index]
    return found


def provenance(
    checkpoint: Checkpoint, prompt: Prompt, position: int, harmful: Sequence[str], harmless: Sequence[str]
) -> dict[str, Any]:
    """What a direction was read from: weights, prompt, token read, instructions, versions."""
    return {
        "checkpoint": checkpoint.name,
        "source": checkpoint.source,
        "adapter": checkpoint.adapter,
        "fingerprint": checkpoint.fingerprint,
        "architecture": {"family": checkpoint.layout.family, "layers": checkpoint.n_layers},
        "weights": str(checkpoint.dtype),
        "quantised": checkpoint.quantised,
        "prompt": prompt.name,
        "prompt text": prompt.template,
        "prompt digest": prompt.digest,
        "token read": prompt.token_read(position),
        "harmful": {"n": len(harmful), "sha256": digest(harmful)},
        "harmless": {"n": len(harmless), "sha256": digest(harmless)},
        "versions": versions(),
    }


def extract_direction(
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    *,
    layer: int,
    site: Site = "resid_pre",
    position: int = -1,
    name: str | None = None,
) -> Direction:
    """The direction of one layer; see `extract_directions`."""
    return extract_directions(checkpoint, harmful, harmless, prompt, layers=[layer], site=site, position=position, name=name)[0]


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


def versions() -> dict[str, str]:
    """Versions that decide about numbers."""
    return {package: version(package) for package in ("demur", "torch", "transformers")}
