"""Facts about one checkpoint: weights, devices, layout, the proof of its sites, and the prompt as tokens.

Only facts are collected here. `cli/doctor_lines.py` turns them into text.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint
from demur.engine.site_proof import Proof, prove_sites
from demur.inputs.chat_templates import is_dated
from demur.inputs.prompt_formats import NATIVE, NATIVES
from demur.inputs.prompts import bos_count, prompt_format
from demur.inputs.templates.thinking import Thinking, thinking_of
from demur.models.device_placement import bytes_by_device
from demur.models.layouts import Layout
from demur.models.memory_budget import free
from demur.models.quantisation import counted
from demur.models.tokenizers import embedding_rows, tokens_beyond

EXAMPLE = "INSTRUCTION"
"""A placeholder for an instruction."""


@dataclass(frozen=True)
class DeviceMemory:
    """The weights on one device.

    Attributes:
        device: the device, or `disk`.
        weights: bytes of weights on it.
        free: bytes that are still free on it; None for the disk.
    """

    device: str
    weights: int
    free: int | None


@dataclass(frozen=True)
class PromptDiagnosis:
    """How an instruction becomes tokens.

    Attributes:
        name: the prompt format.
        template: the text of its template.
        thinking: how the template lets the model think first; None if it does not.
        is_dated: whether the template writes today's date.
        tokens: the tokens of an example.
        position: the token position where directions are read, counted from the end.
        bos_count: the number of BOS tokens at the start.
        bos: the tokenizer's BOS token, None if it has none.
    """

    name: str
    template: str
    thinking: Thinking | None
    is_dated: bool
    tokens: tuple[str, ...]
    position: int
    bos_count: int
    bos: str | None

    @property
    def read_index(self) -> int:
        """The index, from the start, of the token where directions are read."""
        return len(self.tokens) + self.position


@dataclass(frozen=True)
class Diagnosis:
    """How demur reads one checkpoint.

    Attributes:
        source: where the weights came from.
        adapter: the PEFT adapter, None if there is none.
        fingerprint: the weights' fingerprint.
        weights: the number of weights.
        dtype: their dtype.
        quantised: how they are quantised, None if none are.
        quantised_weights: how many are quantised.
        device: where token ids go.
        memory: the weights by device.
        layout: the layout of the family.
        n_layers: the number of blocks.
        d_model: width of the residual stream.
        proof: what the proof of the sites found.
        prompt: the prompt format as tokens; None if the tokenizer's own format was asked for and the tokenizer has none.
        stops: the tokens that end a completion, as text.
        warnings: sentences about files that say something else than was named.
        beyond: the tokens for which the embedding has no row, with their ids.
        rows: the number of rows of the embedding.
    """

    source: str
    adapter: str | None
    fingerprint: str
    weights: int
    dtype: str
    quantised: str | None
    quantised_weights: int
    device: str
    memory: tuple[DeviceMemory, ...]
    layout: Layout
    n_layers: int
    d_model: int
    proof: Proof
    prompt: PromptDiagnosis | None
    stops: tuple[str, ...]
    warnings: tuple[str, ...]
    beyond: Mapping[str, int]
    rows: int


def diagnosis(checkpoint: Checkpoint, prompt: str = NATIVE, *, position: int = -1, system: str | None = None) -> Diagnosis:
    """Collect facts about a loaded checkpoint. This runs the proof of its sites again, to get its numbers.

    Args:
        checkpoint: a checkpoint of the transformers engine.
        prompt: a prompt format.
        position: the token position where directions are read, counted from the prompt's end.
        system: the system sentence of the prompt; None for none.

    Raises:
        InputError: for an unknown prompt format, and for a position outside the prompt. A tokenizer without a chat template is
            not an error.
    """
    rows = embedding_rows(checkpoint.model)
    weights, quantised_weights = counted(checkpoint.model)
    memory = (
        DeviceMemory(device, size, None if device == "disk" else free(device))
        for device, size in bytes_by_device(checkpoint.model).items()
    )
    has_prompt = prompt not in NATIVES or bool(getattr(checkpoint.tokenizer, "chat_template", None))
    return Diagnosis(
        source=checkpoint.source,
        adapter=checkpoint.adapter,
        fingerprint=checkpoint.fingerprint,
        weights=weights,
        dtype=str(checkpoint.dtype),
        quantised=checkpoint.quantised,
        quantised_weights=quantised_weights,
        device=str(checkpoint.device),
        memory=tuple(memory),
        layout=checkpoint.layout,
        n_layers=checkpoint.n_layers,
        d_model=checkpoint.d_model,
        proof=prove_sites(checkpoint.model, checkpoint.layout),
        prompt=_prompt(checkpoint, prompt, position, system) if has_prompt else None,
        stops=tuple(str(checkpoint.tokenizer.decode([i])) for i in checkpoint.stop_ids),
        warnings=checkpoint.warnings,
        beyond=tokens_beyond(checkpoint.tokenizer, rows),
        rows=rows,
    )


def _prompt(checkpoint: Checkpoint, spec: str, position: int, system: str | None) -> PromptDiagnosis:
    prompt = prompt_format(spec, checkpoint, system=system)
    ids, tokenizer = prompt.encode([EXAMPLE])[0], checkpoint.tokenizer
    tokens = tuple(str(token) for token in tokenizer.convert_ids_to_tokens(ids))
    if not -len(tokens) <= position < 0:
        raise InputError(f"position {position} is not in the prompt of {len(tokens)} tokens; positions count back from -1")
    return PromptDiagnosis(
        name=prompt.name,
        template=prompt.template,
        thinking=thinking_of(tokenizer) if spec == NATIVE else None,
        is_dated=spec in NATIVES and is_dated(tokenizer),
        tokens=tokens,
        position=position,
        bos_count=bos_count(ids, tokenizer),
        bos=tokenizer.bos_token,
    )
