"""Worker processes: the rows of a run in one process, whatever dies meanwhile; and what they may use of the machine."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

import demur
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.measurements.measurement import MeasurementRecord
from demur.runs.executors import machine_shares, task_runner, worker_process
from demur.runs.executors.chosen_executor import chosen_executor
from demur.runs.executors.executor import Executor
from demur.runs.executors.in_process import InProcess
from demur.runs.executors.machine_shares import VISIBLE
from demur.runs.executors.processes import Processes
from demur.runs.records import CompletionsMade
from demur.runs.store import Store
from tests.forked_workers import fork_workers
from tests.tiny_study import contents, make_study

MEASURED = ['measurements=["by-layer", "loss", "direction-agreement"]']


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("files"), batch_tokens=40)


@pytest.fixture(scope="module")
def study(path):
    """Two checkpoints, small batches, and measurements of arms, cells and pairs."""
    return demur.load_study(path, MEASURED)


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    """The contents of a run in this process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    demur.run(study, folder)
    return contents(folder)


@pytest.fixture
def forked(monkeypatch):
    return fork_workers(monkeypatch)


def run(study, folder, *, workers=2, told=None, **settings):
    told = [] if told is None else told
    executor = Processes(workers, tell=told.append, **settings)
    assert isinstance(executor, Executor)
    finished = demur.run(study, folder, executor=executor)
    finished.close()
    return told


def once(folder, act):
    """What a worker does after its first batch of completions; only the first worker that comes there does it."""
    real = task_runner.run_job

    def run_job(job, inputs, loaded):
        for record in real(job, inputs, loaded):
            yield record
            if isinstance(record, CompletionsMade):
                try:
                    os.close(os.open(folder / "done-once", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                act()

    return run_job


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.soak), 3])
def test_worker_processes_give_the_rows_of_one_process(study, whole, forked, tmp_path, workers):
    assert run(study, tmp_path / "run", workers=workers) == []
    assert contents(tmp_path / "run") == whole
    assert len(forked) == workers
    assert all(worker.wait() == -signal.SIGKILL for worker in forked)
    threads = {worker.environment["OMP_NUM_THREADS"] for worker in forked}
    assert threads == {"1"}


def test_a_worker_that_is_killed_is_started_again_and_its_job_done_again(study, whole, forked, tmp_path, monkeypatch):
    monkeypatch.setattr(task_runner, "run_job", once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    rows = Counter()
    add = Store.add_completions
    monkeypatch.setattr(Store, "add_completions", lambda store, found: (rows.update(row[:2] for row in found), add(store, found)))
    (told,) = run(study, tmp_path / "run")
    assert "was killed by SIGKILL, as the system does if memory runs out at 'generate " in told
    assert told.endswith("; the job is done again; the worker is started again")
    assert len(forked) == 3
    assert contents(tmp_path / "run") == whole
    # What was stored before the kill is not made again.
    assert set(rows.values()) == {1}


@pytest.mark.soak
def test_a_worker_that_is_stopped_counts_as_dead(study, whole, forked, tmp_path, monkeypatch):
    monkeypatch.setattr(task_runner, "run_job", once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGSTOP)))
    monkeypatch.setattr(worker_process, "BEAT_SECONDS", 0.2)
    (told,) = run(study, tmp_path / "run", patience=2.0)
    assert "gave no sign of life for 2 s at 'generate " in told
    assert contents(tmp_path / "run") == whole


def test_a_job_at_which_every_worker_dies_fails_and_the_rest_is_kept(study, whole, forked, tmp_path, monkeypatch):
    real = task_runner.run_job

    def dies_at_chat(job, inputs, loaded):
        if job.key == "generate chat":
            os.kill(os.getpid(), signal.SIGKILL)
        yield from real(job, inputs, loaded)

    monkeypatch.setattr(task_runner, "run_job", dies_at_chat)
    told = []
    with pytest.raises(WorkError, match=r"^3 workers died at 'generate chat'; the last one was killed by SIGKILL.*\. What was"):
        run(study, tmp_path / "run", told=told)
    assert len(told) == 3
    assert "the job was begun 3 times; the worker is started again" in told[-1]
    monkeypatch.undo()
    store = Store.open(tmp_path / "run")
    assert {row.cell.partition("/")[0] for row in store.completions()} == {"base"}
    store.close()
    demur.run(study, tmp_path / "run").close()
    assert contents(tmp_path / "run") == whole


def test_workers_that_cannot_start_end_the_run(study, forked, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process, "main", lambda: os.write(2, b"no room for torch\n") and os._exit(3))
    told = []
    with pytest.raises(WorkError, match=r"worker 1 ended with exit status 3 before it was ready, and so did 2 before it"):
        run(study, tmp_path / "run", workers=1, told=told)
    assert "worker 1: no room for torch" in told


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (InputError("the layer is not there"), InputError, r"^the layer is not there$"),
        (WorkError("no memory was left"), WorkError, r"^no memory was left\. What was finished is kept\.$"),
        (KeyError("own"), RuntimeError, r"worker 1 failed at 'extract base/user-assistant':\nTraceback(.|\n)*KeyError: 'own'"),
    ],
)
def test_the_error_of_a_job_is_raised_here(study, forked, tmp_path, monkeypatch, error, expected, words):
    def fails(job, inputs, loaded):
        raise error
        yield

    monkeypatch.setattr(task_runner, "run_job", fails)
    with pytest.raises(expected, match=words):
        run(study, tmp_path / "run", workers=1)


