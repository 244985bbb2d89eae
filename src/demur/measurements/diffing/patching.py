"""`patching`: one checkpoint's residual stream at each layer in the other checkpoint, and how many refusals come with it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic import BaseModel, Field

from demur.core.errors import InputError, WorkError
from demur.measurements.diffing.diff_runs import (
    ALONE,
    DiffRun,
    PairMaterial,
    PairMeasurement,
    PairSettings,
    material_of,
    record_of,
)
from demur.measurements.diffing.written import Written, written_by, written_facts
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from torch import Tensor

    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.engine.lockstep.pair_tree import Run
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability

TOGETHER = 4
"""Patches that run over one pass of the source. Each needs a KV cache of its own."""

MOST_LAYERS = 10
"""Of a deeper checkpoint, this many layers are measured unless the study names some: evenly spaced, with the last one."""

HEADS = 8
"""How many heads of one layer a plan counts."""

MOST_APART = 6
"""Of more layers than this, every second one is patched by parts, along the direction and by component, from the last one on."""


class PatchingSettings(PairSettings):
    """Settings of `patching`.

    Attributes:
        layers: the layers after which the stream is patched; evenly spaced ones unless given.
        parts: whether prompt positions and generated positions are also patched apart.
        along: whether the component along the source's own direction is also patched alone.
        components: whether what the attention and what the MLP of each layer add is also patched alone.
        heads: how many heads, those with the largest estimates of attribution patching, are also patched one by one.
        heads_of: a layer of which every head is also patched alone.
        nulls: how many null patches of each kind there are at each layer.
        completions: on how many instructions the patched checkpoint also writes greedy completions.
    """

    layers: tuple[int, ...] | None = None
    parts: bool = True
    along: bool = True
    components: bool = True
    heads: int = Field(default=0, ge=0)
    heads_of: int | None = Field(default=None, ge=0)
    nulls: int = Field(default=1, ge=1)
    completions: int = Field(default=4, ge=0)


class Patching(PairMeasurement):
    """The measurement `patching` of each pair of checkpoints under one prompt format.

    Both checkpoints run the same tokens, each with its own KV cache. After one block the target's stream is replaced by the
    source's, at all token positions, in the prompt and while tokens are generated. What is below this block then has no effect,
    so the curve over layers says by which layer the stream holds what decides about refusing. It does not say that this layer
    computes it. After Prakash et al. 2024 (arXiv 2402.14811).
    """

    name: ClassVar[str] = "patching"
    settings: ClassVar[type[BaseModel] | None] = PatchingSettings

    def measure(self, subject: PairSubject, settings: PatchingSettings) -> MeasurementRecord:
        """Patch every layer, in both directions.

        Args:
            subject: the pair.
            settings: what is measured.

        Returns:
            The record of `record_of`. The kinds of its runs are `alone`; `stream`, `prompt` and `generated` for the whole
            stream at all, prompt or generated positions; `permuted`, their null; `along` for the component along the source's
            direction, and `random direction`, its null; `attention added` and `mlp added` for what one branch of a layer adds to
            the stream, and `permuted attention` and `permuted mlp`, their nulls; without a place `head 12.3`, for head 3 of layer
            12, and `permuted head 12.3`, its null. Facts that begin with `written_` have one entry for each greedy completion;
            see `Written`.

        Raises:
            InputError: if the checkpoints do not match, a layer does not exist, or heads cannot be told apart.
            WorkError: if a checkpoint that is patched with itself changes.
        """
        from demur.engine.lockstep.stream_patch import StreamPatch

        material = material_of(subject, settings.instructions)
        layers = layers_of(settings.layers, material.pair.target.n_layers)
        check_self_patch(
            material.pair, material.prompts[:2], settings, _own_patches(material.pair.target.n_layers // 2, settings)
        )
        runs: list[DiffRun] = []
        found: list[BoundedProbability] = []
        written: list[Written] = []
        for pair, arm in ((material.pair, subject.second), (material.pair.reversed, subject.first)):
            along = arm.directions[0].vector if arm.directions and settings.along else None
            patches = [*_patches(layers, settings, along), *_head_patches(pair, material, settings, subject)]
            for run, probability in _patched(pair, material, patches, settings, subject):
                runs.append(run)
                found.append(probability)
            if settings.completions:
                for layer in (None, *layers):
                    patch = None if layer is None else StreamPatch(layer)
                    run = DiffRun(pair.source.name, pair.target.name, ALONE if layer is None else "stream", layer)
                    written += written_by(pair, material, settings, settings.completions, run, patch)
        return record_of(subject, settings, runs, found, **written_facts(written))

    def prompts(self, settings: PatchingSettings, planned: PlannedSubject) -> float | int:
        """The instructions under every patch, in the blocks after it, which are half of all on average.

        `TOGETHER` patches share a run of the source and one of the target's blocks before them.
        """
        # A checkpoint of unknown depth counts as a deep one.
        layers = layers_of(settings.layers, planned.layers) if planned.layers else settings.layers or tuple(range(MOST_LAYERS))
        with_nulls = 1 + settings.nulls
        patches = len(layers) * with_nulls
        patches += (settings.heads + HEADS * (settings.heads_of is not None)) * with_nulls
        patches += len(_apart(layers)) * (2 * settings.parts + with_nulls * settings.along + 2 * with_nulls * settings.components)
        return PROMPTS_A_ROW * settings.instructions * (1 + patches) * (1 / 2 + 2 / TOGETHER)


def layers_of(asked: Sequence[int] | None, n_layers: int, most: int = MOST_LAYERS) -> tuple[int, ...]:
    """The layers at which something is measured.

    Args:
        asked: the layers that the study names; None for evenly spaced ones.
        n_layers: the number of blocks.
        most: the most layers that are chosen.

    Returns:
        The layers, ascending. The last one is always there: a patch after it is the positive control.

    Raises:
        InputError: for a layer that does not exist.
    """
    last = n_layers - 1
    if asked is None:
        steps = min(n_layers, most)
        return tuple(sorted({round(last * step / max(1, steps - 1)) for step in range(steps)}))
    for layer in asked:
        if not 0 <= layer <= last:
            raise InputError(f"the measurement names layer {layer}, but the checkpoints have layers 0 to {last}")
    return tuple(sorted({*asked, last}))


def _own_patches(layer: int, settings: PatchingSettings) -> "list[Run]":
    """One patch of each kind at a layer."""
    from demur.engine.lockstep.component_patch import Component, ComponentPatch
    from demur.engine.lockstep.stream_patch import StreamPatch

    components = [Component(layer, "attention"), Component(layer, "mlp")]
    # In some families single heads cannot be told apart.
    components += [Component(layer, "head", 0)] if _asks_heads(settings) else []
    return [StreamPatch(layer), *(ComponentPatch((one,)) for one in components)]


def check_self_patch(
    pair: "MatchedPair", prompts: Sequence[tuple[int, ...]], settings: PairSettings, patches: "Sequence[Run]"
) -> None:
    """Patch each checkpoint with itself, which must change nothing at all.

    Args:
        pair: the checkpoints.
        prompts: a few prompts.
        settings: what is measured.
        patches: the patches.

    Raises:
        WorkError: if a probability changes.
    """
    from demur.engine.lockstep.matched_pair import matched_pair
    from demur.measurements.diffing.pair_probabilities import pair_probabilities

    for one in (pair.source, pair.target):
        _, alone, *patched = pair_probabilities(matched_pair(one, one), prompts, (None, *patches), settings.sampling)
        change = max(float((alone.probability - each.probability).abs().max()) for each in patched)
        if change != 0:
            raise WorkError(
                f"patching checkpoint {one.name!r} with its own activations changes a probability by {change:.2g}, but must "
                "change nothing, so no patch of this model can be trusted; report this with the model's name"
            )


@dataclass(frozen=True, eq=False)
class _Named:
    """A patch with the name of its kind and its layer; a single head has its layer in its kind."""

    kind: str
    layer: int | None
    patch: "Run"


def _apart(layers: Sequence[int]) -> Sequence[int]:
    """The layers that are patched by parts and along the direction."""
    return layers if len(layers) <= MOST_APART else layers[::-1][::2]


def _patches(layers: Sequence[int], settings: PatchingSettings, along: "Tensor | None") -> list[_Named]:
    """Every patch."""
    import torch

    from demur.engine.lockstep.component_patch import Component, ComponentPart, ComponentPatch
    from demur.engine.lockstep.stream_patch import StreamPatch, Stretch

    found: list[_Named] = []
    stretches: tuple[Stretch, ...] = get_args(Stretch)
    branches: tuple[ComponentPart, ...] = ("attention", "mlp")
    apart = _apart(layers)
    for layer in layers:
        seeds = [settings.seed + 1000 * number + layer for number in range(settings.nulls)]
        made: list[tuple[str, Run]] = [("stream", StreamPatch(layer))]
        made += [(part, StreamPatch(layer, part)) for part in stretches[1:] if settings.parts and layer in apart]
        made += [("permuted", StreamPatch(layer, scrambled=seed)) for seed in seeds]
        if along is not None and layer in apart:
            made.append(("along", StreamPatch(layer, along=along[None])))
            for seed in seeds:
                random = torch.randn(1, along.shape[0], generator=torch.Generator().manual_seed(seed))
                made.append(("random direction", StreamPatch(layer, along=random / random.norm())))
        for part in branches if settings.components and layer in apart else ():
            own = (Component(layer, part),)
            made.append((f"{part} added", ComponentPatch(own)))
            made += [(f"permuted {part}", ComponentPatch(own, scrambled=seed)) for seed in seeds]
        found += [_Named(kind, layer, patch) for kind, patch in made]
    return found


def _asks_heads(settings: PatchingSettings) -> bool:
    return settings.heads > 0 or settings.heads_of is not None


def _head_patches(
    pair: "MatchedPair", material: PairMaterial, settings: PatchingSettings, subject: PairSubject
) -> Iterator[_Named]:
    """The patches of single heads, with their nulls; none unless they are asked for."""
    from demur.engine.lockstep.component_patch import ComponentPatch
    from demur.measurements.diffing.head_choice import chosen_heads

    if not _asks_heads(settings):
        return
    most, layer, progress = settings.heads, settings.heads_of, subject.second.progress
    for one in chosen_heads(pair, material.prompts, settings, most=most, layer=layer, progress=progress):
        name = f"head {one.layer}.{one.head}"
        yield _Named(name, None, ComponentPatch((one,)))
        for number in range(settings.nulls):
            seed = settings.seed + 1000 * number + one.layer
            yield _Named(f"permuted {name}", None, ComponentPatch((one,), scrambled=seed))


def _patched(
    pair: "MatchedPair",
    material: PairMaterial,
    patches: Sequence[_Named],
    settings: PatchingSettings,
    subject: PairSubject,
) -> "Iterator[tuple[DiffRun, BoundedProbability]]":
    """The probabilities in the target as it is, and with each patch."""
    from demur.measurements.diffing.pair_probabilities import of_target, pair_probabilities

    names = pair.source.name, pair.target.name
    wanted: list[tuple[DiffRun, Run]] = [(DiffRun(names[1], names[1]), None)]
    wanted += [(DiffRun(*names, one.kind, one.layer), one.patch) for one in patches]
    for start in range(0, len(wanted), TOGETHER):
        part = wanted[start : start + TOGETHER]
        progress = subject.second.progress
        rows = [patch for _, patch in part]
        found = pair_probabilities(
            pair, material.prompts, rows, settings.sampling, mixtures=of_target, counted=len(rows), progress=progress
        )
        yield from zip((run for run, _ in part), found, strict=True)
