"""Measures how far the judge `taxonomy` agrees with labels given by reading: agreement, kappa and confusions of each part.

The labels are in taxonomy_labels.jsonl in this folder, in three parts (key `half`). Texts that comply with a harmful request
are withheld there. `--regenerate withheld` generates these texts again, `--regenerate all` generates every text. A generated
text whose sha256 is not that of the labelled text is left out and counted. The Gemma file is only needed for this measurement.
It comes from the package index, under Gemma's terms; docs/judges.md says how to get it.

Run it as `python scripts/measure_taxonomy.py [--regenerate withheld|all --gemma gemma-3-270m-q4_k_m.gguf] [--errors]`.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from demur.core.statistics import cohen_kappa, kappa_interval
from demur.inputs.instructions import load_instructions
from demur.judges.judge import THOUGHT
from demur.judges.judging import judge
from demur.judges.taxonomy.taxonomy_judge import LABELS

LABELLED = Path(__file__).with_name("taxonomy_labels.jsonl")
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
SMOLLM, ADAPTER = "demo:smollm2-135m-instruct", "demo:safety-adapter"
READ = {"parent": ("chatml", 17), "tuned": ("chatml", 17), "gemma": ("gemma-base", 11)}
"""The prompt format and layer at which the direction of the edits is read. The tuned checkpoint gets its parent's direction."""

Row = dict[str, Any]


def read_labels(path: Path = LABELLED) -> list[Row]:
    """The labelled completions, each with its instruction. `text` is None if the text is withheld."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{**row, "instruction": load_instructions(f"contrast-{row['set']}").take(row["split"])[row["index"]]} for row in rows]


class Checkpoints:
    """The three checkpoints in float32 and their directions. Each is loaded when it is first needed."""

    def __init__(self, gemma: Path | None) -> None:
        self._gemma = gemma

    @cache  # noqa: B019  (lives as long as the script)
    def load(self, name: str) -> Any:
        """A checkpoint by its name in the labels."""
        import demur

        if name != "gemma":
            return demur.load_checkpoint(SMOLLM, adapter=ADAPTER if name == "tuned" else None)
        if self._gemma is None:
            raise SystemExit("some texts to regenerate were written by Gemma; give its file with --gemma")
        found = hashlib.sha256(self._gemma.read_bytes()).hexdigest()
        if found != GEMMA_SHA256:
            raise SystemExit(f"{self._gemma} has the sha256 {found}; expected {GEMMA_SHA256}, that of the file that was used")
        return demur.load_checkpoint(str(self._gemma))

    @cache  # noqa: B019
    def direction(self, name: str) -> Any:
        """Difference of means over 128 training pairs, as the demo study reads it."""
        import demur

        checkpoint, (prompt, layer) = self.load("parent" if name == "tuned" else name), READ[name]
        sides = [load_instructions(f"contrast-{side}").take("train", 128) for side in ("harmful", "harmless")]
        return demur.extract_direction(checkpoint, sides[0], sides[1], demur.prompt_format(prompt, checkpoint), layer=layer)

    @cache  # noqa: B019
    def harmless_means(self, name: str) -> Any:
        """The checkpoint's own mean activations over 128 harmless training instructions, for affine edits."""
        import demur

        checkpoint, asked = self.load(name), load_instructions("contrast-harmless").take("train", 128)
        return demur.stream_means(checkpoint, asked, demur.prompt_format(READ[name][0], checkpoint))

    def edit(self, name: str, edit: str) -> Any:
        """The edit that is written `none`, `ablate`, `affine`, or `add COEFFICIENT` with the coefficient in raw norms."""
        import demur

        if edit == "none":
            return None
        direction = self.direction(name)
        if edit == "affine":
            return demur.affine(direction, to=self.harmless_means(name))
        return demur.ablate(direction) if edit == "ablate" else demur.add(direction, float(edit.split()[1]), unit="raw")


def regenerate(rows: Sequence[Row], gemma: Path | None) -> list[str]:
    """Generate the completions of these rows again, in the order of the rows."""
    import demur

    checkpoints, texts = Checkpoints(gemma), dict[int, str]()
    numbered = sorted(enumerate(rows), key=lambda item: _setting(item[1]))
    for setting, group in groupby(numbered, key=lambda item: _setting(item[1])):
        name, prompt, edit, tokens = setting
        chosen, checkpoint = list(group), checkpoints.load(setting[0])
        asked = [row["instruction"] for _, row in chosen]
        edits = [checkpoints.edit(name, edit)]
        (made,) = demur.generate(checkpoint, asked, demur.prompt_format(prompt, checkpoint), edits, max_new_tokens=tokens)
        texts |= {number: completion.text for (number, _), completion in zip(chosen, made, strict=True)}
    return [texts[number] for number in range(len(rows))]


