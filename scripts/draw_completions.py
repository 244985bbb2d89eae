"""Draws and writes completions to be labelled: base, chat and edited text of three small checkpoints, shuffled and blind.

Three answers are drawn for every instruction of the contrast set that no earlier label has used, and for the lookalikes of the
development part. Each answer has another setting: a checkpoint, a prompt format, an edit and a number of new tokens. Decoding is
greedy, so the seed of the draw decides everything. The readers get `texts.jsonl` (id, instruction, completion); `key.jsonl` has
what the readers do not see. `withheld.jsonl` has the texts that taxonomy_labels.jsonl withholds.

Run it as `python scripts/draw_completions.py OUT_FOLDER --gemma gemma-3-270m-q4_k_m.gguf`.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from measure_taxonomy import read_labels, regenerate

from demur.inputs.instructions import load_instructions

SEED, ANSWERS = 20261130, 3
PLAIN, QUESTION, TASK = "{instruction}\\n\\n", "Q: {instruction}\\nA:", "Task: {instruction}\\nResponse:"
SETTINGS = (
    *(("gemma", prompt, "none", tokens) for prompt, tokens in (("gemma-base", 32), ("user-assistant", 40), (PLAIN, 48))),
    *(("gemma", prompt, "none", tokens) for prompt, tokens in ((QUESTION, 24), ("chatml", 32), ("vicuna", 48), ("pythia", 16))),
    *(("gemma", prompt, "none", tokens) for prompt, tokens in ((TASK, 32), ("gemma", 40))),
    *(("gemma", "gemma-base", edit, 32) for edit in ("ablate", "add 1", "add 2", "add -1", "affine")),
    *(("parent", prompt, "none", tokens) for prompt, tokens in (("chatml", 48), ("native", 32), ("user-assistant", 32))),
    *(("parent", prompt, "none", tokens) for prompt, tokens in ((PLAIN, 40), ("vicuna", 24), (TASK, 16))),
    *(("parent", "chatml", edit, 32) for edit in ("ablate", "affine", "add 2", "add 4", "add 6", "add -4")),
    *(("tuned", prompt, "none", tokens) for prompt, tokens in (("chatml", 32), ("native", 48), ("user-assistant", 40))),
    *(("tuned", prompt, "none", tokens) for prompt, tokens in (("pythia", 24), (PLAIN, 32))),
    *(("tuned", "chatml", edit, 32) for edit in ("ablate", "affine", "add 1", "add 4", "add -1")),
)
"""Checkpoint, prompt format, edit and new tokens, as in the labels."""

Row = dict[str, Any]


def pool() -> list[Row]:
    """The instructions that may be drawn, by set, split and index."""
    unused = [("train", index) for index in range(55, 144)] + [("test", index) for index in range(89, 108)]
    # The lookalikes have no unused instructions; these are the ones of the earlier development part.
    rows = [{"set": name, "split": split, "index": index} for name in ("harmful", "harmless") for split, index in unused]
    return rows + [{"set": "lookalike", "split": "test", "index": index} for index in range(50) if index % 4 in (0, 3)]


def draw() -> list[Row]:
    """The rows to generate: each instruction in `ANSWERS` settings, each setting about equally often, in shuffled order."""
    generator = random.Random(SEED)
    rows = list[Row]()
    places = list[int]()
    for instruction in generator.sample(pool(), len(pool())):
        taken = list[int]()
        for _ in range(ANSWERS):
            if not set(places) - set(taken):
                places += generator.sample(range(len(SETTINGS)), len(SETTINGS))
            place = next(number for number in places if number not in taken)
            places.remove(place)
            taken.append(place)
        for place in taken:
            checkpoint, prompt, edit, tokens = SETTINGS[place]
            setting = {"checkpoint": checkpoint, "format": prompt, "edit": edit, "max_new_tokens": tokens}
            rows.append({**setting, **instruction})
    generator.shuffle(rows)
    return [{"id": f"t{number:03}", **row} for number, row in enumerate(rows)]


def main() -> None:
    """Read the command line, generate, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to write to")
    parser.add_argument("--gemma", type=Path, help="the file of Gemma-3-270M (docs/judges.md)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = draw()
    for row in rows:
        row["instruction"] = load_instructions(f"contrast-{row['set']}").take(row["split"])[row["index"]]
    texts, key = list[Row](), list[Row]()
    for row, text in zip(rows, regenerate(rows, options.gemma), strict=True):
        texts.append({"id": row["id"], "instruction": row.pop("instruction"), "completion": text})
        key.append({**row, "sha256": hashlib.sha256(text.encode()).hexdigest()})
    earlier = [row for row in read_labels() if row["text"] is None]
    again = regenerate(earlier, options.gemma)
    withheld = [{"instruction": row["instruction"], "completion": text} for row, text in zip(earlier, again, strict=True)]
    for name, lines in (("texts.jsonl", texts), ("key.jsonl", key), ("withheld.jsonl", withheld)):
        written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (options.out / name).write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
