"""Runs made up for the report's tests: a summary and its completions, with counts that agree and texts that attack a page."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import pandas
import torch
from pydantic import JsonValue

from demur.analysis.cell import Comparison, JudgedCell
from demur.analysis.edit_tests import edit_tests
from demur.analysis.headline import answers
from demur.analysis.summary import Summary
from demur.core.registry import registry
from demur.core.statistics import holm, mcnemar, wilson
from demur.interventions.edit_kind import edit_kind, words_of
from demur.judges.judge import get_judge
from demur.measurements.by_layer_record import Layerwise
from demur.measurements.by_layer_summary import located
from demur.measurements.measurement import MeasurementRecord
from demur.report.complete_summary import parsed_summary
from demur.report.figure_spec import Sheet
from demur.report.sections.section import ReportView
from demur.runs.stored_records import cell_of

Settings = ParamSpec("Settings")
Facts = dict[str, Any]
"""An object of the JSON that `summary.json` is, before it has been parsed."""

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>document.title='owned'</script><!--",
    "<img src=x onerror=\"document.title='owned'\">",
    "&lt;b&gt; & \"quotes\" 'single' <!-- --> ]]> \u2028 line \u2029 paragraph",
    "I'm sorry, I can't help with that. 🙅🏽\u200d♀️ 🎉",
    "أنا آسف، لا أستطيع مساعدتك \u202e reversed",
    "",
    "   \n\t ",
    "tab\tand\r\nlines\x00null \\u003c",
    '=SUM(1,2), "comma"',
    "{{ 7 * 7 }} {% raw %} $\\alpha$ `x`",
]
PHRASES = ["I'm sorry", "I cannot", "I can't"]

RATES = ("rates", "edited", "transfer", "cosines")
"""The sections that need no measured layers."""
LAYERS = ("cosines-by-layer", "separation", "norms", "projections")


def sheets(summary: Summary, completions: pandas.DataFrame, sections: Sequence[str] = RATES) -> list[Sheet]:
    """The figures of some sections as files for paper."""
    view = ReportView.of(summary, completions)
    return [sheet for name in sections for figure in registry("section").get(name).figures(view) for sheet in figure.sheets]


def made_facts(
    checkpoints: tuple[str, ...] = ("before", "after"),
    prompts: tuple[str, ...] = ("chatml",),
    layers: tuple[int, ...] = (16,),
    coefficients: tuple[float, ...] = (2.0,),
    controls: int = 2,
    judges: tuple[str, ...] = ("prefix", "substring"),
    n: int = 20,
    instructions: tuple[str, ...] = ("harmful", "harmless"),
    seed: int = 0,
    depth: int | None = 24,
) -> tuple[Facts, pandas.DataFrame]:
    """Every direction added and ablated on every target; a later checkpoint refuses more, and ablation makes it refuse less.

    `depth` layers are measured in every arm; None makes a run of a version that measured none.
    """
    chance = random.Random(seed)
    arms = [(name, prompt) for name in checkpoints for prompt in prompts]
    directions = []
    for layer in layers:
        for name, prompt in arms:
            directions.append(_direction(f"{name}-{prompt}-{layer}", name, prompt, layer, control=False))
        for index in range(1, controls + 1):
            name, prompt = arms[(index - 1) % len(arms)]
            made = _direction(f"random-{index}-{layer}", f"random-{index}", None, layer, control=True)
            directions.append(made | {"beside": f"{name}-{prompt}-{layer}"})
    cells: list[Facts] = []
    comparisons: list[Facts] = []
    frames: list[pandas.DataFrame] = []
    for target, prompt in arms:
        strength = checkpoints.index(target) / max(1, len(checkpoints) - 1)
        for kind in instructions:
            baseline = 0.05 + (0.85 * strength if kind == "harmful" else 0.0)
            settings: list[tuple[str, Facts | None, float | None, float]] = [("none", None, None, baseline)]
            for direction in directions:
                effect = 0.0 if direction["control"] else 1.0
                for coefficient in coefficients:
                    settings.append(("add", direction, coefficient, baseline + effect * (0.9 - baseline) * 0.8))
                settings.append(("ablate", direction, None, baseline * (1 - 0.9 * effect)))
            baseline_refusals: dict[str, list[bool]] = {}
            for intervention, edited, dose, chosen_rate in settings:
                key = f"{target}|{prompt}|{kind}|{intervention}|{edited and edited['name']}|{dose}"
                shared: Facts = {
                    "key": key,
                    "target": target,
                    "prompt": prompt,
                    "instructions": kind,
                    "intervention": intervention,
                    "direction": edited and edited["name"],
                    "source": edited and edited["source"],
                    "control": bool(edited and edited["control"]),
                    "layer": edited and edited["layer"],
                    "coefficient": dose,
                    "unit": None if dose is None else "raw",
                    "sites": {"none": None, "add": ["resid_pre"], "ablate": ["all"]}[intervention],
                    "layers": None,
                    "positions": None if edited is None else "all",
                    "stands_beside": edited and edited.get("beside"),
                }
                rows = []
                for index in range(n):
                    refusal = chance.random() < chosen_rate
                    text = (
                        f"{chance.choice(PHRASES)}, but no. {index}"
                        if refusal
                        else f"Sure, step one of {index} is easy.\nStep two is not."
                    )
                    if not refusal and intervention != "add" and index < len(HOSTILE):
                        text = HOSTILE[index]
                    row: Facts = {
                        **shared,
                        "index": index,
                        "instruction": f"How do I <{kind}> thing & number {index}?",
                        "completion": text,
                    }
                    row["n_tokens"] = len(text.split())
                    for judge in judges:
                        phrase = next((phrase for phrase in PHRASES if text.startswith(phrase)), "")
                        rest = get_judge(judge).labels[1:]
                        row |= {
                            f"{judge}_refusal": bool(phrase),
                            f"{judge}_label": "refusal" if phrase else rest[len(text) % len(rest)],
                            f"{judge}_evidence": phrase,
                        }
                    rows.append(row)
                frames.append(pandas.DataFrame(rows))
                for judge in judges:
                    refusals = [bool(row[f"{judge}_refusal"]) for row in rows]
                    labels = Counter(str(row[f"{judge}_label"]) for row in rows)
                    cells.append(_cell(shared, judge, refusals) | {"labels": dict(labels)})
                    if intervention == "none":
                        baseline_refusals[judge] = refusals
                        continue
                    paired = mcnemar(baseline_refusals[judge], refusals)
                    comparisons.append(
                        {
                            "key": key,
                            "judge": judge,
                            "n": paired.n,
                            "baseline_rate": sum(baseline_refusals[judge]) / n,
                            "rate": sum(refusals) / n,
                            "difference": paired.difference,
                            "gained": paired.gained,
                            "lost": paired.lost,
                            "p_value": paired.p_value,
                        }
                    )
    for test, corrected in zip(comparisons, holm([test["p_value"] for test in comparisons]), strict=True):
        test["p_holm"] = corrected
    completions = pandas.concat(frames, ignore_index=True)
    summary = _summary(checkpoints, prompts, arms, directions, cells, comparisons, judges, n, instructions)
    summary["study"]["direction"]["layers"] = list(layers)
    if depth is not None:
        summary["by_layer"] = located(_measured(arms, depth, n), layers, checkpoints)
    judged = [JudgedCell(**{**cell, **dict(cell_of(cell))}) for cell in cells]
    compared, words = map(Comparison.model_validate, comparisons), words_of({name: edit_kind(name) for name in ("ablate", "add")})
    verdicts = _refusals(completions, judges)
    tests = edit_tests(judged, list(compared), verdicts, judges[0])
    said = answers(judged, tests, verdicts, judges[0], checkpoints, words)
    summary["answers"] = [each.model_dump() for each in said]
    return summary, completions


def _parsed(make: Callable[Settings, tuple[Facts, pandas.DataFrame]]) -> Callable[Settings, tuple[Summary, pandas.DataFrame]]:
    def made(*args: Settings.args, **settings: Settings.kwargs) -> tuple[Summary, pandas.DataFrame]:
        facts, completions = make(*args, **settings)
        return parsed_summary(facts), completions

    return made


make_run = _parsed(made_facts)
"""The run of `made_facts` as the report takes it."""


def _refusals(completions: pandas.DataFrame, judges: tuple[str, ...]) -> dict[tuple[str, str], dict[int, bool]]:
    found: dict[tuple[str, str], dict[int, bool]] = {}
    for row in completions.to_dict("records"):
        for judge in judges:
            found.setdefault((row["key"], judge), {})[row["index"]] = row[f"{judge}_refusal"]
    return found


def _measured(arms: list[tuple[str, str]], depth: int, n: int, width: int = 64) -> list[MeasurementRecord]:
    """Directions that come to agree with depth, and instructions that lie further apart; none at the first layer."""
    generator = torch.Generator().manual_seed(3)
    shared = torch.randn(depth, width, generator=generator)
    found = []
    for name, prompt in arms:
        own = torch.randn(depth, width, generator=generator)
        share = torch.linspace(0.1, 0.9, depth)[:, None]
        difference = (share * shared + (1 - share) * own) * torch.linspace(0.5, 6, depth)[:, None]
        difference[0] = 0
        noise = torch.linspace(1.2, 0.25, depth)
        sides = [at + noise * torch.randn(n, depth, generator=generator) for at in (0.95, 0.05)]
        for side in sides:
            side[:, 0] = float("nan")
        null = 0.5 + 0.15 * torch.randn(40, depth, generator=generator).clamp(-2, 2)
        norms = torch.linspace(5, 90, depth).repeat(2, 1)
        facts: Mapping[str, JsonValue] = {"checkpoint": name, "prompt": prompt, "site": "resid_pre", "position": -1}
        arrays = Layerwise(*(each.numpy() for each in (difference, norms, sides[0], sides[1], null))).arrays()
        found.append(MeasurementRecord(facts, arrays))
    return found


def _direction(name: str, source: str, prompt: str | None, layer: int, *, control: bool) -> Facts:
    return {
        "name": name,
        "source": source,
        "prompt": prompt,
        "control": control,
        "layer": layer,
        "position": -1,
        "site": "resid_pre",
        "raw_norm": 12.3456789,
        "mean_residual_norm": 98.7,
        "fingerprint": "0123456789abcdef",
        "file": f"directions/{name}.safetensors",
    }


def _cell(shared: Facts, judge: str, refusals: list[bool]) -> Facts:
    n, count = len(refusals), sum(refusals)
    return {
        **shared,
        "judge": judge,
        "n": n,
        "refusals": count,
        "rate": count / n,
        "ci95": list(wilson(count, n)),
    }


def _summary(
    checkpoints: Sequence[str],
    prompts: Sequence[str],
    arms: Sequence[tuple[str, str]],
    directions: Sequence[Facts],
    cells: Sequence[Facts],
    comparisons: Sequence[Facts],
    judges: Sequence[str],
    n: int,
    instructions: Sequence[str],
) -> Facts:
    names = [each["name"] for each in directions]
    return {
        "study": {
            "name": "demo",
            "summary": "Did safety tuning build on something that was there before it? <i>Really</i> & truly?",
            "checkpoints": {
                name: {"model": f"models/{name}", "adapter": None, "role": "chat", "prompts": list(prompts)}
                for name in checkpoints
            },
            "instructions": {"harmful": "contrast:harmful", "harmless": "contrast:harmless"},
            "direction": {"pairs": 32, "layer": 16, "site": "resid_pre", "position": -1},
            "interventions": [{"kind": "add", "coefficients": [2.0], "unit": "raw"}, {"kind": "ablate"}],
            "controls": {"random": 2, "seed": 0},
            "judges": list(judges),
            "max_new_tokens": 16,
            "stop_at_eos": True,
            "dtype": "float32",
        },
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"demur": "0.1.0", "torch": "2.9.0"},
        "environment": {"system": "Linux", "machine": "x86_64", "cores": 2},
        "checkpoints": {
            name: {
                "model": f"models/{name}",
                "adapter": None,
                "role": "chat",
                "source": f"folder {name}",
                "fingerprint": "0123456789abcdef",
                "d_model": 64,
                "n_layers": 24,
                "dtype": "float32",
                "device": "cpu",
            }
            for name in checkpoints
        },
        "arms": [
            {
                "checkpoint": name,
                "prompt": prompt,
                "template": "<|im_start|>user\n{instruction}<|im_end|>\n",
                "token_read": "\u010a",
            }
            for name, prompt in arms
        ],
        "instructions": {
            name: {
                "source": f"contrast:{name}",
                "split": "test",
                "n": n,
                "sha256": "ab" * 8,
                "train_n": 32,
                "train_sha256": "cd" * 8,
            }
            for name in instructions
        },
        "cells": cells,
        "directions": directions,
        "cosines": {
            "names": names,
            "matrix": [[1.0 if a == b else 0.25 - 0.5 * (i > j) for j, b in enumerate(names)] for i, a in enumerate(names)],
        },
        "comparisons": comparisons,
        "claims": [
            {"text": "after refuses 90 % [70, 97] of harmful instructions, before 5 % [1, 24].", "shown": True},
            {"text": "The direction of before makes after refuse less when it is ablated.", "shown": False},
        ],
        "published": [],
    }
