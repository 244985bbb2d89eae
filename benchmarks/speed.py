"""Ratios of time between demur and other ways to do the same work, interleaved in one process.

    python -m benchmarks.speed [--model smollm2|qwen-0.5b|gemma-3-270m] [--prompts 100] [--new-tokens 16] [--repeats 5] [--out F]

Each ratio is taken within one repeat, so that a busy machine slows both sides. Run nothing else on the machine. All ways should
give the same tokens; the output says in how many rows they do. The ways `seed` and `pipeline` are the methods of "Base LLMs
refuse too" and of Arditi et al.; `plain N` is `generate` of transformers with N rows.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import demur
from benchmarks.floor import count
from benchmarks.models import make
from benchmarks.ways import Job, demur_style, hidden_states, nnsight_style, seed_style, streamed, transformers_style
from demur.directions.controls.random_directions import random_direction
from demur.directions.direction import from_raw
from demur.engine.decode import decode_batch
from demur.engine.engine_protocol import Decoding, Row
from demur.interventions.intervention import Intervention
from demur.models.prepacked_weights import prepacked
from demur.study.throughput import measure_rates


def study_edits(checkpoint: demur.Checkpoint) -> dict[str, Intervention | None]:
    """All interventions of a study: none, two directions added at two coefficients each, both ablated, and five controls."""
    layer, width = checkpoint.n_layers // 2, checkpoint.d_model
    own = [
        from_raw(torch.randn(width, generator=torch.Generator().manual_seed(seed)), name=f"d{seed}", layer=layer)
        for seed in (1, 2)
    ]
    controls = [random_direction(own[0], name=f"random-{k}") for k in range(5)]
    edits: dict[str, Intervention | None] = {"none": None}
    for direction in own:
        edits |= {f"add {c:g} {direction.name}": demur.add(direction, c) for c in (2.0, 4.0)}
        edits[f"ablate {direction.name}"] = demur.ablate(direction)
    edits |= {
        f"{'add' if k % 2 else 'ablate'} {c.name}": demur.add(c, 2.0) if k % 2 else demur.ablate(c)
        for k, c in enumerate(controls)
    }
    return edits


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """How many seconds some work takes, and its result."""
    gc.collect()
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def compare(ways: Mapping[str, Callable[[], Any]], base: str, repeats: int) -> dict[str, dict[str, Any]]:
    """The seconds of each way, their ratio to those of `base`, and in how many rows the result equals that of `base`."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    same: dict[str, int] = {}
    for repeat in range(repeats):
        tokens: dict[str, Any] = {}
        for name, way in ways.items():
            taken, tokens[name] = timed(way)
            seconds[name].append(taken)
        if repeat == 0:
            for name, found in tokens.items():
                same[name] = sum(a == b for a, b in zip(found, tokens[base], strict=True))
                print(f"  {name}: {same[name]} of {len(found)} rows as {base}, {seconds[name][0]:.2f} s", flush=True)
    table = {}
    for name in ways:
        ratios = [mine / its for mine, its in zip(seconds[name], seconds[base], strict=True)]
        table[name] = {
            "seconds": statistics.median(seconds[name]),
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "same": same[name],
        }
    return table


