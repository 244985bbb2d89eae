"""`attribution`: which heads and MLPs write the difference in the log-odds of a refusal, beside exact patches of the same."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field, JsonValue

from demur.measurements.diffing.diff_runs import DiffRun, PairMaterial, PairMeasurement, PairSettings, material_of, record_of
from demur.measurements.diffing.patching import TOGETHER, check_self_patch
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from torch import Tensor

    from demur.core.progress import Progress
    from demur.engine.engine_protocol import Branch
    from demur.engine.lockstep.component_patch import Component
    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.engine.lockstep.pair_tree import Run
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability


class AttributionSettings(PairSettings):
    """Settings of `attribution`.

    Attributes:
        tested: how many components with the largest estimates are patched exactly, one by one, and how many random ones.
        counts: how many components with the largest estimates are patched together.
        nulls: how many sets of as many random components there are for each of these numbers.
    """

    tested: int = Field(default=6, ge=2)
    counts: tuple[int, ...] = (4, 16, 64)
    nulls: int = Field(default=1, ge=1)


class Attribution(PairMeasurement):
    """The measurement `attribution` of each pair of checkpoints under one prompt format.

    The outcome is the log-odds, after the prompt, of the tokens with which a refusal of the judge can begin. Direct attribution
    splits a difference of logits into what each head and MLP adds, with an exact sum, in each checkpoint. Attribution patching
    estimates what putting one checkpoint's component into the other would change (Nanda 2023). Both can be wrong about what a
    component does, so exact patches stand beside them: of components with the largest estimates and of random ones.
    """

    name: ClassVar[str] = "attribution"
    settings: ClassVar[type[BaseModel] | None] = AttributionSettings

    def measure(self, subject: PairSubject, settings: AttributionSettings) -> MeasurementRecord:
        """Attribute the log-odds in both checkpoints, and patch in both directions.

        Args:
            subject: the pair.
            settings: what is measured.

        Returns:
            The record of `record_of`. The kinds of its runs are `alone`, and with the number of components as their place
            `top components` and `random components`, their null. Further arrays: `direct`, (checkpoint, instruction, component);
            `direct_sum`, `log_odds`, (checkpoint, instruction); `estimate`, (direction, instruction, component), the later
            checkpoint into the earlier one first; `exact`, (direction, tested, instruction). The facts `layer` and `head` name
            the components (-1 for an MLP), and `tested` has the places of those that were patched, one direction after the other.

        Raises:
            InputError: if the checkpoints do not match, or the heads of an attention cannot be told apart.
            WorkError: if the components do not sum up, or a checkpoint that is patched with itself changes.
        """
        import torch

        from demur.engine.lockstep.component_patch import Component, ComponentPatch
        from demur.engine.readout.attribution_patching import attribution_patching
        from demur.engine.readout.direct_attribution import direct_attribution
        from demur.measurements.exact_refusal.refusal_beginnings import refusal_beginnings

        material = material_of(subject, settings.instructions)
        pair, progress = material.pair, subject.second.progress
        middle = pair.target.n_layers // 2
        own = [ComponentPatch((Component(middle, "mlp"), Component(middle, "head", 0)))]
        check_self_patch(pair, material.prompts[:2], settings, own)
        group = refusal_beginnings(pair.target, settings.judge, pair.vocabulary, pair.stop_ids)
        ends = (pair.target, pair.source)
        direct = [direct_attribution(one, material.prompts, group, pair.vocabulary, progress=progress) for one in ends]
        odds = [one.log_odds.mean() for one in direct]
        components = direct[0].components
        runs: list[DiffRun] = []
        found: list[BoundedProbability] = []
        estimates, exact, tested = [], [], list[int]()
        for number, way in enumerate((pair, pair.reversed)):
            estimate = attribution_patching(way, material.prompts, group, progress=progress)
            # Towards the source: the log-odds should rise if the source's are higher.
            wanted = estimate.mean(0) * (1 if odds[1 - number] >= odds[number] else -1)
            chosen = _chosen(wanted, settings)
            estimates.append(estimate)
            exact.append(_exact(way, material, [(components[place],) for place in chosen], group, progress))
            tested += chosen
            for run, probability in _together(way, material, wanted, components, settings, progress):
                runs.append(run)
                found.append(probability)
        record = record_of(subject, settings, runs, found)
        facts = _facts(components, tested, len(group))
        arrays = {
            "direct": torch.stack([one.parts for one in direct]).float(),
            "direct_sum": torch.stack([one.total for one in direct]),
            "log_odds": torch.stack([one.log_odds for one in direct]),
            "estimate": torch.stack(estimates).float(),
            "exact": torch.stack(exact).float(),
        }
        named = {name: array.numpy() for name, array in arrays.items()}
        return MeasurementRecord({**record.facts, **facts}, {**record.arrays, **named})

    def prompts(self, settings: AttributionSettings, planned: PlannedSubject) -> float | int:  # noqa: ARG002
        """The instructions for direct attribution, for estimates (a gradient takes two passes more), and for exact patches."""
        shared = 1 + 1 / TOGETHER
        singly = (1 + 2 * settings.tested) * shared
        together = (1 + len(settings.counts) * (1 + settings.nulls)) * shared
        return settings.instructions * (1 + 4 + singly + PROMPTS_A_ROW * together)


def _facts(components: "Sequence[Component]", tested: Sequence[int], group: int) -> dict[str, JsonValue]:
    """Which component is which, and which were patched one by one."""
    return {
        "layer": [one.layer for one in components],
        "head": [-1 if one.head is None else one.head for one in components],
        "tested": list(tested),
        "group": group,
    }


def _chosen(wanted: "Tensor", settings: AttributionSettings) -> list[int]:
    """The components that are patched one by one: those with the largest estimates, then random others."""
    import torch

    order = wanted.argsort(descending=True).tolist()
    top, others = order[: settings.tested], order[settings.tested :]
    drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(settings.seed))
    return [*top, *(others[place] for place in drawn[: settings.tested].tolist())]


def _exact(
    pair: "MatchedPair",
    material: PairMaterial,
    sets: "Sequence[tuple[Component, ...]]",
    group: Sequence[int],
    progress: "Progress",
) -> "Tensor":
    """The exact change of the log-odds by a patch of each set of components, (set, instruction)."""
    import torch

    from demur.engine.lockstep.component_patch import ComponentPatch
    from demur.engine.lockstep.pair_tree import explore_pair
    from demur.engine.readout.direct_attribution import group_log_odds

    found = torch.empty(1 + len(sets), len(material.prompts), dtype=torch.float64)
    runs: list[Run] = [None, *(ComponentPatch(one) for one in sets)]
    for start in range(0, len(runs), TOGETHER):
        part = runs[start : start + TOGETHER]

        def follow(branches: "Sequence[Branch]", logits: "Tensor", start: int = start) -> list[list[int]]:
            rows = [branch.row for branch in branches]
            found[start : start + len(logits) - 1, rows] = group_log_odds(logits[1:].float(), group).double().cpu()
            return [[] for _ in branches]

        for done in explore_pair(pair, material.prompts, part, follow, max_new_tokens=1):
            progress(len(done))
    return found[1:] - found[:1]


def _together(
    pair: "MatchedPair",
    material: PairMaterial,
    wanted: "Tensor",
    components: "Sequence[Component]",
    settings: AttributionSettings,
    progress: "Progress",
) -> "list[tuple[DiffRun, BoundedProbability]]":
    """The probability of a refusal in the target as it is, and with several components patched together."""
    import torch

    from demur.engine.lockstep.component_patch import ComponentPatch
    from demur.measurements.diffing.pair_probabilities import of_target, pair_probabilities

    names, order = (pair.source.name, pair.target.name), wanted.argsort(descending=True).tolist()
    runs = [DiffRun(names[1], names[1])]
    patches: list[Run] = [None]
    for count in sorted({min(count, len(components)) for count in settings.counts}):
        drawn = [
            torch.randperm(len(components), generator=torch.Generator().manual_seed(settings.seed + 1000 * number + count))
            for number in range(settings.nulls)
        ]
        sets = [("top components", order), *(("random components", one.tolist()) for one in drawn)]
        for kind, places in sets:
            runs.append(DiffRun(*names, kind, count))
            patches.append(ComponentPatch(tuple(components[place] for place in places[:count])))
    found: list[BoundedProbability] = []
    for start in range(0, len(runs), TOGETHER):
        part = patches[start : start + TOGETHER]
        found += pair_probabilities(
            pair, material.prompts, part, settings.sampling, mixtures=of_target, counted=len(part), progress=progress
        )
    return list(zip(runs, found, strict=True))
