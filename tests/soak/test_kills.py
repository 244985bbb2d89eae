"""`kill -9` at random moments of a real run: the same command goes on, and ends with what an uninterrupted run ends with.

Each attempt is a process of its own, forked after the imports so that moments fall into all phases and not into `import torch`.
Run with `make soak`; not part of `make test`.
"""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from demur.cli.main import app
from tests.tiny_study import contents, make_study

KILLS = 50
MOMENTS = (0.2, 0.2, 0.3, 0.3, 0.8, 0.8)
"""Up to which part of an uninterrupted run's time a kill comes."""
PHASES = {"before there is a run", "loading and directions", "completions", "report"}
"""Where kills must have fallen at least. Moments are random, so up to three times as many are spent on it."""
pytestmark = pytest.mark.soak


def start(study: Path, out: Path) -> int:
    """`demur run` in a child process; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 70
    # Where the tests themselves run in a shell's background, Ctrl-C is ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(os.open(out.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        app(["run", str(study), "--out", str(out), "--quiet"])
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def wait(child: int, seconds: float) -> int | None:
    """The exit status, or None where the child is still at work after that time."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.001)


def phase(out: Path, whole: int) -> str:
    """How far a run had come when it was killed, read without demur."""
    if not (out / "run.sqlite").is_file():
        return "before there is a run"
    db = sqlite3.connect(out / "run.sqlite")
    # A direction that is still to be made has a row without a file.
    tables = {"directions": "directions WHERE file IS NOT NULL", "completions": "completions", "verdicts": "verdicts"}
    count = {name: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for name, table in tables.items()}
    db.close()
    if count["directions"] < 3:
        return "loading and directions"
    if count["completions"] < whole:
        return "completions"
    if count["verdicts"] < 2 * whole:
        return "verdicts"
    return "report written before" if (out / "report.html").is_file() else "report"


def test_fifty_random_kills_end_as_an_uninterrupted_run(tmp_path):
    # Imported here, so that no child spends its life on it.
    for module in (
        "demur.runs.executors.in_process",
        "demur.report.draw_static",
        "demur.report.page",
        "matplotlib.pyplot",
        "pandas",
        "rich.console",
    ):
        import_module(module)
    study = make_study(tmp_path / "files", batch_tokens=40)
    whole = tmp_path / "whole"
    begun = time.monotonic()
    child = start(study, whole)
    # What comes before a run is there is too short to be met by chance, so that its kills are drawn from its own time.
    while not (whole / "run.sqlite").is_file() and time.monotonic() < begun + 60:
        time.sleep(0.001)
    before = time.monotonic() - begun
    assert wait(child, 300) == 0, (tmp_path / "whole.err").read_text()
    duration = time.monotonic() - begun
    expected = contents(whole)
    n = len(expected["completions"])
    chance, kills, phases, runs = random.Random(2024), 0, Counter(), 0
    while kills < KILLS or (not set(phases) >= PHASES and kills < 3 * KILLS):
        out, attempts, at_work = tmp_path / f"run-{runs}", 0, True
        while True:
            # The report takes longer than the work on so small a model, so most kills come early, and one in it is a run's last.
            child = start(study, out)
            early = not (out / "run.sqlite").is_file() and chance.random() < 0.5
            patience = chance.random() * (before if early else duration * chance.choice(MOMENTS))
            # A run that is killed again and again still has to end some time.
            status = wait(child, patience if attempts < 12 and at_work else 300)
            if status is None:
                os.kill(child, signal.SIGKILL)
                status = wait(child, 60)
            # A child that was ending when the time was up ended by itself, and was not killed.
            if status == -signal.SIGKILL:
                kills, attempts = kills + 1, attempts + 1
                phases[now := phase(out, n)] += 1
                at_work = not now.startswith("report")
                continue
            assert status == 0, out.with_suffix(".err").read_text()
            break
        runs += 1
        found = contents(out)
        for part, value in expected.items():
            assert found[part] == value, f"{part} of {out.name} after {attempts} kills"
        written = json.loads((out / "summary.json").read_text())
        assert {key: value for key, value in written.items() if key != "created"} == expected["summary"]
        assert not list(out.rglob("*.partial")) or attempts
    print(f"\n{kills} kills in {runs} runs of {n} completions, each {duration:.1f} s uninterrupted: {dict(phases)}")
    assert set(phases) >= PHASES, phases


def test_ctrl_c_at_random_moments_is_130_and_goes_on(tmp_path):
    study = make_study(tmp_path / "files", batch_tokens=40)
    whole, out = tmp_path / "whole", tmp_path / "again"
    begun = time.monotonic()
    assert wait(start(study, whole), 300) == 0
    duration, chance, interrupted = time.monotonic() - begun, random.Random(7), 0
    for _ in range(8):
        child = start(study, out)
        status = wait(child, 0.2 + duration * chance.random())
        if status is None:
            os.kill(child, signal.SIGINT)
            status = wait(child, 60)
            assert status in (130, 0), out.with_suffix(".err").read_text()
            interrupted += status == 130
    assert interrupted >= 3
    assert wait(start(study, out), 300) == 0
    assert contents(out) == contents(whole)
    assert "Traceback" not in out.with_suffix(".err").read_text()
