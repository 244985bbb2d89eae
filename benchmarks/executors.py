"""How much faster worker processes carry out a study: one process of one thread, against several of one thread each.

    python -m benchmarks.executors [--workers 2] [--checkpoints 4] [--repeats 3] [--prompts 60] [--tokens 32] [--out F]

The checkpoints are small models with random weights, written to a temporary folder. Each repeat carries out the same study once
with one worker and once with several, each time in a new folder. Two times are measured: that of the whole work, the start of the
workers included, and that from the first loaded checkpoint to the last stored record. The report is not in either. The
completions of both runs are compared. Measure on an idle machine: with `--workers N`, N cores must be free.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

# Each worker gets one thread, and so does this process.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import demur
from demur.runs.describe import describe
from demur.runs.driver import carry_out
from demur.runs.executors.processes import Processes
from demur.runs.records import CheckpointLoaded, JobRecord
from demur.runs.rows import StoredCompletion
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.spec import Study
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_tokenizer

SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 704,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_study(folder: Path, checkpoints: int, prompts: int, tokens: int) -> Study:
    """A study in which every direction is tried on every checkpoint, as in a lineage.

    Args:
        folder: an empty folder for checkpoints and instructions.
        checkpoints: how many checkpoints there are.
        prompts: test instructions of each kind.
        tokens: new tokens of each completion; no completion ends before.
    """
    lines = [f'name = "executors"\nmax_new_tokens = {tokens}\nstop_at_eos = false\nbatch_tokens = 2048\njudges = ["prefix"]']
    for number in range(checkpoints):
        torch.manual_seed(number)
        AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE)).save_pretrained(folder / f"c{number}")
        tiny_tokenizer(chat_template=CHAT).save_pretrained(folder / f"c{number}")
        lines.append(f'[checkpoints.c{number}]\nmodel = "{folder}/c{number}"')
    for label, texts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        words = [word for text in texts for word in text.split()]
        # Different instructions of eight words each, from the words that the tokenizer knows.
        made = [" ".join(words[(5 * number + 3 * at + number // 7) % len(words)] for at in range(8)) for number in range(3000)]
        rows = [f"{label} {text}" for text in dict.fromkeys(made)][: prompts + 16]
        splits = ["train"] * 16 + ["test"] * prompts
        content = [json.dumps({"instruction": row, "split": split}) for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(content))
        lines.append(f'[instructions.{label}]\nsource = "{folder}/{label}.jsonl"\ntest = {prompts}')
    lines.append('[direction]\npairs = 16\nlayers = [4]\n[controls]\nrandom = 1\n[[interventions]]\nkind = "ablate"')
    (folder / "study.toml").write_text("\n".join(lines))
    return demur.load_study(folder / "study.toml")


def measure(study: Study, folder: Path, workers: int) -> tuple[float, float, list[StoredCompletion]]:
    """Carry out a study.

    Args:
        study: the study.
        folder: a new run folder.
        workers: how many worker processes there are.

    Returns:
        Seconds of the whole work; seconds from the first loaded checkpoint on; and the completions.
    """
    ready, store = check(make_plan(study)), Store.create(folder, study.digest, study.toml())
    describe(ready, store)
    loaded: list[float] = []

    def watch(record: JobRecord) -> None:
        if isinstance(record, CheckpointLoaded):
            loaded.append(time.perf_counter())

    begun = time.perf_counter()
    carry_out(ready, store, Processes(workers, tell=lambda said: print(said, file=sys.stderr)), device="cpu", watch=watch)
    ended = time.perf_counter()
    rows = store.completions()
    store.close()
    return ended - begun, ended - loaded[0], rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wholes, works = [], []
    with tempfile.TemporaryDirectory() as place:
        study = make_study(Path(place), asked.checkpoints, asked.prompts, asked.tokens)
        for repeat in range(asked.repeats):
            one = measure(study, Path(place) / f"one-{repeat}", 1)
            several = measure(study, Path(place) / f"several-{repeat}", asked.workers)
            if one[2] != several[2]:
                raise SystemExit("the completions of the two runs differ")
            wholes.append(one[0] / several[0])
            works.append(one[1] / several[1])
            print(
                f"one worker {one[0]:.1f} s ({one[1]:.1f} s from the first load on), {asked.workers} workers {several[0]:.1f} s "
                f"({several[1]:.1f} s): {wholes[-1]:.2f} and {works[-1]:.2f} times as fast; {len(one[2])} equal completions"
            )
    for what, ratios in (("whole work", wholes), ("from the first load on", works)):
        print(f"{what}: {median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")
    if asked.out:
        asked.out.write_text(json.dumps({"whole": wholes, "work": works}))


if __name__ == "__main__":
    main()
