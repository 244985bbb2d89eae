"""Refusals of the demo's tuned checkpoint under every estimator and every kind of edit, on validation instructions.

    python scripts/compare_edits.py [--layer 17] [--layers 13 20] [--instructions 24] [--pairs 128] [--only PATTERN]

Directions and means come from training instructions. All edits are rows of the same batches. Prints two tables in Markdown: the
edits, by refusals of harmful and harmless instructions; and the estimators. `--only leace` makes only the edits with `leace` in
their names; any regular expression will do.
"""

import argparse
import re
from collections.abc import Mapping

import demur
from demur.directions.estimators.estimator import fit_directions
from demur.directions.provenance import Provenance
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.intervention import Intervention
from demur.interventions.stream_means import Label, StreamMeans
from demur.interventions.target_facts import TargetFacts
from demur.measurements.extraction import training_sides
from demur.study.spec import LABELS

ESTIMATORS = ("difference-of-means", "mean-projected", "whitened", "logistic", "paired-pca")


def edits_of(
    by_estimator: Mapping[str, Mapping[int, demur.Direction]],
    means: Mapping[Label, StreamMeans],
    facts: TargetFacts,
    layer: int,
) -> dict[str, Intervention]:
    """Every edit that is compared, by its name in the tables."""
    edits = {}
    for name, directions in by_estimator.items():
        edits[f"{name}, zero"] = demur.ablate(directions[layer])
        edits[f"{name}, affine"] = demur.affine(directions[layer], to=means["harmless"])
        edits[f"{name}, leace to the harmless mean"] = demur.edit("leace", directions[layer], to="harmless").with_facts(facts)
    own = by_estimator["difference-of-means"]
    plane = demur.subspace([own[layer], by_estimator["logistic"][layer]])
    spread = demur.subspace([own[min(own)], own[layer], own[max(own)]])
    edits |= {
        "leace to the mean of all": demur.edit("leace", own[layer]).with_facts(facts),
        "clamp at the harmless mean": demur.edit("clamp", own[layer]).with_facts(facts),
        "subspace of difference of means and logistic, zero": demur.ablate(plane),
        "the same, affine": demur.affine(plane, to=means["harmless"]),
        f"subspace of layers {min(own)}, {layer} and {max(own)}, zero": demur.ablate(spread),
        f"subspace of layers {min(own)}, {layer} and {max(own)}, affine": demur.affine(spread, to=means["harmless"]),
        "angular, 90 degrees": demur.edit("angular", plane, angle=90.0),
        "angular, 180 degrees": demur.edit("angular", plane, angle=180.0),
    }
    for done, at_layer in (
        ("affine", demur.affine(own[layer], to=means["harmless"], layers=[layer], sites=["resid_pre"])),
        ("leace to the harmless mean", edit_at(own[layer], facts, "harmless")),
        ("leace to the mean of all", edit_at(own[layer], facts, "both")),
    ):
        edits[f"{done}, only at layer {layer}"] = at_layer
    each = demur.subspace(list(own.values()))
    for to, done in (("zero", "zero"), ("harmless", "affine")):
        edits[f"ablate-each, {done}"] = demur.edit("ablate-each", each, to=to).with_facts(facts)
    return edits


def edit_at(direction: demur.Direction, facts: TargetFacts, to: str) -> Intervention:
    """LEACE at the layer and site of its direction only, where the classes then have equal means."""
    return demur.edit("leace", direction, layers=[direction.layer], sites=[direction.site], to=to).with_facts(facts)


def main() -> None:
    """Measure and print."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--layer", type=int, default=17)
    said.add_argument("--layers", type=int, nargs=2, default=(13, 20))
    said.add_argument("--instructions", type=int, default=24)
    said.add_argument("--pairs", type=int, default=128)
    said.add_argument("--only", default="")
    asked = said.parse_args()
    spec = demur.load_study("demo").checkpoints["after"]
    checkpoint = demur.load_checkpoint(spec.model, adapter=spec.adapter, dtype="float32", device="cpu")
    prompt = demur.prompt_format("chatml", checkpoint)
    sets = {label: demur.load_instructions(f"contrast-{label}") for label in LABELS}
    train = {label: sets[label].take("train", asked.pairs) for label in LABELS}
    layers = range(asked.layers[0], asked.layers[1] + 1)
    sides = training_sides(checkpoint, train["harmful"], train["harmless"], prompt, layers=layers, needs="activations")
    by_estimator = {
        name: {one.layer: one for one in fit_directions(*sides, name=name, layers=layers, estimator_name=name)}
        for name in ESTIMATORS
    }
    means = {label: demur.stream_means(checkpoint, train[label], prompt, label=label) for label in LABELS}
    spread = StreamSpread.of_sides(sides, layers.index(asked.layer), asked.layer, "resid_pre", -1, Provenance())
    facts = TargetFacts.of_means(*means.values(), spread)
    found = edits_of(by_estimator, means, facts, asked.layer)
    edits = {name: one for name, one in found.items() if re.search(asked.only, name)}
    refused = {}
    for label in LABELS:
        texts = sets[label].take("validation", asked.instructions)
        rows = demur.generate(checkpoint, texts, prompt, [None, *edits.values()], until_verdict="prefix")
        refused[label] = [sum(one.refusal for one in demur.judge(row, "prefix")) for row in rows]
    print(f"| edit | harmful refused, of {asked.instructions} | harmless refused |\n|---|---|---|")
    for index, name in enumerate(("none", *edits)):
        print(f"| {name} | {refused['harmful'][index]} | {refused['harmless'][index]} |")
    print("\n| estimator | cosine to the difference of means | raw norm |\n|---|---|---|")
    own = by_estimator["difference-of-means"][asked.layer]
    for name, directions in by_estimator.items():
        one = directions[asked.layer]
        print(f"| {name} | {float(one.vector @ own.vector):.2f} | {one.raw_norm:.1f} |")


if __name__ == "__main__":
    main()
