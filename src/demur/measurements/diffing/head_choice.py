"""The heads that `patching` puts from one checkpoint into the other one by one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.core.progress import Progress, silent
from demur.measurements.diffing.diff_runs import PairSettings

if TYPE_CHECKING:
    from demur.engine.lockstep.component_patch import Component
    from demur.engine.lockstep.matched_pair import MatchedPair


def chosen_heads(
    pair: "MatchedPair",
    prompts: Sequence[tuple[int, ...]],
    settings: PairSettings,
    *,
    most: int,
    layer: int | None,
    progress: Progress = silent,
) -> "list[Component]":
    """The heads of a pair with the largest estimates of attribution patching, and all heads of one layer.

    Args:
        pair: the checkpoints. Heads of the source are put into the target.
        prompts: token ids of the prompts.
        settings: the judge, whose refusals the estimates are about.
        most: how many heads with the largest estimates; 0 for none.
        layer: the layer whose heads are all taken; None for none.
        progress: called after each batch with the number of its prompts.

    Returns:
        The heads by layer, each once.

    Raises:
        InputError: if the layer does not exist, or the heads of an attention cannot be told apart.
    """
    from demur.engine.lockstep.component_patch import Component, ComponentPatch
    from demur.engine.readout.attention_heads import head_projections
    from demur.engine.readout.attribution_patching import attribution_patching
    from demur.engine.readout.direct_attribution import direct_attribution
    from demur.measurements.exact_refusal.refusal_beginnings import refusal_beginnings

    found: list[Component] = []
    if layer is not None:
        ComponentPatch((Component(layer, "head", 0),)).check(pair.target)
        found += [Component(layer, "head", head) for head in range(head_projections(pair.target)[layer].n_heads)]
    if most:
        group = refusal_beginnings(pair.target, settings.judge, pair.vocabulary, pair.stop_ids)
        ends = [direct_attribution(one, prompts, group, pair.vocabulary, progress=progress) for one in (pair.target, pair.source)]
        estimate = attribution_patching(pair, prompts, group, progress=progress).mean(0)
        # Towards the source: the log-odds should rise if the source's are higher.
        estimate *= 1 if ends[1].log_odds.mean() >= ends[0].log_odds.mean() else -1
        heads = [(number, one) for number, one in enumerate(ends[0].components) if one.part == "head"]
        heads.sort(key=lambda each: -float(estimate[each[0]]))
        found += [one for _, one in heads[:most]]
    return sorted(set(found), key=lambda one: (one.layer, one.head or 0))
