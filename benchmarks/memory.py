"""Peak memory of each way to do a job. Each way runs in its own process, which prints what it took in addition to loaded weights.

    python -m benchmarks.memory [--model smollm2] [--prompts 100] [--new-tokens 16] [--out F]

Linux only. The kernel keeps the peak memory of each process. This peak is reset after the weights are loaded and a small job
has run.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demur
from benchmarks.models import make
from benchmarks.speed import study_edits
from benchmarks.ways import Job, demur_style, hidden_states, seed_style, streamed, transformers_style

MANY = 10
"""The second capture has this many times as many prompts."""


def ways(checkpoint: demur.Checkpoint, prompts: list[list[int]], new_tokens: int) -> dict[str, Callable[[], Any]]:
    """Every way by name."""
    job = Job(checkpoint, prompts, new_tokens)
    # One token differs in each copy of a prompt, because rows with equal prompts would run only once.
    many = [[*prompt[:3], 1000 + k, *prompt[4:]] for k in range(MANY) for prompt in prompts]
    return {
        "seed": lambda: seed_style(job),
        "pipeline": lambda: transformers_style(job, 8),
        "plain 25": lambda: transformers_style(job, 25),
        "plain 100": lambda: transformers_style(job, 100),
        "demur": lambda: demur_style(job),
        "demur with a study": lambda: demur_style(job, list(study_edits(checkpoint).values())),
        "capture": lambda: streamed(checkpoint, prompts),
        f"capture of {MANY} times the prompts": lambda: streamed(checkpoint, many),
        "output_hidden_states": lambda: hidden_states(checkpoint, prompts),
        f"output_hidden_states of {MANY} times the prompts": lambda: hidden_states(checkpoint, many),
    }


def peak(work: Callable[[], Any]) -> tuple[int, int]:
    """Bytes of the process before the work, and their peak during it."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return before, _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name + ":")))


def main() -> None:
    """Measure and print; with --out also write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--only", help="measure one way, in this process")
    parser.add_argument("--skip", default="", help="names of ways to leave out, separated by commas")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.only:
        checkpoint, prompts = make(given.model, given.prompts, "float32")
        # The first forward pass sets things up. That memory should not count for any of the ways.
        demur_style(Job(checkpoint, prompts[:1], 2))
        before, most = peak(ways(checkpoint, prompts, given.new_tokens)[given.only])
        print(json.dumps({"before": before, "peak": most}))
        return
    found = {}
    command = [sys.executable, "-m", "benchmarks.memory", "--model", given.model, "--prompts", str(given.prompts)]
    command += ["--new-tokens", str(given.new_tokens), "--only"]
    for name in _names(given.skip.split(",")):
        done = subprocess.run([*command, name], check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        extra = (found[name]["peak"] - found[name]["before"]) / 2**20
        print(f"{name:44} {extra:8.0f} MiB in addition to {found[name]['before'] / 2**20:.0f} MiB", flush=True)
    if given.out:
        given.out.write_text(json.dumps({"memory": found}, indent=1) + "\n")


def _names(skip: list[str]) -> list[str]:
    """The names of the ways. Nothing is loaded, because no way is called."""
    nothing: Any = None
    return [name for name in ways(nothing, [], 1) if name not in skip]


if __name__ == "__main__":
    main()
