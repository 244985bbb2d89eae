"""Whether a direction found by gradient beats the difference of means it began with, on the demo's tuned checkpoint.

    python scripts/search_direction.py [--layer 17] [--pairs 32] [--epochs 3] [--tokens 16] [--instructions 24]

The search reads training instructions only. Both directions are then ablated to zero, set to the harmless mean and added, and a
random direction beside them, on validation instructions: refusals of greedy completions (judge prefix) and the mean exact
probability of a refusal. Prints the losses, the time and a table in Markdown.
"""

import argparse
import time

import torch

import demur


def main() -> None:
    """Search, measure and print."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layer", 17), ("pairs", 32), ("epochs", 3), ("tokens", 16), ("instructions", 24)):
        said.add_argument(f"--{name}", type=int, default=default)
    asked = said.parse_args()
    spec = demur.load_study("demo").checkpoints["after"]
    checkpoint = demur.load_checkpoint(spec.model, adapter=spec.adapter, dtype="float32", device="cpu")
    prompt = demur.prompt_format("chatml", checkpoint)
    sets = {label: demur.load_instructions(f"contrast-{label}") for label in ("harmful", "harmless")}
    held_out = {label: rows.take("validation", asked.instructions) for label, rows in sets.items()}
    train = {label: rows.take("train", 128) for label, rows in sets.items()}
    start = demur.extract_direction(checkpoint, train["harmful"], train["harmless"], prompt, layer=asked.layer)
    begun = time.perf_counter()
    few = {label: rows[: asked.pairs] for label, rows in train.items()}
    found = demur.optimise_direction(
        checkpoint, start, few["harmful"], few["harmless"], prompt, epochs=asked.epochs, tokens=asked.tokens
    )
    minutes, seconds = divmod(round(time.perf_counter() - begun), 60)
    print(f"search: {minutes}:{seconds:02d}; loss {', '.join(f'{loss:.3f}' for loss in found.losses)}; "
          f"cosine with the start {float(start.vector @ found.direction.vector):.3f}\n")  # fmt: skip
    means = demur.stream_means(checkpoint, train["harmless"], prompt)
    noise = torch.randn(checkpoint.d_model, generator=torch.Generator().manual_seed(0))
    random = demur.from_raw(noise / noise.norm() * start.raw_norm, name="random", layer=asked.layer)
    directions = {"difference of means": start, "found by gradient": found.direction, "random": random}
    print("| edit | direction | set | refused | probability |\n|---|---|---|---|---|")
    for label, kinds in (("harmful", ("zero", "affine")), ("harmless", ("zero", "affine", "add 2 raw"))):
        made = {
            (kind, name): demur.ablate(one) if kind == "zero" else demur.affine(one, to=means) if kind == "affine"
            else demur.add(one, 2.0, unit="raw")
            for kind in kinds for name, one in directions.items()
        }  # fmt: skip
        edits = [None, *made.values()]
        rows = demur.generate(checkpoint, held_out[label], prompt, edits, max_new_tokens=16)
        chances = demur.refusal_probability(checkpoint, held_out[label], prompt, edits, min_mass=0.01)
        for (kind, name), each, chance in zip([("none", ""), *made], rows, chances, strict=True):
            refused = sum(verdict.refusal for verdict in demur.judge(each))
            print(f"| {kind} | {name} | {label} | {refused} of {len(each)} | {float(chance.mean()):.2f} |")


if __name__ == "__main__":
    main()