def main() -> None:
    """Measure and print; with --out also write JSON."""
    given = _arguments()
    checkpoint, prompts = make(given.model, given.prompts, given.dtype)
    rates = measure_rates(checkpoint.dtype, checkpoint.device)
    lengths = [len(prompt) for prompt in prompts]
    print(f"{given.model}: {len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {torch.get_num_threads()} threads")
    print(f"matrix rate {rates.operations / 1e9:.0f} GFLOP/s, copy rate {rates.bytes / 1e9:.1f} GB/s")
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "settings": {**vars(given), "out": None},
    }
    edits, parts = study_edits(checkpoint), given.parts.split(",")
    if "one" in parts:
        for kind in given.kinds.split(","):
            job = Job(checkpoint, prompts, given.new_tokens, edits[kind])
            ways = _ways(job, kind, given.skip.split(","))
            print(kind)
            found[kind] = compare(ways, "demur", given.repeats)
            floor = count(checkpoint, lengths, given.new_tokens, len(prompts)).seconds(rates)
            found[kind]["floor"] = {"seconds": floor, "ratio": floor / found[kind]["demur"]["seconds"]}
            _show(found[kind])
    if "study" in parts:
        job = Job(checkpoint, prompts, given.new_tokens)
        print(f"study of {len(edits)} interventions")
        ways = {
            "together": lambda: demur_style(job, list(edits.values())),
            "singly": lambda: [row for edit in edits.values() for row in demur_style(job, [edit])],
        }
        found["study"] = compare(ways, "together", given.repeats)
        floor = count(checkpoint, lengths * len(edits), given.new_tokens, len(lengths) * len(edits)).seconds(rates)
        found["study"]["floor"] = {"seconds": floor, "ratio": floor / found["study"]["together"]["seconds"]}
        _show(found["study"])
    if "steered" in parts:
        print("steered against unsteered; each prompt is used once, so no work is shared")
        found["steered"] = compare_steered(checkpoint, prompts, given.new_tokens, edits["ablate d1"], given.repeats)
        _show(found["steered"])
    if "capture" in parts:
        print("capture of all layers")
        found["capture"] = compare_capture(checkpoint, prompts, given.repeats)
        _show(found["capture"])
    if "packed" in parts:
        print("prepacked weights")
        found["packed"] = compare_packed(checkpoint, prompts, given.new_tokens, given.repeats)
        _show(found["packed"])
    if "bfloat16" in parts:
        print("bfloat16 against float32; their tokens may differ")
        half = Job(make(given.model, given.prompts, "bfloat16")[0], prompts, given.new_tokens)
        job = Job(checkpoint, prompts, given.new_tokens)
        ways = {"float32": partial(demur_style, job), "bfloat16": partial(demur_style, half)}
        found["bfloat16"] = compare(ways, "float32", given.repeats)
        _show(found["bfloat16"])
    if given.out:
        given.out.write_text(json.dumps(found, indent=1, default=str) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", default="none,ablate d1,add 4 d1", help="edits of the part `one`, separated by commas")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--parts", default="one,study,steered,capture", help="of one, study, steered, capture, packed, bfloat16")
    parser.add_argument("--skip", default="", help="names of ways to leave out, separated by commas")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _ways(job: Job, kind: str, skip: list[str]) -> dict[str, Callable[[], Any]]:
    ways: dict[str, Callable[[], Any]] = {
        "seed": lambda: seed_style(job),
        "pipeline": lambda: transformers_style(job, 8),
        "demur": lambda: demur_style(job),
    }
    if kind == "none":
        ways |= {"plain 25": lambda: transformers_style(job, 25), "plain 100": lambda: transformers_style(job, 100)}
    if kind.startswith("add"):
        try:
            import nnsight  # noqa: F401

            ways["nnsight"] = lambda: nnsight_style(job)
        except ImportError:
            pass
    return {name: way for name, way in ways.items() if name not in skip}


def compare_steered(
    checkpoint: demur.Checkpoint, prompts: list[list[int]], new_tokens: int, edit: Intervention | None, repeats: int
) -> dict[str, dict[str, Any]]:
    """The same rows without an edit, all ablated at every site, and some of them ablated. Their tokens may differ."""
    others = list(study_edits(checkpoint).values())
    layout, width = checkpoint.layout, checkpoint.d_model

    def decoded(edits: list[Intervention | None]) -> list[list[int]]:
        rows = [Row(tuple(prompt), edits[i % len(edits)]) for i, prompt in enumerate(prompts)]
        return decode_batch(checkpoint.model, layout, rows, Decoding(new_tokens, (), checkpoint.pad_id))

    ways: dict[str, list[Intervention | None]] = {"unsteered": [None], "ablated": [edit]}
    ways["mixed"] = [one for one in others if one is None or one.kind == "ablate"]
    print(f"  stream of width {width}, {len(prompts)} rows")
    return compare({name: partial(decoded, edits) for name, edits in ways.items()}, "unsteered", repeats)


def compare_capture(checkpoint: demur.Checkpoint, prompts: list[list[int]], repeats: int) -> dict[str, dict[str, Any]]:
    """Read all layers at the last token: demur, and `output_hidden_states` with logits at every position, 25 rows at a time."""
    ways = {"demur": partial(streamed, checkpoint, prompts), "output_hidden_states": partial(hidden_states, checkpoint, prompts)}
    return compare(ways, "demur", repeats)


def compare_packed(
    checkpoint: demur.Checkpoint, prompts: list[list[int]], new_tokens: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Decode with prepacked weights, as demur does, and with weights as they are stored, as transformers does."""
    rows = [Row(tuple(prompt)) for prompt in prompts]

    def decoded(way: Any) -> list[list[int]]:
        with mock.patch("demur.engine.decode.prepacked", way), mock.patch("demur.engine.prefill.prepacked", way):
            return decode_batch(checkpoint.model, checkpoint.layout, rows, Decoding(new_tokens, (), checkpoint.pad_id))

    return compare(
        {"packed": partial(decoded, prepacked), "plain": partial(decoded, lambda *_: nullcontext())}, "packed", repeats
    )


def _show(table: dict[str, dict[str, Any]]) -> None:
    for name, row in table.items():
        spread = f" [{row['least']:.2f}, {row['most']:.2f}]" if "least" in row else ""
        print(f"  {name:22} {row['seconds']:8.2f} s   x {row['ratio']:.2f}{spread}", flush=True)


if __name__ == "__main__":
    main()
