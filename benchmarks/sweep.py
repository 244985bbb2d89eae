"""Time to choose a layer and a position: demur against the loop of Arditi et al., on the same candidates and instructions.

    python -m benchmarks.sweep [--every 3] [--unfiltered] [--repeats 1] [--out F]

The loop is written anew here. It measures one candidate after the other, with hooks on modules, 32 rows padded together, logits
at every position, and all three scores of every candidate. `--every 3` takes the candidates of every third layer. The output
shows both choices and the largest difference of the scores; they should agree.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import demur
from benchmarks.speed import timed
from benchmarks.ways import Job, module_hooks
from demur.engine.batching import pad_left, position_ids
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention
from demur.measurements.divergence import divergence, refusal_log_odds
from demur.measurements.selection.candidates import Candidates
from demur.measurements.selection.ranking import Selection, by_refusal
from demur.measurements.selection.sweep import keep_refused
from demur.runs.selecting.place_selection import VALIDATION
from demur.study.spec import LABELS
from demur.study.study_files import load_study

ROWS = 32
Prompts = list[list[int]]
Sides = tuple[tuple[str, ...], tuple[str, ...]]


@torch.inference_mode()
def last_logits(checkpoint: demur.Checkpoint, prompts: Prompts, edit: Intervention | None) -> Tensor:
    """Logits after each prompt. The model computes them at every position, for `ROWS` prompts at a time, in the order given."""
    found = []
    with module_hooks(Job(checkpoint, prompts, 0, edit)):
        for start in range(0, len(prompts), ROWS):
            ids, mask = pad_left(prompts[start : start + ROWS], checkpoint.pad_id, checkpoint.device)
            output = checkpoint.model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
            found.append(output.logits[:, -1].float().cpu())
    return torch.cat(found)


def looped(
    checkpoint: demur.Checkpoint,
    candidates: Candidates,
    harmful: Prompts,
    harmless: Prompts,
    tokens: tuple[int, ...],
    bounds: Mapping[str, Any] = MappingProxyType({}),
) -> Selection:
    """The choice of the loop: measures all three scores of one candidate after the other."""
    before = last_logits(checkpoint, harmless, None)
    scores: list[dict[str, float | int]] = []
    for (position, layer), direction in candidates.directions.items():
        removed, added = demur.ablate(direction), demur.add(direction, 1.0, unit="raw")
        scores.append(
            {
                "position": position,
                "layer": layer,
                "kl": float(divergence(before, last_logits(checkpoint, harmless, removed)).mean()),
                "induce": float(refusal_log_odds(last_logits(checkpoint, harmless, added), tokens).mean()),
                "bypass": float(refusal_log_odds(last_logits(checkpoint, harmful, removed), tokens).mean()),
            }
        )
    return by_refusal(scores, checkpoint.n_layers, **bounds)


def prepared(every: int) -> tuple[demur.Checkpoint, Candidates, Sides, Prompt, tuple[int, ...]]:
    """The demo's safety-tuned checkpoint, its candidates, and validation instructions that the filter of Arditi et al. keeps."""
    study = load_study("demo")
    spec = study.checkpoints["after"]
    checkpoint = demur.load_checkpoint(spec.model, adapter=spec.adapter, name="after")
    prompt = demur.prompt_format(spec.prompts[0], checkpoint)
    harmful, harmless = (demur.load_instructions(study.instructions[label].source) for label in LABELS)
    pairs = study.direction.pairs
    train = harmful.take("train", pairs), harmless.take("train", pairs)
    tokens = demur.find_refusal_tokens(checkpoint, train[0], train[1], prompt).ids
    kept = keep_refused(checkpoint, train[0], train[1], prompt, tokens)
    found = demur.candidate_directions(checkpoint, kept[0], kept[1], prompt)
    some = {place: direction for place, direction in found.directions.items() if place[1] % every == 0}
    held_out = harmful.take("validation")[:VALIDATION], harmless.take("validation")[:VALIDATION]
    sides = keep_refused(checkpoint, held_out[0], held_out[1], prompt, tokens)
    return checkpoint, replace(found, directions=some), sides, prompt, tokens


def furthest(ours: Selection, theirs: Selection) -> dict[str, float]:
    """The largest difference of each score, where both have it. demur does not measure scores that cannot change the choice."""
    found: dict[str, float] = {}
    for mine, its in zip(ours.places, theirs.places, strict=True):
        for name, value in mine.measures.items():
            if name in its.measures:
                found[name] = max(found.get(name, 0.0), abs(value - its.measures[name]))
    return found


def main() -> None:
    """Measure and print; with --out also write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=3, help="take the candidates of every n-th layer")
    parser.add_argument("--unfiltered", action="store_true", help="use no filters, so that demur also measures every score")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    checkpoint, candidates, sides, prompt, tokens = prepared(given.every)
    harmful, harmless = sides
    ids = prompt.encode(harmful), prompt.encode(harmless)
    print(
        f"{len(candidates.directions)} candidates, {len(harmful)} harmful and {len(harmless)} harmless instructions", flush=True
    )
    bounds: dict[str, Any] = dict.fromkeys(("kl_most", "induce_least", "last_layers")) if given.unfiltered else {}
    ratios = []
    for _ in range(given.repeats):
        mine, ours = timed(lambda: demur.select_by_refusal(checkpoint, candidates, harmful, harmless, prompt, tokens, **bounds))
        its, theirs = timed(lambda: looped(checkpoint, candidates, ids[0], ids[1], tokens, bounds))
        ratios.append(its / mine)
        print(f"  demur {mine:.1f} s, loop {its:.1f} s, x {its / mine:.2f}", flush=True)
        choices = [one.best and one.best.place for one in (ours, theirs)]
        print(f"  chosen {choices[0]} and {choices[1]}; scores differ at most by {furthest(ours, theirs)}")
        print(f"  dropped {ours.reasons()}")
    if given.out:
        given.out.write_text(json.dumps({"sweep": {"ratios": ratios, "candidates": len(candidates.directions)}}) + "\n")


if __name__ == "__main__":
    main()
