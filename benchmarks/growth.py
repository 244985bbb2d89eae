"""How demur's time grows with instructions, interventions, layers and new tokens. One varies at a time, the others stay the same.

    python -m benchmarks.growth [--repeats 3] [--out F]

Weights are random, in SmolLM2-135M's shape with fewer layers. Each time is printed with the arithmetic that the job would need
without sharing. Both are given as multiples of the smallest job on the same axis.
"""

import argparse
import json
import statistics
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import demur
from benchmarks.floor import count
from benchmarks.models import make, random_model
from benchmarks.speed import study_edits, timed
from benchmarks.ways import Job, demur_style

AXES: dict[str, tuple[int, ...]] = {
    "instructions": (25, 50, 100, 200),
    "interventions": (1, 2, 4, 8, 12),
    "layers": (6, 12, 18, 24, 30),
    "new_tokens": (4, 8, 16, 32),
}


@dataclass(frozen=True)
class Size:
    """One job's size."""

    instructions: int
    interventions: int
    layers: int
    new_tokens: int


HELD = Size(instructions=50, interventions=1, layers=30, new_tokens=16)


def measure(axis: str, model: str, repeats: int) -> list[dict[str, Any]]:
    """Measure every value of an axis, interleaved."""
    sizes = [replace(HELD, **{axis: value}) for value in AXES[axis]]
    _, prompts = make("tiny", max(size.instructions for size in sizes), "float32")
    checkpoints = {size.layers: random_model(model, "float32", layers=size.layers) for size in sizes}
    seconds: dict[Size, list[float]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            seconds[size].append(timed(partial(_work, checkpoints[size.layers], prompts, size))[0])
    return [
        {
            "value": value,
            "seconds": statistics.median(seconds[size]),
            "ratios": [mine / least for mine, least in zip(seconds[size], seconds[sizes[0]], strict=True)],
            "arithmetic": _arithmetic(checkpoints[size.layers], prompts, size)
            / _arithmetic(checkpoints[sizes[0].layers], prompts, sizes[0]),
        }
        for value, size in zip(AXES[axis], sizes, strict=True)
    ]


def _work(checkpoint: demur.Checkpoint, prompts: list[list[int]], size: Size) -> None:
    edits = list(study_edits(checkpoint).values())[: size.interventions]
    demur_style(Job(checkpoint, prompts[: size.instructions], size.new_tokens), edits)


def _arithmetic(checkpoint: demur.Checkpoint, prompts: list[list[int]], size: Size) -> float:
    lengths = [len(prompt) for prompt in prompts[: size.instructions]] * size.interventions
    return count(checkpoint, lengths, size.new_tokens, len(lengths)).operations


def main() -> None:
    """Measure and print; with --out also write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for axis in given.axes.split(","):
        found[axis] = measure(axis, given.model, given.repeats)
        print(axis)
        for row in found[axis]:
            least, middle, most = min(row["ratios"]), statistics.median(row["ratios"]), max(row["ratios"])
            ratio = f"x {middle:.2f} [{least:.2f}, {most:.2f}], arithmetic x {row['arithmetic']:.2f}"
            print(f"  {row['value']:5} {row['seconds']:8.2f} s   {ratio}", flush=True)
    if given.out:
        given.out.write_text(json.dumps({"growth": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
