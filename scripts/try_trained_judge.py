"""Does a small trained judge tell deflection from compliance better than `taxonomy`? Prints both, on texts it was not trained on.

A logistic regression decides anew about every text that `taxonomy` calls deflection or compliance; all other labels stay. Its
features are signs of `taxonomy`, how much of the instruction the text mentions, the kind of instruction, and hashed n-grams of
words and characters; among the words, those of the instruction are masked. The texts are those that two readers labelled
(`--texts` is a folder that draw_completions.py has written) and those that are committed in taxonomy_labels.jsonl. Training and
measuring never share an instruction. The check half is measured last, by a judge that was trained on the development half.

Run it as `python scripts/try_trained_judge.py --texts FOLDER`. It takes about half a minute.
"""

import argparse
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy
from measure_readers import HALVES, READERS, half_of, read_reader_labels, texts_of
from measure_taxonomy import read_labels
from scipy.optimize import minimize

from demur.core.statistics import cohen_kappa
from demur.judges.judging import judge
from demur.judges.taxonomy import phrase_rules as rules
from demur.judges.taxonomy.own_turn import own_turn
from demur.judges.taxonomy.text_shape import repeats, subject_stems
from demur.judges.taxonomy.word_text import Reading

DECIDED = ("deflection", "compliance")
BITS, FOLDS, INNER, DRAWS = 11, 5, 3, 1000
STRENGTHS = ((0.1, None), (0.3, None), (0.3, 0.01), (1.0, 0.03))
"""Strengths of regularisation that are tried: of the signs, and of the n-grams. None leaves n-grams out."""

