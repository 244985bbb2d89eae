"""What each kind of edit costs: processor time of the same completions with the edit and without, interleaved in one process.

    python -m benchmarks.edit_kinds [--rows 16] [--repeats 5] [--new-tokens 16]

Each kind acts at every layer and site of the demo's tuned checkpoint, on one thread. Prints the median ratio to no edit, with the
least and the greatest. Processor time is used, because it does not count waiting for other programs.
"""

import argparse
import time
from collections.abc import Sequence
from statistics import median

import torch

import demur
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.intervention import Intervention
from demur.interventions.stream_means import LABELS
from demur.interventions.target_facts import TargetFacts
from demur.models.layouts import Site, point


def kinds(checkpoint: demur.Checkpoint) -> dict[str, Intervention | None]:
    """No edit, and one of each kind with random directions of ordinary length."""
    width, layers = checkpoint.d_model, range(checkpoint.n_layers)
    draw = torch.Generator().manual_seed(0)

    def vector() -> torch.Tensor:
        return torch.randn(width, generator=draw)

    directions = [demur.from_raw(vector(), name=f"d{layer}", layer=layer) for layer in layers]
    places: list[tuple[int, Site]] = [(layer, site) for layer in layers for site in checkpoint.layout.sites]
    means = [demur.StreamMeans.of({place: vector() for place in places}, label=label) for label in LABELS]
    deviations = torch.randn(256, width, generator=draw)
    facts = TargetFacts.of_means(*means, StreamSpread(point(0, "resid_pre"), deviations))
    first, plane = directions[0], demur.subspace(directions[:2])
    return {
        "none": None,
        "ablate": demur.ablate(first),
        "add": demur.add(first, 1.0, layers=list(layers), sites=checkpoint.layout.sites),
        "affine": demur.affine(first, to=means[0]),
        "clamp": demur.edit("clamp", first).with_facts(facts),
        "leace": demur.edit("leace", first).with_facts(facts),
        "subspace of 2, affine": demur.affine(plane, to=means[0]),
        "subspace of 8, zero": demur.ablate(demur.subspace(directions[:8])),
        "ablate-each, affine": demur.edit("ablate-each", demur.subspace(directions), to="harmless").with_facts(facts),
        "angular": demur.edit("angular", plane),
    }


def seconds(checkpoint: demur.Checkpoint, texts: Sequence[str], edit: Intervention | None, new_tokens: int) -> float:
    """The processor time of the completions."""
    start = time.process_time()
    demur.generate(checkpoint, texts, "chatml", [edit], max_new_tokens=new_tokens, stop_at_eos=False)
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--rows", type=int, default=16)
    said.add_argument("--repeats", type=int, default=5)
    said.add_argument("--new-tokens", type=int, default=16)
    asked = said.parse_args()
    torch.set_num_threads(1)
    spec = demur.load_study("demo").checkpoints["after"]
    checkpoint = demur.load_checkpoint(spec.model, adapter=spec.adapter, dtype="float32", device="cpu")
    texts = demur.load_instructions("contrast-harmful").take("validation", asked.rows)
    edits = kinds(checkpoint)
    seconds(checkpoint, texts, None, asked.new_tokens)
    taken: dict[str, list[float]] = {name: [] for name in edits}
    for _ in range(asked.repeats):
        for name, edit in edits.items():
            taken[name].append(seconds(checkpoint, texts, edit, asked.new_tokens))
    print("| kind | time of no edit (least, greatest) |\n|---|---|")
    for name in list(edits)[1:]:
        ratios = [mine / its for mine, its in zip(taken[name], taken["none"], strict=True)]
        print(f"| {name} | {median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f}) |")


if __name__ == "__main__":
    main()