class Written:
    """A measurement that prints where it is made."""

    name, version, subjects, settings = "written", 1, "arm", None

    def measure(self, subject, settings):
        print(f"measured {subject.name}")
        return MeasurementRecord({"process": os.getpid()}, {})

    def summary(self, record):
        return {"process": record.facts["process"]}


def test_what_was_registered_here_is_known_in_workers_and_what_they_print_is_told(path, forked, tmp_path, monkeypatch):
    registry("measurement").register("written", Written)
    try:
        asked = demur.load_study(path, ['measurements=["written"]'])
        told = run(asked, tmp_path / "run")
        assert sorted(line.partition(": ")[2] for line in told) == ["measured base/user-assistant", "measured chat/native"]
        store = Store.open(tmp_path / "run")
        made_in = {one.record.facts["process"] for one in store.measurements()}
        store.close()
        assert made_in <= {worker.pid for worker in forked}
        monkeypatch.setattr(Written, "__module__", "__main__")
        with pytest.raises(InputError, match="the measurement 'written' is defined in this script, where worker processes"):
            run(asked, tmp_path / "other")
    finally:
        registry("measurement").unregister("written")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.soak
def test_workers_end_with_a_killed_driver_and_the_same_command_resumes(study, whole, tmp_path, monkeypatch):
    fork_workers(monkeypatch)
    driver = os.fork()
    if not driver:
        made = fork_workers(monkeypatch)

        def stop():
            (tmp_path / "workers").write_text(" ".join(str(worker.pid) for worker in made))
            os.kill(os.getpid(), signal.SIGKILL)

        kept = Store.add_completions
        monkeypatch.setattr(Store, "add_completions", lambda store, rows: (kept(store, rows), stop()))
        try:
            run(study, tmp_path / "run")
        finally:
            os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]) == -signal.SIGKILL
    workers = [int(pid) for pid in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2
    patience = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < patience:
        time.sleep(0.02)
    assert not any(map(alive, workers))
    assert run(study, tmp_path / "run") == []
    assert contents(tmp_path / "run") == whole


def test_each_worker_has_its_own_gpu_and_a_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(machine_shares, "visible_gpus", lambda: ["2", "5", "7"])
    monkeypatch.setattr(machine_shares, "cores", lambda: 12)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    shares = machine_shares.machine_shares(None, "auto")
    assert [(one.device, one.sharing, one.environment[VISIBLE]) for one in shares] == [
        ("cuda", 1, "2"),
        ("cuda", 1, "5"),
        ("cuda", 1, "7"),
    ]
    assert {one.environment["OMP_NUM_THREADS"] for one in shares} == {"4"}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (second,) = machine_shares.machine_shares(None, "cuda:1")
    assert (second.environment[VISIBLE], second.environment["OMP_NUM_THREADS"]) == ("5", "2")
    # With MKL, torch takes this number and not the other one.
    assert second.environment["MKL_NUM_THREADS"] == "2"
    (spread,) = machine_shares.machine_shares(None, "spread")
    assert (spread.device, spread.environment[VISIBLE]) == ("spread", "2,5,7")
    cpu = machine_shares.machine_shares(4, "cpu")
    assert [(one.device, one.sharing, VISIBLE in one.environment) for one in cpu] == [("cpu", 4, False)] * 4
    with pytest.raises(InputError, match="4 workers were asked for, but there are 3 GPUs for them; ask for at most 3"):
        machine_shares.machine_shares(4, "auto")
    with pytest.raises(InputError, match="there is no GPU, so the number of worker processes is not known; give --workers N"):
        machine_shares.machine_shares(None, "cpu")


def test_the_executor_is_chosen_by_name_or_by_the_machine(study, tmp_path, monkeypatch):
    chosen = {
        asked: chosen_executor(*asked, "auto", print) for asked in [(None, None), ("local", 1), (None, 2), ("processes", 3)]
    }
    assert [type(one) for one in chosen.values()] == [InProcess, InProcess, Processes, Processes]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert isinstance(chosen_executor(None, None, "auto", print), Processes)
    assert isinstance(chosen_executor(None, None, "cpu", print), InProcess)
    for executor, workers, words in [
        ("procesess", None, "there is no executor 'procesess'; did you mean 'processes'"),
        ("local", 2, "the executor local has one worker"),
        ("processes", 0, "0 workers were asked for; ask for at least 1"),
        (InProcess(), 2, "workers and an executor object are both given"),
    ]:
        with pytest.raises(InputError, match=words):
            demur.run(study, tmp_path / "run", executor=executor, workers=workers)
    assert not (tmp_path / "run").exists()