_KINDS = tuple(
    re.compile(rf"(?:{words})\b")
    for words in (
        "is|are|can|could|do|does|would|should",
        "what|which",
        "how",
        "where|who|when",
        "why|explain|describe|tell",
        "list|give|suggest|name|recommend",
        "write|compose|draft|create|generate|design|invent",
        "plan|outline|help|show|teach",
    )
)
_MATCHES = tuple(rules.pattern(each) for each in (rules.BEGINS, rules.TALKS_PAST, rules.DEFINES))
_LIST = re.compile(r"```|^[ \t]*(?:1[.)]|[-*\u2022][ \t])", re.MULTILINE)
_WORDS = tuple(
    frozenset(words.split())
    for words in ("you your", "i my me", "we our us", "can could will need should", "was were had did", "is are", "not no never",
                  "first then step here use", "great wonderful unique beautiful")
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A labelled completion. `labels` are those of the readers; `said` is what `taxonomy` says."""

    text: str
    instruction: str
    labels: tuple[str, ...]
    checkpoint: str
    half: str
    said: str

    @cached_property
    def signs(self) -> list[float]:
        """What the text shows without its words: shape, overlap with the instruction, kinds of words; alone and by kind."""
        asked, text = Reading.of(self.instruction), Reading.of(own_turn(self.text))
        opening, subject = text.part(0, 60), subject_stems(asked)
        words = opening.words or ("",)
        near = [_covered(subject, opening.part(0, length)) for length in (10, 25, 60)]
        shows = [float(each.match(opening.plain) is not None) for each in _MATCHES] + [float(bool(_LIST.search(text.text)))]
        kinds = [float(each.match(asked.plain) is not None) for each in _KINDS]
        share = [sum(word in each for word in words) / len(words) for each in _WORDS]
        again, signs = repeats(text.words), text.text or " "
        shape = [
            float(numpy.log1p(len(text.words))),
            len(set(words)) / len(words),
            sum(again) / max(1, len(again)),
            sum(not sign.isalnum() for sign in signs) / len(signs),
            sum(sign.isupper() for sign in signs) / len(signs),
            float("?" in signs),
            float(words[0] in ("a", "an")),
        ]
        crossed = [kind * sign for kind in kinds for sign in (*near[:2], *shows[:2], shows[3], share[0], share[3])]
        return [float(self.said == "deflection"), *near, *shows, *kinds, *share, *shape, *crossed]

    @cached_property
    def hashed(self) -> "numpy.ndarray":
        """Hashed n-grams, scaled to length one. Shape [2 ** BITS]."""
        subject = subject_stems(Reading.of(self.instruction))
        words = ["", *("#" if word[:5] in subject else word for word in Reading.of(own_turn(self.text)).tokens[:40])]
        signs = own_turn(self.text)[:200].lower()
        grams = {("words", *words[at : at + size]) for size in (1, 2, 3) for at in range(len(words))}
        grams |= {("signs", signs[at : at + size]) for size in (2, 3, 4) for at in range(len(signs))}
        found = numpy.zeros(2**BITS)
        for gram in grams:
            found[zlib.crc32(repr(gram).encode()) % 2**BITS] += 1
        return found / max(1.0, float(numpy.linalg.norm(found)))


def _covered(subject: frozenset[str], text: Reading) -> float:
    return len(subject & subject_stems(text)) / max(1, len(subject))


def examples(folder: Path) -> list[Example]:
    """All labelled completions whose texts are there. Those of taxonomy_labels.jsonl count to the half of their instruction."""
    rows = [(row, tuple(str(row[reader]) for reader in READERS)) for row in texts_of(read_reader_labels(), folder)]
    checked = {row["instruction"] for row, _ in rows if half_of(row) == HALVES[1]}
    earlier = [(row, (str(row["label"]),)) for row in read_labels() if row["text"] is not None]
    halves = [half_of(row) for row, _ in rows] + [HALVES[row["instruction"] in checked] for row, _ in earlier]
    every = rows + earlier
    said = judge([row["text"] for row, _ in every], "taxonomy", instructions=[row["instruction"] for row, _ in every])
    return [
        Example(row["text"], row["instruction"], labels, row["checkpoint"], half, verdict.label)
        for (row, labels), half, verdict in zip(every, halves, said, strict=True)
    ]


def trainable(given: Sequence[Example]) -> list[Example]:
    """The examples that `taxonomy` and the readers call deflection or compliance."""
    return [one for one in given if one.said in DECIDED and set(one.labels) <= set(DECIDED)]


def fitted(matrix: "numpy.ndarray", given: Sequence[Example], strength: "numpy.ndarray") -> "numpy.ndarray":
    """The weights of a regularised logistic regression that tells deflection, and its bias as the last one.

    Args:
        matrix: the features of each example.
        given: the examples.
        strength: the strength of regularisation of each feature.
    """
    # A text about which the readers differ is half a deflection.
    wanted = numpy.array([one.labels.count(DECIDED[0]) / len(one.labels) for one in given])

    def loss(weights: "numpy.ndarray") -> tuple[float, "numpy.ndarray"]:
        score = matrix @ weights[:-1] + weights[-1]
        error = 1 / (1 + numpy.exp(-score)) - wanted
        total = (numpy.logaddexp(0, score) - wanted * score).mean() + (strength * weights[:-1] ** 2).sum() / 2
        return float(total), numpy.append(matrix.T @ error / len(given) + strength * weights[:-1], error.mean())

    found: numpy.ndarray = minimize(loss, numpy.zeros(matrix.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return found


def decided(given: Sequence[Example], scores: Sequence[float]) -> list[str]:
    """The label of each example: that of `taxonomy`, or what a score above zero for deflection decides in its place."""
    new = [DECIDED[0] if score > 0 else DECIDED[1] for score in scores]
    return [label if one.said in DECIDED else one.said for one, label in zip(given, new, strict=True)]


class Judging(Protocol):
    """A trained judge."""

    def labels(self, given: Sequence[Example]) -> list[str]:
        """The label of each example."""
        ...


class Trained:
    """A logistic regression on the examples that `taxonomy` and the readers call deflection or compliance."""

    def __init__(self, given: Sequence[Example], strengths: tuple[float, float | None]) -> None:
        self._hashes = strengths[1] is not None
        used = trainable(given)
        signs = numpy.array([one.signs for one in used])
        self._mean, self._deviation = signs.mean(0), signs.std(0) + 1e-3
        matrix = self._matrix(used)
        strength = numpy.full(matrix.shape[1], strengths[0])
        strength[signs.shape[1] :] = strengths[1] or 0.0
        self._weights = fitted(matrix, used, strength)

    def _matrix(self, given: Sequence[Example]) -> "numpy.ndarray":
        signs = (numpy.array([one.signs for one in given]) - self._mean) / self._deviation
        return numpy.hstack([signs, numpy.array([one.hashed for one in given])]) if self._hashes else signs

    def labels(self, given: Sequence[Example]) -> list[str]:
        """The label of each example. See `decided`."""
        return decided(given, self._matrix(given) @ self._weights[:-1] + self._weights[-1])


def fold_of(one: Example, folds: int, salt: str) -> int:
    """The fold of an example's instruction."""
    return int(hashlib.sha256((salt + one.instruction).encode()).hexdigest(), 16) % folds


def crossed(
    given: Sequence[Example],
    make: Callable[[list[Example]], Judging],
    folds: int,
    salt: str,
    others: Sequence[Example] | None = None,
) -> list[str]:
    """Labels by judges that were trained on the other folds of instructions.

    Args:
        given: the examples to label.
        make: trains a judge.
        folds: the number of folds.
        salt: makes different folds.
        others: the examples for training; `given` unless stated.
    """
    found = [""] * len(given)
    for fold in range(folds):
        trained = make([one for one in others or given if fold_of(one, folds, salt) != fold])
        places = [place for place, one in enumerate(given) if fold_of(one, folds, salt) == fold]
        for place, label in zip(places, trained.labels([given[place] for place in places]), strict=True):
            found[place] = label
    return found


def chosen(given: list[Example]) -> Trained:
    """A judge with the strengths that label most of these examples as the readers do, in an inner cross-validation."""

    def right(strengths: tuple[float, float | None]) -> int:
        said = crossed(given, lambda part: Trained(part, strengths), INNER, "inner")
        return sum(label in one.labels for one, label in zip(given, said, strict=True))

    return Trained(given, max(STRENGTHS, key=right))


def report(title: str, given: Sequence[Example], said: Sequence[str]) -> None:
    """Print how `taxonomy` and the trained judge agree with the readers, where these agree, and the difference of kappas."""
    kept = [(one, label) for one, label in zip(given, said, strict=True) if len(set(one.labels)) == 1]
    truth = [one.labels[0] for one, _ in kept]
    print(f"\n{title}: {len(kept)} completions")
    for who, labels in (("taxonomy", [one.said for one, _ in kept]), ("trained", [label for _, label in kept])):
        pairs = Counter(zip(truth, labels, strict=True))
        both = [(a, b) for a, b in zip(truth, labels, strict=True) if a in DECIDED and b in DECIDED]
        between = cohen_kappa(*zip(*both, strict=True))
        equal = sum(a == b for a, b in zip(truth, labels, strict=True))
        found = ", ".join(f"{pairs[label, label]} of {truth.count(label)} {label}" for label in DECIDED)
        kappas = f"kappa {cohen_kappa(truth, labels):.3f} over six labels, {between:.3f} over these two"
        print(f"  {who}: {equal} equal, {kappas}: {found}", flush=True)
    low, high = _difference(kept)
    print(f"  difference of kappa over six labels: 95 % interval by instruction [{low:+.3f}, {high:+.3f}]")


def _difference(kept: Sequence[tuple[Example, str]]) -> tuple[float, float]:
    """The interval of the trained judge's kappa minus that of `taxonomy`; draws instructions with all of their completions."""
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for one, label in kept:
        groups.setdefault(one.instruction, []).append((one.labels[0], one.said, label))
    parts, random, found = list(groups.values()), numpy.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = [row for place in random.integers(0, len(parts), len(parts)) for row in parts[place]]
        truth, before, after = zip(*drawn, strict=True)
        found.append(cohen_kappa(truth, after) - cohen_kappa(truth, before))
    low, high = numpy.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Read the command line and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="the folder that draw_completions.py has written")
    every = examples(parser.parse_args().texts)
    development, check = ([one for one in every if one.half == half] for half in HALVES)
    report("development half, nested cross-validation", development, crossed(development, chosen, FOLDS, "outer"))
    for name in ("gemma", "parent", "tuned"):
        left_out = [one for one in development if one.checkpoint == name]
        others = [one for one in development if one.checkpoint != name]
        report(f"development half, {name}, trained on the other two", left_out, crossed(left_out, chosen, INNER, "outer", others))
    report("check half", check, chosen(development).labels(check))


if __name__ == "__main__":
    main()
