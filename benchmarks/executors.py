"""How much faster worker processes carry out a study: one process of one thread, against several of one thread each.

    python -m benchmarks.executors [--workers 2] [--checkpoints 4] [--repeats 3] [--prompts 60] [--tokens 32] [--times F]

The checkpoints are small models with random weights, written to a temporary folder. Each repeat carries out the same study once
with one worker and once with several, each time in a new folder. Two times are measured: that of the whole work, the start of the
workers included, and that from the first loaded checkpoint to the last stored record. The report is not in either. The
completions of both runs are compared. Measure on an idle machine: with `--workers N`, N cores must be free.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

# Each worker gets one thread, and so does this process.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import demur
from demur.runs.describe import describe
from demur.runs.driver import carry_out
from demur.runs.executors.pooled_jobs import JobTime
from demur.runs.executors.processes import Processes
from demur.runs.jobs import ExtractJob, GenerateJob
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
    lines = [
        f'name = "executors"\nmax_new_tokens = {tokens}\nstop_at_eos = false\nbatch_tokens = 2048\njudges = ["prefix"]',
        "allow_overlap = true  # made of so few words, some instructions are alike",
    ]
    for number in range(checkpoints):
        torch.manual_seed(number)
        AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPE)).save_pretrained(folder / f"c{number}")
        tiny_tokenizer(chat_template=CHAT).save_pretrained(folder / f"c{number}")
        lines.append(f'[checkpoints.c{number}]\nmodel = "{folder}/c{number}"')
    for label, texts in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        words = [word for text in texts for word in text.split()]
        # Different instructions of eight words each, from the words that the tokenizer knows.
        draw = random.Random(label)
        made = (" ".join(draw.choices(words, k=8)) for _ in range(2 * (prompts + 16)))
        rows = [f"{label} {text}" for text in dict.fromkeys(made)][: prompts + 16]
        splits = ["train"] * 16 + ["test"] * prompts
        content = [json.dumps({"instruction": row, "split": split}) for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(content))
        lines.append(f'[instructions.{label}]\nsource = "{folder}/{label}.jsonl"\ntest = {prompts}')
    lines.append('[direction]\npairs = 16\nlayers = [4]\n[controls]\nrandom = 1\n[[interventions]]\nkind = "ablate"')
    (folder / "study.toml").write_text("\n".join(lines))
    return demur.load_study(folder / "study.toml")


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        whole: seconds of the whole work.
        work: seconds from the first loaded checkpoint on.
        rows: the completions.
        times: how long each job took.
    """

    whole: float
    work: float
    rows: list[StoredCompletion]
    times: Sequence[JobTime]


def measure(study: Study, folder: Path, workers: int) -> Measured:
    """Carry out a study.

    Args:
        study: the study.
        folder: a new run folder.
        workers: how many worker processes there are.

    Returns:
        What was measured.
    """
    ready, store = check(make_plan(study)), Store.create(folder, study.digest, study.toml())
    describe(ready, store)
    loaded: list[float] = []

    def watch(record: JobRecord) -> None:
        if isinstance(record, CheckpointLoaded):
            loaded.append(time.perf_counter())

    executor = Processes(workers, tell=lambda said: print(said, file=sys.stderr))
    begun = time.perf_counter()
    carry_out(ready, store, executor, device="cpu", watch=watch)
    ended = time.perf_counter()
    rows = store.completions()
    store.close()
    return Measured(ended - begun, ended - loaded[0], rows, executor.times)


def mean_times(run: Measured) -> dict[str, float]:
    """Seconds of a load, an extraction and a completion, and until a worker has started, for `benchmarks.replay`."""
    extractions = [one.working for one in run.times if isinstance(one.job, ExtractJob)]
    generations = [one.working for one in run.times if isinstance(one.job, GenerateJob)]
    loads = sum(one.loads for one in run.times)
    return {
        "load": sum(one.loading for one in run.times) / loads,
        "extraction": sum(extractions) / len(extractions),
        "completion": sum(generations) / len(run.rows),
        "start": run.whole - run.work,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--times", type=Path, help="write mean times of one worker, for benchmarks.replay")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wholes, works = [], []
    with tempfile.TemporaryDirectory() as place:
        study = make_study(Path(place), asked.checkpoints, asked.prompts, asked.tokens)
        for repeat in range(asked.repeats):
            one = measure(study, Path(place) / f"one-{repeat}", 1)
            several = measure(study, Path(place) / f"several-{repeat}", asked.workers)
            if one.rows != several.rows:
                raise SystemExit("the completions of the two runs differ")
            wholes.append(one.whole / several.whole)
            works.append(one.work / several.work)
            print(
                f"one worker {one.whole:.1f} s ({one.work:.1f} s from the first load on), {asked.workers} workers "
                f"{several.whole:.1f} s ({several.work:.1f} s): {wholes[-1]:.2f} and {works[-1]:.2f} times as fast; "
                f"{len(one.rows)} equal completions"
            )
            if asked.times:
                asked.times.write_text(json.dumps(mean_times(one)))
    for what, ratios in (("whole work", wholes), ("from the first load on", works)):
        print(f"{what}: {median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
