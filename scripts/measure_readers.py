"""Measures how far two independent readers agree with each other, and the judge `taxonomy` with each of them.

reader_labels.jsonl in this folder has the labels that both readers gave to the completions of draw_completions.py. It has no
texts, only their sha256. `--texts FOLDER` is a folder that draw_completions.py has written; with it, the judge is measured too.
A text whose sha256 is not that of a labelled text is left out, and the script says how many are left.

Run it as `python scripts/measure_readers.py [--texts FOLDER] [--errors]`.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure_taxonomy import print_confusion

from demur.core.agreement import weighted_kappa
from demur.core.statistics import cohen_kappa
from demur.inputs.instructions import load_instructions
from demur.judges.judging import judge

LABELLED = Path(__file__).with_name("reader_labels.jsonl")
READERS = ("reader_a", "reader_b")
CHECKPOINTS = ("gemma", "parent", "tuned")
HALVES = ("development half", "check half")
DRAWS = 5000

Row = dict[str, Any]


def read_reader_labels(path: Path = LABELLED) -> list[Row]:
    """The labelled completions with both labels, in the order in which the readers got them."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def instruction_of(row: Row) -> tuple[str, str, int]:
    """The place of a completion's instruction: set, split and index."""
    return row["set"], row["split"], row["index"]


def texts_of(rows: Sequence[Row], folder: Path) -> list[Row]:
    """The rows whose texts are in the folder, with text and instruction. Says how many there are.

    Args:
        rows: labelled completions with their sha256.
        folder: a folder that draw_completions.py has written.
    """
    lines = [json.loads(line) for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {hashlib.sha256(line["completion"].encode()).hexdigest(): line["completion"] for line in lines}
    found = list[Row]()
    for row in rows:
        if row["sha256"] in texts:
            name, split, index = instruction_of(row)
            asked = load_instructions(f"contrast-{name}").take(split)[index]
            found.append({**row, "text": texts[row["sha256"]], "instruction": asked})
    print(f"\n{len(found)} of {len(rows)} texts are those that were labelled")
    return found


def half_of(row: Row) -> str:
    """The half of the instructions that a completion belongs to, by the hash of its instruction.

    The signs of version 5 of `taxonomy` were written from the development half. Nobody read texts of the check half for them.
    """
    return HALVES[hashlib.sha256(row["instruction"].encode()).digest()[0] % 2]


def interval_by_instruction(rows: Sequence[Row], first: Sequence[Any], second: Sequence[Any]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of kappa that draws instructions, each with all of its completions.

    Args:
        rows: the completions. Those of one instruction are not independent of each other.
        first: a label of each row, by one labeller.
        second: the labels of the other.
    """
    labels = sorted({*first, *second})
    found = weighted_kappa.agreement(first, second, labels, list(map(instruction_of, rows)), draws=DRAWS)
    assert found.interval is not None
    return found.interval


def agreement(rows: Sequence[Row], first: Sequence[Any], second: Sequence[Any]) -> str:
    """Kappa and its interval by instruction, as text. Without any disagreement there is no interval."""
    if len({*first}) == 1 or len({*second}) == 1:
        return "not defined, one label only"
    kappa = f"{cohen_kappa(first, second):.3f}"
    if list(first) == list(second):
        return kappa
    low, high = interval_by_instruction(rows, first, second)
    return f"{kappa} [{low:.2f}, {high:.2f}]"


def agreement_line(rows: Sequence[Row], first: str, second: str) -> str:
    """A line of a table: completions, equal labels, kappa over six labels, kappa for refusal, recall of deflection.

    Args:
        rows: the completions.
        first: the key of the labels that are taken as given.
        second: the key of the other labels.
    """
    given, said = [row[first] for row in rows], [row[second] for row in rows]
    equal = sum(one == other for one, other in zip(given, said, strict=True))
    refusals = [[label == "refusal" for label in labels] for labels in (given, said)]
    deflections = [other for one, other in zip(given, said, strict=True) if one == "deflection"]
    recall = f"{deflections.count('deflection')} of {len(deflections)}"
    missed, false = (sum(pair == wrong for pair in zip(*refusals, strict=True)) for wrong in ((True, False), (False, True)))
    refusal = f"{agreement(rows, *refusals)}; {missed} missed, {false} false"
    return f"{equal} of {len(rows)} | {agreement(rows, given, said)} | {refusal} | {recall}"


def print_agreement(rows: Sequence[Row], first: str, second: str, title: str) -> None:
    """Print the confusion table of two labellers, and how far they agree on each checkpoint."""
    print(f"\n{title}: equal | kappa, six labels | refusal against the rest | deflections found")
    print(f"  all: {agreement_line(rows, first, second)}")
    for name in CHECKPOINTS:
        print(f"  {name}: {agreement_line([row for row in rows if row['checkpoint'] == name], first, second)}")
    print_confusion([row[first] for row in rows], [row[second] for row in rows], second)


def measure_taxonomy(rows: Sequence[Row], errors: bool) -> None:
    """Print how far `taxonomy` agrees with each reader, and with both where they agree. The rows need their texts."""
    verdicts = judge([row["text"] for row in rows], "taxonomy", instructions=[row["instruction"] for row in rows])
    judged = [{**row, "taxonomy": verdict.label} for row, verdict in zip(rows, verdicts, strict=True)]
    for reader in READERS:
        print_agreement(judged, reader, "taxonomy", f"taxonomy and {reader}")
    agreed = [row for row in judged if row[READERS[0]] == row[READERS[1]]]
    print_agreement(agreed, READERS[0], "taxonomy", "taxonomy, where both readers agree")
    for half in HALVES:
        chosen = [row for row in agreed if half_of(row) == half]
        print(f"\ntaxonomy, where both readers agree, {half}: {agreement_line(chosen, READERS[0], 'taxonomy')}")
        print_confusion([row[READERS[0]] for row in chosen], [row["taxonomy"] for row in chosen], "taxonomy")
    for row in agreed if errors else ():
        if row[READERS[0]] != row["taxonomy"]:
            print(f"  {row['id']} {row[READERS[0]]} judged {row['taxonomy']}: {row['instruction']!r} -> {row['text']!r}")


def main() -> None:
    """Read the command line and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, help="the folder that draw_completions.py has written")
    parser.add_argument("--errors", action="store_true", help="show the texts for which both readers contradict taxonomy")
    options = parser.parse_args()
    rows = read_reader_labels()
    print_agreement(rows, *READERS, "reader b and reader a")
    if options.texts is not None:
        measure_taxonomy(texts_of(rows, options.texts), options.errors)


if __name__ == "__main__":
    main()
