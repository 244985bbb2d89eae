"""Rows a second on a GPU, with random weights in the shapes of the post's models. Needs no network and no weights.

    python -m benchmarks.gpu [--shapes qwen-0.5b,gemma-2-9b,llama-7b] [--dtype bfloat16] [--rows 25,100,400] [--out gpu.json]

For each shape and number of rows it measures decoding without edits and with different edits in the rows, eager and with
captured steps. It prints rows a second, the shares of the machine's matrix rate and memory bandwidth, the cost of the edits,
and peak memory. On a machine without a GPU it runs on the CPU, eager only; use `--shapes tiny` to try it out.
"""

import argparse
import gc
import json
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

import demur
from benchmarks.captured import Step, decode_captured, graph
from benchmarks.floor import count
from benchmarks.models import make
from benchmarks.speed import timed
from benchmarks.ways import Job, demur_style, transformers_style
from demur.directions.direction import from_raw
from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.interventions.intervention import Intervention
from demur.study.throughput import measure_rates


def mixed_edits(checkpoint: demur.Checkpoint, rows: int) -> list[Intervention | None]:
    """One edit for each row: ablations and additions of different directions, and none for some rows."""
    layer = checkpoint.n_layers // 2
    made = [
        from_raw(torch.randn(checkpoint.d_model, generator=torch.Generator().manual_seed(k)), name=f"d{k}", layer=layer)
        for k in range(6)
    ]
    kinds: list[Intervention | None] = [
        None,
        *(demur.ablate(one) for one in made[:3]),
        *(demur.add(one, 2.0) for one in made[3:]),
    ]
    return [kinds[index % len(kinds)] for index in range(rows)]


def measure(
    shape: str, rows: int, dtype: str, device: str, new_tokens: int, repeats: int, capture: Callable[[Step], Step] | None
) -> dict[str, Any]:
    """Measure one shape and number of rows; captured steps too, if `capture` is given."""
    checkpoint, prompts = make(shape, rows, dtype, device)
    job = Job(checkpoint, prompts, new_tokens)
    budget = 10**9
    edits = mixed_edits(checkpoint, rows)

    decoding = Decoding(new_tokens, (), checkpoint.pad_id)

    def batch(edits: Sequence[Intervention | None]) -> list[Row]:
        return [Row(tuple(prompt), edit) for prompt, edit in zip(prompts, edits, strict=True)]

    def steered() -> Any:
        return decode_batch(checkpoint.model, checkpoint.layout, batch(edits), decoding)

    def captured(edits: Sequence[Intervention | None]) -> Any:
        assert capture is not None
        return decode_captured(checkpoint.model, checkpoint.layout, batch(edits), decoding, capture)

    ways = {
        "plain generate": lambda: transformers_style(job, rows),
        "demur": lambda: demur_style(job, batch_tokens=budget),
        "demur steered": steered,
    }
    if capture is not None:
        ways |= {"captured": partial(captured, [None] * rows), "captured steered": partial(captured, edits)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, Any] = {}
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            taken, tokens[name] = timed(way)
            if repeat:  # the first round warms up
                seconds[name].append(taken)
    rates = measure_rates(checkpoint.dtype, checkpoint.device)
    floor = count(checkpoint, [len(prompt) for prompt in prompts], new_tokens, rows)
    best = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "shape": shape,
        "rows": rows,
        "seconds": best,
        "rows a second": rows / best["demur"],
        "edits cost": _more(seconds, "demur steered", "demur"),
        "edits cost in a captured step": _more(seconds, "captured steered", "captured"),
        "captured takes": _more(seconds, "captured", "demur"),
        "share of matrix rate": floor.operations / rates.operations / best["demur"],
        "share of bandwidth": floor.bytes / rates.bytes / best["demur"],
        "same tokens as generate": _same(tokens, "demur", "plain generate"),
        "same tokens captured": _same(tokens, "captured", "demur"),
        "same tokens captured steered": _same(tokens, "captured steered", "demur steered"),
        "peak GiB": torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None,
        "matrix TFLOP/s": rates.operations / 1e12,
        "copy GB/s": rates.bytes / 1e9,
    }


def _more(seconds: dict[str, list[float]], way: str, base: str) -> float | None:
    """How much longer one way takes than another, as a share of the other's time; None if it was not measured."""
    if way not in seconds:
        return None
    ratio: float = statistics.median(mine / its for mine, its in zip(seconds[way], seconds[base], strict=True))
    return ratio - 1


def _same(tokens: dict[str, Any], way: str, other: str) -> float | None:
    """The share of rows in which two ways gave the same tokens; None if the first was not measured."""
    if way not in tokens:
        return None
    return float(sum(a == b for a, b in zip(tokens[way], tokens[other], strict=True)) / len(tokens[way]))


def main() -> None:
    """Measure, and print one line for each shape and number of rows; with --out also write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="qwen-0.5b,gemma-2-9b,llama-7b")
    parser.add_argument("--rows", default="25,100,400")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-capture", action="store_true", help="do not measure captured steps")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "transformers": transformers.__version__, "cells": []}
    print(f"{name}, torch {found['torch']}, transformers {found['transformers']}", flush=True)
    for shape in given.shapes.split(","):
        for rows in map(int, given.rows.split(",")):
            capture = graph if device == "cuda" and not given.no_capture else None
            cell = measure(shape, rows, given.dtype, device, given.new_tokens, given.repeats, capture)
            found["cells"].append(cell)
            print(json.dumps(cell), flush=True)
            if given.out:
                given.out.write_text(json.dumps(found, indent=1) + "\n")
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
