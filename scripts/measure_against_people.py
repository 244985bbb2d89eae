"""How far do the judges agree with people? Prints kappa, recall and false refusals on completions that people labelled.

The data are the completions of XSTest (Röttger et al. 2024, repository paul-rottger/exaggerated-safety, CC BY 4.0): CSV files,
one a model, with `prompt`, `completion` and the labels of two annotators. They are read where they are and are no part of demur.
A completion counts if both annotators call it a full refusal, or both full compliance; partial refusals and disagreements are
left out (with `--final`, the label that the annotators settled on decides instead).

The general signs of version 4 (`norm_talk`) were tuned on half of the instructions; `taxonomy` is measured on both halves too.
`--without-phrases` switches the phrases of objection off, which were written from these models, so that only general signs find
an objection.

Run: `python scripts/measure_against_people.py [FOLDER or FILE ...] [--final] [--errors] [--without-phrases]`. By default it reads
`../shared/reference/exaggerated-safety`.
"""

import argparse
import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.core.statistics import cohen_kappa, kappa_interval
from demur.judges.judging import judge
from demur.judges.taxonomy import objections

HERE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "exaggerated-safety"
JUDGES = ("taxonomy", "prefix", "substring")
HALVES = ("development half", "check half")


@dataclass(frozen=True)
class Labelled:
    """One completion that people called a full refusal or full compliance."""

    instruction: str
    completion: str
    refusal: bool


@dataclass(frozen=True)
class Agreement:
    """How far one judge agrees with people on the completions of one model.

    Attributes:
        n: completions.
        refusals: how many of them people call full refusals.
        missed: refusals that the judge does not call refusals.
        false: compliance that the judge calls a refusal.
        kappa: Cohen's kappa.
        interval: its 95 % bootstrap interval.
    """

    n: int
    refusals: int
    missed: int
    false: int
    kappa: float
    interval: tuple[float, float]

    @property
    def recall(self) -> float:
        """The share of refusals that the judge finds."""
        return 1 - self.missed / self.refusals


def read(path: Path, *, final: bool = False) -> list[Labelled]:
    """The completions of one file on which people agree.

    Args:
        path: the CSV file.
        final: whether the settled label counts, in place of the agreement of both annotators.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = []
    for row in rows:
        labels = {row["final_label"]} if final else {row["annotation_1"], row["annotation_2"]}
        if labels in ({"1_full_compliance"}, {"2_full_refusal"}):
            found.append(Labelled(row["prompt"], row["completion"], labels == {"2_full_refusal"}))
    return found


def agreement(rows: Sequence[Labelled], name: str, draws: int = 2000) -> Agreement:
    """Compare a judge with the labels.

    Args:
        rows: the labelled completions.
        name: the judge.
        draws: bootstrap draws for the interval.
    """
    truth = [row.refusal for row in rows]
    said = _said(rows, name)
    pairs = list(zip(truth, said, strict=True))
    low, high = kappa_interval(truth, said, draws=draws)
    missed, false = pairs.count((True, False)), pairs.count((False, True))
    return Agreement(len(rows), sum(truth), missed, false, cohen_kappa(truth, said), (low, high))


def half_of(row: Labelled) -> str:
    """The half of the instructions that a completion belongs to, by the hash of its instruction."""
    return HALVES[int(hashlib.sha256(row.instruction.encode()).hexdigest(), 16) % 2]


def _line(what: str, found: Agreement) -> str:
    return (
        f"{what}: kappa {found.kappa:.3f} [{found.interval[0]:.2f}, {found.interval[1]:.2f}], recall "
        f"{found.recall:.3f} ({found.missed} of {found.refusals} missed), {found.false} of {found.n - found.refusals} false"
    )


def _said(rows: Sequence[Labelled], name: str) -> list[bool]:
    verdicts = judge([row.completion for row in rows], name, instructions=[row.instruction for row in rows])
    return [verdict.refusal for verdict in verdicts]


def _files(places: Iterable[Path]) -> list[Path]:
    return [file for place in places for file in (sorted(place.glob("*.csv")) if place.is_dir() else [place])]


def main() -> None:
    """Read the command line and print one line for each model and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="*", type=Path, default=[HERE], help="CSV files, or folders of them")
    parser.add_argument("--final", action="store_true", help="use the settled label; disagreements count then")
    parser.add_argument("--errors", action="store_true", help="show the completions on which taxonomy and people differ")
    parser.add_argument("--without-phrases", action="store_true", help="find objections only by general signs")
    options = parser.parse_args()
    if options.without_phrases:
        objections._objection = lambda *_: None  # no switch in the judge itself: nobody else needs one
    files = _files(options.places)
    if not files or not all(file.is_file() for file in files):
        raise SystemExit(f"no labelled completions at {', '.join(map(str, options.places))}; give CSV files of XSTest")
    for file in files:
        rows = read(file, final=options.final)
        for name in JUDGES:
            print(_line(f"{file.stem}, {name}", agreement(rows, name)))
        for half in HALVES:
            print(_line(f"{file.stem}, taxonomy, {half}", agreement([row for row in rows if half_of(row) == half], "taxonomy")))
        if options.errors:
            for row, said in zip(rows, _said(rows, "taxonomy"), strict=True):
                if row.refusal != said:
                    print(f"  {'missed' if row.refusal else 'false'}: {row.instruction!r} -> {row.completion[:200]!r}")


if __name__ == "__main__":
    main()
