"""Trains and measures the probe of the judge `taxonomy-probe`, which tells deflection from compliance.

    python scripts/train_taxonomy_probe.py --texts FOLDER [--out src/demur/data/taxonomy-probe.safetensors]

The texts are those of `try_trained_judge.py`: those that two readers labelled (draw_completions.py has written FOLDER) and those
that are committed in taxonomy_labels.jsonl. Training and measuring never share an instruction. The development half is measured
by cross-validation, and the texts of each checkpoint by probes that were trained on those of the other two. The check half is
measured by the probe that is written, which was trained on the development half. It takes some minutes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from measure_readers import HALVES
from safetensors.torch import save_file
from scipy.optimize import minimize
from torch import Tensor
from try_trained_judge import DECIDED, Example, examples, fold_of, report

from demur.engine.checkpoints import load_checkpoint
from demur.engine.model_judges.taxonomy_probe import MODEL, probe_scores, request_shifts

CHECKPOINTS = ("gemma", "parent", "tuned")
STRENGTH, SAID_STRENGTH, FOLDS = 1e-3, 1e-2, 5
"""The strengths of regularisation: of the stream, whose coordinates have the same deviation and together the norm of a hundred
signs, and of the label of `taxonomy`; and the number of parts of the cross-validation."""


def trained(given: Sequence[tuple[Example, Tensor]]) -> dict[str, Tensor]:
    """A logistic regression on the texts that `taxonomy` and the readers call deflection or compliance."""
    used = [(one, shift) for one, shift in given if one.said in DECIDED and set(one.labels) <= set(DECIDED)]
    shifts = numpy.stack([shift.flatten().double().numpy() for _, shift in used])
    mean, scale = shifts.mean(0), (shifts.std(0) + 1e-3) * numpy.sqrt(shifts.shape[1] / 100)
    said = numpy.array([float(one.said == DECIDED[0]) for one, _ in used])
    matrix = numpy.column_stack([(shifts - mean) / scale, said])
    # A text about which the readers differ is half a deflection.
    wanted = numpy.array([one.labels.count(DECIDED[0]) / len(one.labels) for one, _ in used])
    strength = numpy.append(numpy.full(shifts.shape[1], STRENGTH), SAID_STRENGTH)

    def loss(weights: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        score = matrix @ weights[:-1] + weights[-1]
        error = 1 / (1 + numpy.exp(-score)) - wanted
        total = (numpy.logaddexp(0, score) - wanted * score).mean() + (strength * weights[:-1] ** 2).sum() / 2
        return float(total), numpy.append(matrix.T @ error / len(used) + strength * weights[:-1], error.mean())

    start = numpy.zeros(matrix.shape[1] + 1)
    *weights, said_weight, bias = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    weights = numpy.array(weights) / scale
    # Scaling is part of the weights, so the judge needs neither mean nor deviation.
    made = {"weights": weights.reshape(used[0][1].shape), "said": [said_weight], "bias": [bias - weights @ mean]}
    return {name: torch.tensor(numpy.array(value), dtype=torch.float32) for name, value in made.items()}


def labels(probe: dict[str, Tensor], given: Sequence[tuple[Example, Tensor]]) -> list[str]:
    """The label of each text: that of `taxonomy`, or what the probe decides between deflection and compliance."""
    scores = probe_scores(probe, torch.stack([shift for _, shift in given]), [one.said for one, _ in given])
    decided = [DECIDED[0] if score > 0 else DECIDED[1] for score in scores.tolist()]
    return [new if one.said in DECIDED else one.said for (one, _), new in zip(given, decided, strict=True)]


def crossed(given: Sequence[tuple[Example, Tensor]], others: Sequence[tuple[Example, Tensor]] | None = None) -> list[str]:
    """Labels by probes that were trained on the other folds of instructions; on the texts of `others` if they are stated."""
    found = [""] * len(given)
    for fold in range(FOLDS):
        probe = trained([row for row in others or given if fold_of(row[0], FOLDS, "probe") != fold])
        places = [place for place, row in enumerate(given) if fold_of(row[0], FOLDS, "probe") == fold]
        for place, label in zip(places, labels(probe, [given[place] for place in places]), strict=True):
            found[place] = label
    return found


def main() -> None:
    """Read the command line, print the comparison and write the probe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="the folder that draw_completions.py has written")
    parser.add_argument("--out", type=Path, help="where the probe is written")
    asked = parser.parse_args()
    every = examples(asked.texts)
    checkpoint = load_checkpoint(MODEL, dtype="float32")
    shifts = request_shifts(checkpoint, [(one.instruction, one.text) for one in every])
    both = list(zip(every, shifts, strict=True))
    development, check = ([row for row in both if row[0].half == half] for half in HALVES)
    apart = crossed(development)
    report("development half, cross-validation", [one for one, _ in development], apart)
    for name in CHECKPOINTS:
        left_out = [row for row in both if row[0].checkpoint == name]
        others = [row for row in both if row[0].checkpoint != name]
        report(f"both halves, {name}, trained on the other two", [one for one, _ in left_out], crossed(left_out, others))
    probe = trained(development)
    if asked.out is not None:
        save_file(probe, asked.out)
    found = labels(probe, check)
    report("check half", [one for one, _ in check], found)
    for name in CHECKPOINTS:
        rows = [(one, label) for (one, _), label in zip(check, found, strict=True) if one.checkpoint == name]
        report(f"check half, {name}", *zip(*rows, strict=True))
    held_out = list(zip([one for one, _ in development + check], apart + found, strict=True))
    report("both", *zip(*held_out, strict=True))
    read_twice = [(one, label) for one, label in held_out if len(one.labels) > 1]
    report("both, texts that two readers labelled", *zip(*read_twice, strict=True))


if __name__ == "__main__":
    main()
