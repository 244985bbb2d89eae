"""Worker processes as the command line starts them: one is killed in the middle, and then the driver. The rows stay the same."""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest

import demur
from tests.tiny_study import contents, make_study

pytestmark = pytest.mark.soak
MAIN = "from demur.cli.main import main; main()"


def start(study, out):
    words = ["run", str(study), "--out", str(out), "--executor", "processes", "--workers", "2", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", MAIN, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def workers_at_work(driver, out, most=300.0):
    """The worker processes, once completions are stored."""
    end = time.monotonic() + most
    while time.monotonic() < end and driver.poll() is None:
        if (out / "run.sqlite").is_file():
            db = sqlite3.connect(out / "run.sqlite")
            count = db.execute("SELECT count(*) FROM completions").fetchone()[0]
            db.close()
            if count:
                return psutil.Process(driver.pid).children()
        time.sleep(0.01)
    raise AssertionError(driver.communicate()[1].decode())


def test_a_killed_worker_and_a_killed_driver_change_no_row(tmp_path):
    # Long enough that the kills fall into it.
    study = make_study(tmp_path / "files", batch_tokens=40, max_new_tokens=24)
    demur.run(study, tmp_path / "whole").close()
    whole = contents(tmp_path / "whole")

    driver = start(study, tmp_path / "worker")
    workers = workers_at_work(driver, tmp_path / "worker")
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said.decode()
    assert b"was killed by SIGKILL" in said
    assert contents(tmp_path / "worker") == whole

    driver = start(study, tmp_path / "driver")
    workers = workers_at_work(driver, tmp_path / "driver")
    driver.kill()
    driver.communicate()
    _, left = psutil.wait_procs(workers, timeout=20)
    assert left == []
    driver = start(study, tmp_path / "driver")
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0, said.decode()
    assert contents(tmp_path / "driver") == whole
    # In float32 on one thread. The progress of both workers is on standard error, with the names of their checkpoints.
    assert b"completions of base" in said or b"completions of chat" in said
