"""Trains and measures the probe of the judge `taxonomy-probe`, which tells deflection from compliance.

    python scripts/train_taxonomy_probe.py --texts FOLDER [--out src/demur/data/taxonomy-probe.safetensors]

The texts are those of `try_trained_judge.py`: those that two readers labelled (draw_completions.py has written FOLDER) and those
that are committed in taxonomy_labels.jsonl. Training and measuring never share an instruction. The development half is measured
by cross-validation, and the texts of each checkpoint by probes that were trained on those of the other two. The check half is
measured by the probe that is written, which was trained on the development half. It takes some minutes.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy
import torch
from measure_readers import HALVES
from safetensors.torch import save_file
from torch import Tensor
from try_trained_judge import DECIDED, Example, crossed, decided, examples, fitted, report, trainable

from demur.engine.checkpoints import load_checkpoint
from demur.engine.model_judges.taxonomy_probe import MODEL, probe_scores, request_shifts

CHECKPOINTS = ("gemma", "parent", "tuned")
STRENGTH, SAID_STRENGTH, FOLDS = 1e-3, 1e-2, 5
"""The strengths of regularisation: of the stream, whose coordinates have the same deviation and together the norm of a hundred
signs, and of the label of `taxonomy`; and the number of parts of the cross-validation."""


class Trained:
    """A probe that was trained on the examples that `taxonomy` and the readers call deflection or compliance."""

    def __init__(self, given: Sequence[Example], shifts: Mapping[Example, Tensor]) -> None:
        self._shifts, used = shifts, trainable(given)
        streams = numpy.stack([shifts[one].flatten().double().numpy() for one in used])
        mean, scale = streams.mean(0), (streams.std(0) + 1e-3) * numpy.sqrt(streams.shape[1] / 100)
        matrix = numpy.column_stack([(streams - mean) / scale, [float(one.said == DECIDED[0]) for one in used]])
        strength = numpy.append(numpy.full(streams.shape[1], STRENGTH), SAID_STRENGTH)
        *weights, said, bias = fitted(matrix, used, strength)
        # Scaling is part of the weights, so the judge needs neither mean nor deviation.
        weights = numpy.array(weights) / scale
        made = {"weights": weights.reshape(shifts[used[0]].shape), "said": [said], "bias": [bias - weights @ mean]}
        self.probe = {name: torch.tensor(numpy.array(value), dtype=torch.float32) for name, value in made.items()}

    def labels(self, given: Sequence[Example]) -> list[str]:
        """The label of each example. See `decided`."""
        streams = torch.stack([self._shifts[one] for one in given])
        return decided(given, probe_scores(self.probe, streams, [one.said for one in given]).tolist())


def main() -> None:
    """Read the command line, print the comparison and write the probe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="the folder that draw_completions.py has written")
    parser.add_argument("--out", type=Path, help="where the probe is written")
    asked = parser.parse_args()
    every = examples(asked.texts)
    checkpoint = load_checkpoint(MODEL, dtype="float32")
    shifts = request_shifts(checkpoint, [(one.instruction, one.text) for one in every])
    of = dict(zip(every, shifts, strict=True))

    def make(given: Sequence[Example]) -> Trained:
        return Trained(given, of)

    development, check = ([one for one in every if one.half == half] for half in HALVES)
    apart = crossed(development, make, FOLDS, "probe")
    report("development half, cross-validation", development, apart)
    for name in CHECKPOINTS:
        left_out, others = ([one for one in every if (one.checkpoint == name) is own] for own in (True, False))
        report(f"both halves, {name}, trained on the other two", left_out, crossed(left_out, make, FOLDS, "probe", others))
    trained = make(development)
    if asked.out is not None:
        save_file(trained.probe, asked.out)
    found = trained.labels(check)
    report("check half", check, found)
    for name in CHECKPOINTS:
        rows = [(one, label) for one, label in zip(check, found, strict=True) if one.checkpoint == name]
        report(f"check half, {name}", *zip(*rows, strict=True))
    held_out = list(zip(development + check, apart + found, strict=True))
    report("both", *zip(*held_out, strict=True))
    read_twice = [(one, label) for one, label in held_out if len(one.labels) > 1]
    report("both, texts that two readers labelled", *zip(*read_twice, strict=True))


if __name__ == "__main__":
    main()
