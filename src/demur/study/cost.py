"""The cost of a study: operations, memory and time, computed from sizes.

There are two counts: two operations for every weight of every matrix that a token passes, and the bytes of weights that every
decode step reads. They leave out attention's own products, norms and the softmax. They also ignore that a shared prefix is
computed once, and that rows which end early leave their batch. Each count is divided by what this machine does in a second. The
larger result, times a measured factor, is the time. It is given as a range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.models.memory_budget import BYTES, MOST_TOKENS, PASS_TOKENS
from demur.models.model_size import Size
from demur.study.machines.measured_prompts import NO_PROMPTS, MeasuredPrompts
from demur.study.spec import Study

if TYPE_CHECKING:
    from demur.study.throughput import Rates

SLOWER = (1.0, 2.8)
"""On a CPU, generation takes this many times the counted time. Measured were 1.3 to 2.6 times (docs/command-line.md; the factors
there that belong to a lower speed of the machine are converted)."""

SLOWER_ON_GPU = (1.5, 12.0)
"""The same for a GPU. It was not measured, so it is wide: small checkpoints wait for kernel launches, large ones for memory."""

START_SECONDS, LOAD_SECONDS = 5.0, 3.0
"""Seconds for importing torch and writing the report, and for loading a checkpoint without the time to read its bytes."""

READ_BYTES = 0.5e9
"""Bytes of weights that are read and placed on the device in a second."""


@dataclass(frozen=True)
class Job:
    """The work of one checkpoint.

    Attributes:
        size: its number of weights.
        rows: number of completions to generate.
        prompt: mean number of tokens of a prompt.
        longest: number of tokens of the longest prompt.
        read: number of prompts that directions are read from.
        loads: how often its weights are loaded.
        measured: number of prompts that measurements run.
        quantise: `8bit`, `4bit` or None.
    """

    size: Size
    rows: int
    prompt: float | int
    longest: float | int
    read: int
    loads: int
    measured: MeasuredPrompts = NO_PROMPTS
    quantise: str | None = None


def operations(job: Job, new_tokens: int) -> float:
    """Operations of the matrices, two for each weight, for prompts and new tokens. The last new token passes no block."""
    generated = job.rows * ((job.prompt + new_tokens - 1) * job.size.blocks + new_tokens * job.size.head)
    return 2.0 * (generated + (job.read + job.measured.all) * job.prompt * job.size.blocks)


def batch_rows(job: Job, study: Study, kind: str) -> int:
    """Number of rows that fit into one batch on a device of this kind, `cpu` or `cuda`."""
    budget = study.batch_tokens or MOST_TOKENS[kind]
    return max(1, min(job.rows, int(budget // (job.longest + study.max_new_tokens))))


def traffic(job: Job, study: Study, kind: str) -> float:
    """Bytes of weights that decoding reads: all weights at every step of every batch."""
    steps = -(-job.rows // batch_rows(job, study, kind)) * study.max_new_tokens
    return float(steps * (job.size.blocks + job.size.head) * BYTES[study.dtype])


def seconds(jobs: Sequence[Job], study: Study, rates: "Rates", kind: str) -> tuple[float, float]:
    """About how long a study takes.

    Args:
        jobs: what each checkpoint has to do.
        study: the study.
        rates: what the machine does in a second.
        kind: `cpu` or `cuda`.

    Returns:
        Seconds, at least and at most.
    """
    working, loading = [work_seconds(job, study, rates, kind) for job in jobs], [load_seconds(job, study) for job in jobs]
    low, high = (
        START_SECONDS + sum(job.loads * load[end] + work[end] for job, work, load in zip(jobs, working, loading, strict=True))
        for end in (0, 1)
    )
    return low, high


def work_seconds(job: Job, study: Study, rates: "Rates", kind: str) -> tuple[float, float]:
    """About how long the work of one checkpoint takes once it is loaded: seconds, at least and at most."""
    counted = max(operations(job, study.max_new_tokens) / rates.operations, traffic(job, study, kind) / rates.bytes)
    slower = SLOWER_ON_GPU if kind == "cuda" else SLOWER
    return slower[0] * counted, slower[1] * counted


def load_seconds(job: Job, study: Study) -> tuple[float, float]:
    """About how long it takes to load a checkpoint once: seconds, at least and at most."""
    taken = LOAD_SECONDS + job.size.bytes(study.dtype, job.quantise) / READ_BYTES
    return taken, 2 * taken


@dataclass(frozen=True)
class Memory:
    """Memory of one checkpoint at work, in bytes.

    Attributes:
        weights: its weights.
        cache: the KV cache of the largest batch; None if the widths are not known.
        activations: the temporary values of one forward pass; None if the widths are not known.
    """

    weights: int
    cache: int | None
    activations: int | None

    @property
    def total(self) -> int:
        """The sum of all parts that are known."""
        return self.weights + (self.cache or 0) + (self.activations or 0)


def memory_of(job: Job, study: Study, kind: str) -> Memory:
    """The memory of one checkpoint at the study's batch size on a device of this kind, `cpu` or `cuda`."""
    size, width = job.size, BYTES[study.dtype]
    weights = size.bytes(study.dtype, job.quantise)
    if not (size.layers and size.kv_width and size.width and size.inner and size.vocabulary):
        return Memory(weights, None, None)
    rows = batch_rows(job, study, kind)
    cache = int(2 * size.layers * size.kv_width * rows * (job.longest + study.max_new_tokens) * width)
    # Counted: the residual stream and its float32 copy for an edit, the MLP's three inner tensors, the logits of one position,
    # and the vectors of each row's edits.
    passed = max(job.longest, min(rows * job.longest, PASS_TOKENS[kind]))
    stream = passed * (4 * size.width * max(width, 4) + 3 * size.inner * width)
    edits = 3 * size.layers * rows * size.width * 4
    return Memory(weights, cache, int(stream + rows * size.vocabulary * (width + 4) + edits))


def in_words(low: float | int, high: float | int) -> str:
    """A range of seconds in words, such as `about 3 to 5 minutes`."""
    units = {"day": 86400, "hour": 3600, "minute": 60}
    unit = next((name for name, length in units.items() if high >= 1.5 * length), "second")
    first, second = (_rounded(value / units[unit]) if unit in units else f"{max(1, round(value))}" for value in (low, high))
    if first == second:
        return f"about {second} {unit}{'' if second == '1' else 's'}"
    return f"about {first} to {second} {unit}s"


def _rounded(value: float | int) -> str:
    if value >= 20:
        return f"{round(value, -1):.0f}" if value >= 50 else f"{5 * round(value / 5):.0f}"
    return f"{value:.0f}" if value >= 2.75 else f"{max(0.5, round(2 * value) / 2):g}"
