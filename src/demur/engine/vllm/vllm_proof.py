"""Proves that demur reads and edits the same stream in vLLM's model as in the transformers model of the same weights.

transformers runs two short prompts: unedited, with the stream of every point, and with an edit at each point in turn, as long as
the stream there. vLLM then has to give the same streams and the same changes of the logits. So a module that is not where demur
takes it to be, an edit that does not act, and rows that are taken for each other are found when a checkpoint is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import WorkError
from demur.directions.direction import from_raw
from demur.engine.engine_protocol import Row
from demur.engine.transformers_engine import TransformersEngine
from demur.engine.vllm.arms import Tokens
from demur.engine.vllm.stream_access import Wanted
from demur.engine.vllm.vllm_runs import VllmRuns, points_of
from demur.interventions.intervention import Intervention, add
from demur.models.layouts import Point

LENGTHS = (4, 7)
"""The number of tokens of each prompt."""
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""The largest allowed distance of a stream at one token from the other engine's, relative to its length."""
CHANGES = 3.0
"""The largest allowed distance of a change of the logits, relative to its length, in units of the tolerance of streams."""


@dataclass(frozen=True, eq=False)
class ExpectedNumbers:
    """What transformers gives.

    Attributes:
        prompts: the token ids of the prompts.
        points: all points of the stream.
        edits: an edit at each of them.
        streams: the unedited stream, (prompt, point, token, d_model), at the tokens that all prompts have.
        plain: the logits after each prompt, (prompt, vocab).
        edited: the same under each edit, (point, prompt, vocab).
    """

    prompts: tuple[tuple[int, ...], ...]
    points: tuple[Point, ...]
    edits: tuple[Intervention, ...]
    streams: Float[Tensor, "prompt point token d_model"]
    plain: Float[Tensor, "prompt vocab"]
    edited: Float[Tensor, "point prompt vocab"]


@dataclass(frozen=True)
class VllmProof:
    """The numbers of a proof.

    Attributes:
        worst_stream: the largest distance of a stream at one token, relative to its length.
        worst_change: the largest distance of a change of the logits by an edit, relative to its length.
    """

    worst_stream: float
    worst_change: float


def expected_numbers(engine: TransformersEngine) -> ExpectedNumbers:
    """What vLLM has to give for the weights of a transformers engine."""
    last = engine.embedding_rows - 1
    prompts = tuple(tuple(torch.linspace(1, last, n + 2).long().tolist()[1:-1]) for n in LENGTHS)
    points = points_of(engine.layout, engine.n_layers)
    positions = range(-min(LENGTHS), 0)
    streams = _in_order(engine.read_points(prompts, points=points, positions=positions), len(prompts))
    # The median over tokens, because the first token may have a very large norm.
    lengths = streams.norm(dim=-1).flatten(2).median(-1).values.amax(0).clamp(min=1e-6).tolist()
    probe = torch.randn(engine.d_model, generator=torch.Generator().manual_seed(0))
    edits = tuple(_edit(where, probe, length, engine.n_layers) for where, length in zip(points, lengths, strict=True))
    rows = [Row(ids, edit) for edit in (None, *edits) for ids in prompts]
    logits = _in_order(((one.indices, one.logits) for one in engine.next_tokens(rows)), len(rows))
    of_edit = logits.view(len(edits) + 1, len(prompts), -1)
    return ExpectedNumbers(prompts, points, edits, streams, of_edit[0], of_edit[1:])


def _edit(where: Point, probe: Tensor, length: float, n_layers: int) -> Intervention:
    """A vector that is added at one point."""
    layer, site = (n_layers - 1, "resid_post") if where.layer == n_layers else (where.layer, where.site)
    direction = from_raw(probe, name="probe", layer=layer)
    return add(direction, length, layers=[layer], sites=[site])


def _in_order(found: object, count: int) -> Tensor:
    """The rows of all batches in their order."""
    rows: dict[int, Tensor] = {}
    for indices, numbers in found:  # type: ignore[attr-defined]
        rows.update(zip(indices, numbers, strict=True))
    return torch.stack([rows[index] for index in range(count)])


def prove_access(runs: VllmRuns, expected: ExpectedNumbers, dtype: torch.dtype) -> VllmProof:
    """Prove that the stream of vLLM's model is read and edited where it should be.

    Args:
        runs: vLLM with the model in it.
        expected: what transformers gives.
        dtype: precision of both.

    Raises:
        WorkError: if a stream or a change of the logits differs from what is expected.
    """
    tolerance = TOLERANCES[dtype]
    given = [Tokens(ids, len(ids), edit) for edit in (None, *expected.edits) for ids in expected.prompts]
    wanted = Wanted(expected.points, tuple(range(-min(LENGTHS), 0)))
    taken = {index: one for found in runs.prefilled(given, wanted, logits=(1,) * len(given)) for index, one in found}
    n = len(expected.prompts)
    streams = torch.stack([taken[index].states for index in range(n)])
    off = (streams - expected.streams).norm(dim=-1) / expected.streams.norm(dim=-1)
    worst_stream = _worst(off.transpose(0, 1).flatten(1).amax(1), expected.points, runs.n_layers, tolerance, "the stream at")
    logits = torch.stack([taken[index].logits[-1] for index in range(len(given))]).view(len(expected.edits) + 1, n, -1)
    if logits.shape[-1] != expected.plain.shape[-1]:
        raise WorkError(f"vLLM gives {logits.shape[-1]} logits, and transformers {expected.plain.shape[-1]}")
    should, changed = expected.edited - expected.plain, logits[1:] - logits[0]
    off = (changed - should).norm(dim=-1) / should.norm(dim=-1)
    worst_change = _worst(
        off.amax(1), expected.points, runs.n_layers, CHANGES * tolerance, "the change of the logits by an edit at"
    )
    return VllmProof(worst_stream, worst_change)


def _worst(off: Tensor, points: Sequence[Point], n_layers: int, most: float, what: str) -> float:
    """The largest relative distance. Raises `WorkError` if it is larger than allowed, or not a number."""
    for where, distance in zip(points, off.tolist(), strict=True):
        if not distance <= most:
            raise WorkError(
                f"{what} {where.named(n_layers)} in vLLM's model is off by {distance:.1e} of what transformers gives, and "
                f"{most:.1e} is allowed"
            )
    return float(off.max())
