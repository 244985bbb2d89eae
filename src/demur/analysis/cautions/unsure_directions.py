"""Warns of directions that depend on which of the training instructions they were made from."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from demur.analysis.arm_pairs import ArmPair
from demur.analysis.manifest import DirectionFacts

LEAST = 0.5
"""Two directions of one arm with a lower cosine than this point to different things for the most part."""


def unsure_directions(pairs: Sequence[ArmPair], layers: Sequence[int], directions: Sequence[DirectionFacts]) -> list[str]:
    """A warning for each arm and layer whose halves disagree, and for each direction whose resamples disagree with it.

    Args:
        pairs: the pairs of arms with the cosines between halves of their instructions, where a run measured these.
        layers: the layers of the study.
        directions: the directions of the run, those from resamples of the training pairs among them.
    """
    halves: dict[tuple[str, int], float] = {}
    for pair in pairs:
        for arm, by_layer in zip(pair.arms, pair.halves, strict=True):
            for layer in layers:
                value = by_layer[layer] if layer < len(by_layer) else None
                if value is not None:
                    halves[arm, layer] = value
    told = [
        f"Two directions of {arm} at layer {layer}, each from one half of its training instructions, have a mean cosine of only "
        f"{value:.2f}, so its direction depends on which instructions were drawn; raise direction.pairs, or choose another layer."
        for (arm, layer), value in halves.items()
        if value < LEAST
    ]
    resamples: dict[str, list[float]] = defaultdict(list)
    for one in directions:
        if one.resample_of is not None and one.cosine is not None:
            resamples[one.resample_of].append(one.cosine)
    told += [
        f"Directions from resamples of the training pairs have a mean cosine of only {fmean(cosines):.2f} with {name}, so it "
        "depends on which instructions were drawn; raise direction.pairs, or choose another layer."
        for name, cosines in resamples.items()
        if fmean(cosines) < LEAST
    ]
    return told
