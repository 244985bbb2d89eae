"""Measures how far two independent readers agree with each other, and the judges with each of them.

reader_labels.jsonl in this folder has both labels of every completion, and `differ` where they are not the same. It has no texts,
only their sha256. `--texts FOLDER` is a folder that draw_completions.py has written; with it, the judges are measured too.

Run it as `python scripts/measure_readers.py [--texts FOLDER] [--errors]`.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure_taxonomy import agreement, print_confusion

from demur.inputs.instructions import load_instructions
from demur.judges.judging import judge

LABELLED = Path(__file__).with_name("reader_labels.jsonl")
READERS = ("reader_a", "reader_b")
TEXTS = ("texts.jsonl", "withheld.jsonl")
"""The files of draw_completions.py: the texts that the readers got, and those that taxonomy_labels.jsonl withholds."""

Row = dict[str, Any]


def read_reader_labels(path: Path = LABELLED) -> list[Row]:
    """The labelled completions, each with its instruction."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{**row, "instruction": load_instructions(f"contrast-{row['set']}").take(row["split"])[row["index"]]} for row in rows]


def texts_of(rows: Sequence[Row], folder: Path) -> list[Row]:
    """The rows whose texts are in the folder, with their texts. Says how many are not.

    Args:
        rows: labelled completions with their sha256.
        folder: a folder that draw_completions.py has written.
    """
    lines = [json.loads(line) for name in TEXTS for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    texts = {hashlib.sha256(line["completion"].encode()).hexdigest(): line["completion"] for line in lines}
    found = [{**row, "text": texts[row["sha256"]]} for row in rows if row["sha256"] in texts]
    print(f"{len(found)} of {len(rows)} texts are those that were labelled")
    return found


def measure_readers(rows: Sequence[Row]) -> None:
    """Print how far the readers agree: over six labels, and for refusal against everything else."""
    first, second = ([row[reader] for row in rows] for reader in READERS)
    print_confusion(first, second, "reader b, reader a given")
    refusals = [[label == "refusal" for label in labels] for labels in (first, second)]
    print(f"refusal against the rest: {agreement(*refusals)}")


def measure_judges(rows: Sequence[Row], errors: bool) -> None:
    """Print how far `taxonomy` and `learned` agree with each reader, and where the readers agree."""
    texts, asked = [row["text"] for row in rows], [row["instruction"] for row in rows]
    for name in ("taxonomy", "learned"):
        said = [verdict.label for verdict in judge(texts, name, instructions=asked)]
        for reader in READERS:
            print(f"\n{reader}")
            print_confusion([row[reader] for row in rows], said, name)
            flags = ([row[reader] == "refusal" for row in rows], [label == "refusal" for label in said])
            print(f"refusal against the rest: {agreement(*flags)}")
        for row, label in zip(rows, said, strict=True) if errors else ():
            if not row["differ"] and row[READERS[0]] != label:
                print(f"  {row[READERS[0]]} judged {label} by {name}: {row['instruction']!r} -> {row['text']!r}")


def main() -> None:
    """Read the command line and print both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, help="the folder that draw_completions.py has written")
    parser.add_argument("--errors", action="store_true", help="show the completions on which both readers contradict a judge")
    options = parser.parse_args()
    rows = read_reader_labels()
    measure_readers(rows)
    if options.texts is not None:
        measure_judges(texts_of(rows, options.texts), options.errors)


if __name__ == "__main__":
    main()