def restore(rows: Sequence[Row], which: str, gemma: Path | None) -> None:
    """Generate the texts of rows again, `withheld` ones or `all`. A text that differs from the labelled one becomes None."""
    wanted = [row for row in rows if which == "all" or row["text"] is None]
    for row, text in zip(wanted, regenerate(wanted, gemma), strict=True):
        row["text"] = text if hashlib.sha256(text.encode()).hexdigest() == row["sha256"] else None
    print(f"{len(wanted)} regenerated, {sum(row['text'] is None for row in wanted)} of them differ from the labelled texts")


def _setting(row: Row) -> tuple[str, str, str, int]:
    return row["checkpoint"], row["format"], row["edit"], row["max_new_tokens"]


def measure(rows: Sequence[Row], errors: bool) -> None:
    """Print how the judges agree with the labels of these rows, which must have their texts."""
    texts, asked = [row["text"] for row in rows], [row["instruction"] for row in rows]
    given = [row["label"] for row in rows]
    verdicts = judge(texts, "taxonomy", instructions=asked)
    said = [verdict.label for verdict in verdicts]
    print_confusion(given, said, "taxonomy")
    for coding, wanted in (("refusal", {"refusal"}), ("refusal or incompetent", {"refusal", "incompetent"})):
        truth = [label in wanted for label in given]
        for name in ("taxonomy", "prefix", "substring"):
            flags = [verdict.refusal for verdict in judge(texts, name, instructions=asked)]
            decided = [label in wanted for label in said] if name == "taxonomy" else flags
            wrong = Counter(zip(truth, decided, strict=True))
            print(f"{coding}, {name}: {agreement(truth, decided)}; {wrong[True, False]} missed, {wrong[False, True]} false")
    if errors:
        for row, verdict in zip(rows, verdicts, strict=True):
            if row["label"] != verdict.label:
                print(f"  {row['label']} judged {verdict.label} {verdict.evidence!r}: {row['instruction']!r} -> {row['text']!r}")


def print_confusion(given: Sequence[str], said: Sequence[str], who: str) -> None:
    """Print how far labels agree with the given ones, and how often each label was given for each."""
    equal = sum(a == b for a, b in zip(given, said, strict=True))
    print(f"{who}, six labels: {equal} of {len(given)} agree, {agreement(given, said)}")
    pairs = Counter(zip(given, said, strict=True))
    shown = [label for label in LABELS if label != THOUGHT]
    print(f"  {'given / ' + who:20}" + "".join(f"{label[:8]:>9}" for label in shown) + "   recall precision")
    for label in shown:
        line = [pairs[label, other] for other in shown]
        column = sum(pairs[other, label] for other in shown)
        recall, precision = _share(pairs[label, label], sum(line)), _share(pairs[label, label], column)
        print(f"  {label:20}" + "".join(f"{count:9}" for count in line) + f"{recall:>9}{precision:>10}")


def agreement(first: Sequence[Any], second: Sequence[Any]) -> str:
    """Cohen's kappa with its interval, as text."""
    low, high = kappa_interval(first, second)
    return f"kappa {cohen_kappa(first, second):.3f} [{low:.3f}, {high:.3f}]"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "-"


def main() -> None:
    """Read the command line, regenerate texts if asked to, and measure each part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regenerate", choices=("withheld", "all"), help="generate the withheld texts again, or all texts")
    parser.add_argument("--gemma", type=Path, help="the file of Gemma-3-270M (docs/judges.md)")
    parser.add_argument("--errors", action="store_true", help="show the completions for which label and judge differ")
    options = parser.parse_args()
    rows = read_labels()
    if options.regenerate:
        restore(rows, options.regenerate, options.gemma)
    for half, group in groupby(rows, key=lambda row: str(row["half"])):
        chosen = list(group)
        there = [row for row in chosen if row["text"] is not None]
        print(
            f"\n{half}: {len(there)} completions" + (f", {len(chosen) - len(there)} withheld" if len(there) < len(chosen) else "")
        )
        measure(there, options.errors)


if __name__ == "__main__":
    main()
