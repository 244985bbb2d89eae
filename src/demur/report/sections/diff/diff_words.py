"""The words for measurements of pairs and for the kinds of their runs, in figures and tables."""

from dataclasses import dataclass

from demur.analysis.diff.recovery_words import head_words


@dataclass(frozen=True)
class DiffWords:
    """The words for a measurement.

    Attributes:
        title: what its figure shows.
        place: what the places of its runs are.
        figure: how to read its figure.
        table: what its table contains.
    """

    title: str
    place: str
    figure: str
    table: str


_WORDS = {
    "patching": DiffWords(
        "Refusals with the other checkpoint's stream, by layer",
        "layer",
        "Both checkpoints run the same tokens. After one layer the target's stream is replaced by the source's, and the target "
        "goes on. What is below this layer then has no effect, so the curve says by which layer the stream holds what "
        "decides, not that this layer computes it. Dotted: where half of the difference is reached. Nulls have the same norm. "
        "Bands: 95 % intervals over instructions.",
        "Exact probability of a refusal with the source's stream after each layer put into the target, and the recovery: 0 % is "
        "the target as it is, 100 % the source.",
    ),
    "amplification": DiffWords(
        "Refusals of mixtures of both checkpoints' logits",
        "coefficient",
        "Both checkpoints run the same tokens. The next token's logits are those of the later checkpoint plus the coefficient "
        "times their difference from the earlier one's: -1 is the earlier checkpoint, 0 the later one, and larger ones do more "
        "of what training did. In the null, the difference is permuted over the vocabulary.",
        "Exact probability of a refusal with mixtures of both checkpoints' logits, by coefficient: -1 is the earlier checkpoint, "
        "0 the later one.",
    ),
    "weight-swaps": DiffWords(
        "Refusals with some of the other checkpoint's weights",
        "layer",
        "Weights of the source are put into the target: those of a window of layers, up to the layer on the axis; of all layers "
        "up to it; of its window and all layers after it; and only attention or only MLPs of the window. In the null, the "
        "differences of the window's weights have their entries permuted.",
        "Exact probability of a refusal with some of the source's weights in the target. A window is named by its last layer, "
        "the interpolation of all weights by its share, and a part of low rank by its rank.",
    ),
    "difference-lens": DiffWords(
        "Refusals without what training added to the stream on unrelated text",
        "layer",
        "The mean difference of both checkpoints' streams on unrelated text is subtracted from the later checkpoint's stream at "
        "one layer, or added to the earlier one's. Nulls are random vectors of the same norm. Bands: 95 % intervals over "
        "instructions.",
        "Exact probability of a refusal with the mean difference on unrelated text subtracted or added at one layer, or its "
        "component removed there.",
    ),
    "attribution": DiffWords(
        "Refusals with some of the other checkpoint's heads and MLPs",
        "components",
        "What the source's heads and MLPs with the largest estimates add to the stream is put in the place of what the target's "
        "add, at all token positions. The estimates are those of attribution patching. In the null, the components are random.",
        "Exact probability of a refusal with what some of the source's heads and MLPs add to the stream put into the target.",
    ),
    "interpolation": DiffWords(
        "Refusals between the weights of both checkpoints",
        "share",
        "All weights are moved from the target's to the source's, in a straight line: 0 is the target, 1 the source.",
        "",
    ),
    "rank": DiffWords(
        "Refusals with a part of low rank of the other checkpoint's matrices",
        "rank",
        "To every matrix of attentions and MLPs the best part of this rank of its difference from the source's is added. In the "
        "null, random matrices of this rank with the same singular values are added.",
        "",
    ),
}

_KINDS = {
    "stream": "whole stream",
    "interpolation": "share of all weights",
    "window": "window of layers",
    "prefix": "all layers up to here",
    "suffix": "this window and all layers after",
    "attention": "attention of the window",
    "mlp": "MLPs of the window",
    "all mlp": "all MLPs",
    "all matrices": "all matrices of attention and MLPs",
    "rank": "best part of this rank of all matrices",
    "random rank": "null: random matrices of this rank",
    "prompt": "at prompt positions only",
    "generated": "at generated positions only",
    "permuted": "null: permuted difference of the same norm",
    "amplified": "mixture",
    "mean difference": "mean difference on unrelated text",
    "component": "component along it removed",
    "random shift": "null: a random vector of the same norm",
    "random component": "null: component along a random vector removed",
    "attention added": "what this layer's attention adds only",
    "mlp added": "what this layer's MLP adds only",
    "permuted attention": "null: permuted difference of the attention",
    "permuted mlp": "null: permuted difference of the MLP",
    "top components": "components with the largest estimates",
    "random components": "null: as many random components",
    "along": "along the source's direction only",
    "random direction": "null: along a random direction",
}


def measurement_words(name: str) -> DiffWords:
    """The words for a measurement of pairs; plain ones for a measurement of another package."""
    plain = DiffWords(f"Refusals in runs of two checkpoints: {name}", "place", "", f"The runs of the measurement {name}.")
    return _WORDS.get(name, plain)


def kind_words(kind: str) -> str:
    """The words for a kind of runs: its own name if there are none."""
    if kind.startswith("permuted head "):
        return f"null: permuted difference of {head_words(kind.removeprefix('permuted '))}"
    return f"{head_words(kind)} only" if kind.startswith("head ") else _KINDS.get(kind, kind)
