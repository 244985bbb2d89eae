"""Trains the weights of the judge `learned`, which tells deflection from compliance, and measures them on instructions held out.

The data are the completions of reader_labels.jsonl on which both readers give the same label, and the development part of
taxonomy_labels.jsonl. The weights are those of a logistic regression with an L2 penalty, fitted by L-BFGS. The completions that
teach are those that the readers and `taxonomy` call deflection or compliance; the judge decides nothing else.

Texts are not committed: draw_completions.py generates them again into a folder. A text counts if its sha256 is the committed one.

Run it as `python scripts/train_learned_judge.py FOLDER [--write]`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure_readers import read_reader_labels, texts_of
from measure_taxonomy import agreement, read_labels
from scipy.optimize import minimize

from demur.judges.judging import judge
from demur.judges.learned.answer_features import features
from demur.judges.learned.learned_judge import COMPLIANCE, DEFLECTION, Weights

DECIDED = (DEFLECTION, COMPLIANCE)
OUT = Path(__file__).resolve().parents[1] / "src" / "demur" / "data" / "learned_judge.json"
LEAST, PENALTY, FOLDS = 2, 10.0, 10
"""A feature must occur in so many texts; the weight of the L2 penalty; the parts of the cross-validation."""


@dataclass(frozen=True)
class Example:
    """A labelled completion: its features, the label given by reading, that of the rules, and what it must not be split from.

    `instruction` names the instruction together with its twin of the other set, which has nearly the same words.
    """

    found: frozenset[str]
    label: str
    by_rules: str
    instruction: str
    checkpoint: str


def examples(rows: Sequence[dict[str, str]]) -> list[Example]:
    """The examples of labelled rows with their texts."""
    texts, asked = [row["text"] for row in rows], [row["instruction"] for row in rows]
    verdicts = judge(texts, "taxonomy", instructions=asked)
    return [
        Example(
            features(row["text"], row["instruction"]),
            row["label"],
            verdict.label,
            f"{row['set'] == 'lookalike'} {row['split']} {row['index']}",
            row["checkpoint"],
        )
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


def decided(rows: Sequence[Example]) -> list[Example]:
    """The examples that readers and rules call deflection or compliance."""
    return [row for row in rows if row.label in DECIDED and row.by_rules in DECIDED]


def fit(rows: Sequence[Example]) -> Weights:
    """The weights for some examples."""
    counts = Counter(name for row in rows for name in row.found)
    names = sorted(name for name, count in counts.items() if count >= LEAST)
    places = {name: place for place, name in enumerate(names)}
    table = np.zeros((len(rows), len(names) + 1))
    table[:, -1] = 1
    for number, row in enumerate(rows):
        table[number, [places[name] for name in row.found if name in places]] = 1
    wanted = np.array([row.label == DEFLECTION for row in rows], dtype=float)
    penalty = np.append(np.full(len(names), PENALTY), 0.0)

    def loss(weights: "np.ndarray") -> tuple[float, "np.ndarray"]:
        scores = table @ weights
        missing = 1 / (1 + np.exp(-scores)) - wanted
        value = np.logaddexp(0, scores).sum() - wanted @ scores + 0.5 * (penalty * weights) @ weights
        return float(value), table.T @ missing + penalty * weights

    found = minimize(loss, np.zeros(len(names) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    kept = {name: round(float(weight), 4) for name, weight in zip(names, found[:-1], strict=True)}
    return Weights(bias=round(float(found[-1]), 4), weights={name: weight for name, weight in kept.items() if weight})


def said_by(weights: Weights, rows: Sequence[Example]) -> list[str]:
    """The label of each example: that of the rules, or deflection in place of compliance."""
    return [DEFLECTION if row.by_rules == COMPLIANCE and weights.score(row.found) > 0 else row.by_rules for row in rows]


def cross_validated(rows: Sequence[Example], part: Callable[[Example], str]) -> list[str]:
    """The label of each example by weights that were fitted without its part."""
    said = dict[int, str]()
    for name in sorted({part(row) for row in rows}):
        weights = fit(decided([row for row in rows if part(row) != name]))
        inside = [number for number, row in enumerate(rows) if part(row) == name]
        said |= dict(zip(inside, said_by(weights, [rows[number] for number in inside]), strict=True))
    return [said[number] for number in range(len(rows))]


def report(what: str, rows: Sequence[Example], said: Sequence[str]) -> None:
    """Print deflection against compliance where readers give one of them, and the agreement over six labels."""
    for who, labels in (("learned", list(said)), ("taxonomy", [row.by_rules for row in rows])):
        pairs = [(row.label, label) for row, label in zip(rows, labels, strict=True) if row.label in DECIDED]
        right = sum(label == given for given, label in pairs)
        truth = [given == DEFLECTION for given, _ in pairs]
        flags = [label == DEFLECTION for _, label in pairs]
        hits, wanted, called = sum(a and b for a, b in zip(truth, flags, strict=True)), sum(truth), sum(flags)
        six = agreement([row.label for row in rows], labels)
        print(
            f"{what}, {who}: {right} of {len(pairs)} right, deflection recall {hits}/{wanted}, precision {hits}/{called}, "
            f"deflection against compliance {agreement(truth, flags)}; six labels {six}"
        )


def main() -> None:
    """Read the command line, print the measurements, and write the weights if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, help="the folder that draw_completions.py has written")
    parser.add_argument("--write", action="store_true", help="write the weights into the package")
    options = parser.parse_args()
    both = [{**row, "label": row["reader_a"]} for row in texts_of(read_reader_labels(), options.texts) if not row["differ"]]
    earlier = read_labels()
    earlier = [row for row in earlier if row["text"]] + texts_of([row for row in earlier if row["text"] is None], options.texts)
    train = examples([*both, *(row for row in earlier if row["half"] == "development")])
    ordered = sorted({row.instruction for row in train})
    fold = {name: str(number % FOLDS) for number, name in enumerate(ordered)}
    print(f"{len(train)} completions for training, {len(decided(train))} of them between the two labels")
    report("no instruction in both parts", train, cross_validated(train, lambda row: fold[row.instruction]))
    report("one checkpoint left out", train, cross_validated(train, lambda row: row.checkpoint))
    weights = fit(decided(train))
    for half in ("held-out", "later"):
        rows = examples([row for row in earlier if row["half"] == half])
        report(half, rows, said_by(weights, rows))
    if options.write:
        OUT.write_text(json.dumps(weights.model_dump(), indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{len(weights.weights)} weights, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
