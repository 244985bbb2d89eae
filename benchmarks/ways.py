"""Five ways to get greedy completions under one edit of the stream, and two to read the stream of every layer.

The methods of others are written anew here; their code is not copied. All decode greedily and do not stop early, so that all do
the same work and their tokens can be compared.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import demur
from demur.engine.batching import pad_left, position_ids
from demur.engine.decode import decode
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.read_activations import stream_activations
from demur.interventions.intervention import Intervention

Tokens = list[list[int]]


@dataclass(frozen=True, eq=False)
class Job:
    """Prompts as token ids, the number of new tokens, and the edit: none, ablation everywhere, or addition at one layer."""

    checkpoint: demur.Checkpoint
    prompts: Sequence[Sequence[int]]
    new_tokens: int
    edit: Intervention | None = None


def _projected(stream: Tensor, unit: Tensor) -> Tensor:
    return stream - (stream @ unit)[..., None] * unit


@contextmanager
def module_hooks(job: Job) -> Iterator[None]:
    """Edits as hooks on modules, as both published code bases make them: on block inputs, and on attention and MLP outputs."""
    edit, layout = job.edit, job.checkpoint.layout
    with ExitStack() as stack:
        if edit is not None:
            unit = edit.unit_vector().to(job.checkpoint.device, job.checkpoint.dtype)
            blocks = layout.find_blocks(job.checkpoint.model)
            if edit.kind == "ablate":

                def before(_: Any, args: tuple[Any, ...]) -> Any:
                    return (_projected(args[0], unit), *args[1:])

                def after(_: Any, __: Any, output: Any) -> Any:
                    if isinstance(output, tuple):
                        return (_projected(output[0], unit), *output[1:])
                    return _projected(output, unit)

                for block in blocks:
                    stack.callback(block.register_forward_pre_hook(before).remove)
                    for path in (layout.attention, layout.mlp):
                        stack.callback(block.get_submodule(path).register_forward_hook(after).remove)
            else:
                added = edit.scaled_vector().to(job.checkpoint.device, job.checkpoint.dtype)

                def shift(_: Any, args: tuple[Any, ...]) -> Any:
                    return (args[0] + added, *args[1:])

                stack.callback(blocks[edit.points(layout, len(blocks))[0].layer].register_forward_pre_hook(shift).remove)
        yield


@torch.inference_mode()
def seed_style(job: Job, rows: int = 4) -> Tokens:
    """The method of "Base LLMs refuse too": no KV cache, logits at every position, four rows at a time, in the order given."""
    result: Tokens = []
    model, pad = job.checkpoint.model, job.checkpoint.pad_id
    with module_hooks(job):
        for start in range(0, len(job.prompts), rows):
            ids, mask = pad_left(job.prompts[start : start + rows], pad, job.checkpoint.device)
            width = ids.shape[1]
            for _ in range(job.new_tokens):
                logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                ids = torch.cat((ids, logits[:, -1:].argmax(-1)), dim=1)
                mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
            result += ids[:, width:].tolist()
    return result


@torch.inference_mode()
def transformers_style(job: Job, rows: int) -> Tokens:
    """`generate` of transformers with its KV cache. Arditi et al. use it with hooks and 8 rows."""
    result: Tokens = []
    model, pad = job.checkpoint.model, job.checkpoint.pad_id
    with module_hooks(job):
        for start in range(0, len(job.prompts), rows):
            ids, mask = pad_left(job.prompts[start : start + rows], pad, job.checkpoint.device)
            found = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=job.new_tokens,
                min_new_tokens=job.new_tokens,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=None,
            )
            result += found[:, ids.shape[1] :].tolist()
    return result


def demur_style(job: Job, edits: Sequence[Intervention | None] | None = None, *, batch_tokens: int | None = None) -> Tokens:
    """The method of demur: one edit, or several as rows of the same batches. The result is ordered by edit."""
    chosen = [job.edit] if edits is None else edits
    rows = [Row(tuple(prompt), edit) for edit in chosen for prompt in job.prompts]
    decoding = Decoding(job.new_tokens, (), job.checkpoint.pad_id)
    found: dict[int, list[int]] = {}
    for done in decode(job.checkpoint.model, job.checkpoint.layout, rows, decoding, batch_tokens=batch_tokens):
        found.update(done)
    return [found[index] for index in range(len(rows))]


def nnsight_style(job: Job, rows: int = 25) -> Tokens:
    """The tracing `generate` of nnsight, which must be installed."""
    import nnsight

    model = nnsight.LanguageModel(job.checkpoint.model, tokenizer=job.checkpoint.tokenizer)
    result: Tokens = []
    edit = job.edit
    for start in range(0, len(job.prompts), rows):
        ids, mask = pad_left(job.prompts[start : start + rows], job.checkpoint.pad_id, job.checkpoint.device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        settings = {"max_new_tokens": job.new_tokens, "do_sample": False, "eos_token_id": None}
        with model.generate(inputs, **settings) as tracer:
            if edit is not None and edit.kind == "add":
                (where,) = edit.points(job.checkpoint.layout, job.checkpoint.n_layers)
                for _ in tracer.iter[: job.new_tokens]:
                    model.model.layers[where.layer].input[:] += edit.scaled_vector()
            output = tracer.result.save()
        result += output[:, ids.shape[1] :].tolist()
    return result


def streamed(checkpoint: demur.Checkpoint, prompts: Sequence[Sequence[int]]) -> list[float]:
    """The norm of the mean stream at the last token, for every layer but the first, by demur's capture."""
    sums = torch.zeros(checkpoint.n_layers, checkpoint.d_model, dtype=torch.float64)
    for _, rows in stream_activations(
        checkpoint.model, checkpoint.layout, prompts, layers=range(checkpoint.n_layers), pad_id=checkpoint.pad_id
    ):
        sums += rows[:, :, 0].double().sum(0)
    return _norms(sums, len(prompts))


@torch.inference_mode()
def hidden_states(checkpoint: demur.Checkpoint, prompts: Sequence[Sequence[int]], rows: int = 25) -> list[float]:
    """The same from `output_hidden_states`, with logits at every position. All activations are kept in a list."""
    kept = []
    for start in range(0, len(prompts), rows):
        ids, mask = pad_left(prompts[start : start + rows], checkpoint.pad_id, checkpoint.device)
        output = checkpoint.model(
            input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), output_hidden_states=True, use_cache=False
        )
        kept.append(torch.stack([state[:, -1] for state in output.hidden_states[:-1]], dim=1))
    return _norms(torch.cat(kept).double().sum(0), len(prompts))


def _norms(sums: Tensor, n: int) -> list[float]:
    return [round(float(value), 3) for value in (sums[1:] / n).norm(dim=-1)]
