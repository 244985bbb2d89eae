"""What a study costs: tokens, arithmetic, memory and time, from sizes alone.

Counted: two operations for every weight of every matrix that a token passes, and the weights that every decoding step reads. Not
counted: attention's own products, norms, the softmax, that equal beginnings of prompts are passed once, and that rows which end
early leave their batch. A time is the larger of both counts over what this machine does a second, times a factor that was
measured, and is given as a range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.models.memory_budget import BYTES, MOST_TOKENS, PASS_TOKENS
from demur.models.model_size import Size
from demur.study.spec import Study

if TYPE_CHECKING:
    from demur.study.throughput import Rates

SLOWER = (1.0, 2.8)
"""How many times longer than the count generation takes on a processor: 1.3 to 2.6 where measured (docs/command-line.md, with
what was measured at a lower rate put at the one that is used)."""

SLOWER_ON_GPU = (1.5, 12.0)
"""The same where the device is a GPU: not measured. Small checkpoints wait for launches there, large ones for memory."""

START_SECONDS, LOAD_SECONDS = 5.0, 3.0
"""Importing torch and writing the report; and loading a checkpoint, before its bytes are counted."""

READ_BYTES = 0.5e9
"""Bytes of weights that are read and placed a second."""


@dataclass(frozen=True)
class Job:
    """What one checkpoint has to do: rows to generate of `prompt` tokens on average, and prompts to read directions from."""

    size: Size
    rows: int
    prompt: float | int
    longest: float | int
    read: int
    loads: int
    quantise: str | None = None


def operations(job: Job, new_tokens: int) -> float:
    """Operations of the matrices, prompts and new tokens: two a weight. The last new token passes no block."""
    generated = job.rows * ((job.prompt + new_tokens - 1) * job.size.blocks + new_tokens * job.size.head)
    return 2.0 * (generated + job.read * job.prompt * job.size.blocks)


def batch_rows(job: Job, study: Study, kind: str) -> int:
    """Rows that fit into one batch on a device of this kind, `cpu` or `cuda`."""
    budget = study.batch_tokens or MOST_TOKENS[kind]
    return max(1, min(job.rows, int(budget // (job.longest + study.max_new_tokens))))


def traffic(job: Job, study: Study, kind: str) -> float:
    """Bytes of weights that decoding reads: all of them for every step of every batch."""
    steps = -(-job.rows // batch_rows(job, study, kind)) * study.max_new_tokens
    return float(steps * (job.size.blocks + job.size.head) * BYTES[study.dtype])


def seconds(jobs: Sequence[Job], study: Study, rates: "Rates", kind: str) -> tuple[float, float]:
    """About how long a study takes at these rates, from and to."""
    least = sum(
        max(operations(job, study.max_new_tokens) / rates.operations, traffic(job, study, kind) / rates.bytes) for job in jobs
    )
    loading = sum(job.loads * (LOAD_SECONDS + job.size.bytes(study.dtype, job.quantise) / READ_BYTES) for job in jobs)
    slower = SLOWER_ON_GPU if kind == "cuda" else SLOWER
    return START_SECONDS + loading + slower[0] * least, START_SECONDS + 2 * loading + slower[1] * least


@dataclass(frozen=True)
class Memory:
    """Bytes: weights, the cache of keys and values of the fullest batch, and what one forward pass holds beside them."""

    weights: int
    cache: int | None
    activations: int | None

    @property
    def total(self) -> int:
        """All that is known."""
        return self.weights + (self.cache or 0) + (self.activations or 0)


def memory_of(job: Job, study: Study, kind: str) -> Memory:
    """What one checkpoint holds at the study's batch size on a device of this kind, `cpu` or `cuda`.

    Cache and activations are None where the widths are not known.
    """
    size, width = job.size, BYTES[study.dtype]
    weights = size.bytes(study.dtype, job.quantise)
    if not (size.layers and size.kv_width and size.width and size.inner and size.vocabulary):
        return Memory(weights, None, None)
    rows = batch_rows(job, study, kind)
    cache = int(2 * size.layers * size.kv_width * rows * (job.longest + study.max_new_tokens) * width)
    # The stream and its float32 copy for an edit, the MLP's three inner tensors; the logits of one position; edits of each row.
    passed = max(job.longest, min(rows * job.longest, PASS_TOKENS[kind]))
    stream = passed * (4 * size.width * max(width, 4) + 3 * size.inner * width)
    edits = 3 * size.layers * rows * size.width * 4
    return Memory(weights, cache, int(stream + rows * size.vocabulary * (width + 4) + edits))


def in_words(low: float | int, high: float | int) -> str:
    """A range of seconds as one would say it: `about 3 to 5 minutes`."""
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
