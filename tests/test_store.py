"""The run folder as files: what is left after a power cut, on a full disk, under two processes, and of other versions."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.numpy import save

from demur.analysis.cell import Cell
from demur.analysis.manifest import ArmFacts, CheckpointFacts, DirectionFacts, Environment, Session
from demur.core import file_locks
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError, WorkError
from demur.directions.direction import from_raw
from demur.directions.files.load_and_save import load_direction
from demur.judges.judge import Verdict
from demur.runs.rows import StoredCompletion, UnmeasuredSubject
from demur.runs.store import NO_LOCKS, Store

BATCH = 5


def batch(number):
    return [
        StoredCompletion(f"cell-{number % 3}", number * BATCH + i, f"ask {number}", f"text {number} {i} " * 20, (number, i))
        for i in range(BATCH)
    ]


def a_direction(name="base", width=32):
    return from_raw(torch.arange(1.0, width + 1), name=name, layer=1)


def a_cell(key, **facts):
    return Cell(key=key, target="t", prompt="p", instructions="harmful", intervention="none", **facts)


def begin(folder) -> Store:
    store = Store.create(folder, "digest", "name = 'x'\n")
    store.remember("study_facts", {"judges": ["prefix"], "name": "x"})
    store.add_cells(a_cell(f"cell-{i}") for i in range(3))
    return store


def rows(store):
    return {(cell, position): (ask, text, ids) for cell, position, ask, text, ids, _ in store.completions()}


EVERYTHING = {(c, p): (a, t, i) for number in range(20) for c, p, a, t, i, _ in batch(number)}


@pytest.fixture
def cut_off(tmp_path) -> Path:
    """A folder whose process went away in the middle, with its log still beside the file."""
    folder = tmp_path / "run"
    child = os.fork()
    if not child:
        store = begin(folder)
        for number in range(20):
            store.add_completions(batch(number))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert (folder / "run.sqlite-wal").stat().st_size > 0
    return folder


def test_every_commit_outlives_the_process(cut_off):
    assert rows(Store.open(cut_off)) == EVERYTHING


@pytest.mark.parametrize("keep", [0, 20, 32, 4000, 4152, 30_001, 60_000, -1, -4120])
def test_a_cut_log_loses_whole_batches_from_the_end_and_nothing_else(cut_off, keep):
    log = cut_off / "run.sqlite-wal"
    os.truncate(log, keep if keep >= 0 else log.stat().st_size + keep)
    (cut_off / "run.sqlite-shm").unlink()
    store = Store.create(cut_off, "digest", "")
    found = rows(store)
    assert found.items() <= EVERYTHING.items()
    numbers = sorted({position // BATCH for _, position in found})
    assert numbers == list(range(len(numbers)))
    assert len(found) == BATCH * len(numbers)
    # The run goes on: what is missing is entered again.
    store.add_cells(a_cell(f"cell-{i}") for i in range(3))
    for number in range(20):
        store.add_completions(batch(number))
    assert rows(store) == EVERYTHING


@pytest.mark.parametrize("byte", [40, 5000, 20_000])
def test_a_log_with_a_wrong_byte_is_read_up_to_it(cut_off, byte):
    log = cut_off / "run.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[byte] ^= 0xFF
    log.write_bytes(content)
    (cut_off / "run.sqlite-shm").unlink()
    found = rows(Store.create(cut_off, "digest", ""))
    assert found.items() <= EVERYTHING.items()
    assert len(found) % BATCH == 0


def test_without_its_log_a_file_is_a_run_that_was_hardly_begun(cut_off):
    for end in ("-wal", "-shm"):
        (cut_off / f"run.sqlite{end}").unlink()
    with pytest.raises(InputError, match="stopped before it stored anything"):
        Store.open(cut_off)
    assert rows(Store.create(cut_off, "digest", "")) == {}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(b""), "is empty, so its results are lost"),
        (lambda file: file.write_bytes(b"garbage" * 3000), "is damaged or not a run of demur"),
        (lambda file: os.truncate(file, 5000), "is damaged or not a run of demur"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096)),
            "damaged or not a run",
        ),
        (lambda file: file.write_bytes(os.urandom(4096) + file.read_bytes()[4096:]), "is damaged or not a run of demur"),
    ],
)
def test_a_damaged_file_is_one_sentence_with_a_way_out(tmp_path, damage, message):
    store = begin(tmp_path / "run")
    for number in range(20):
        store.add_completions(batch(number))
    store.close()
    damage(tmp_path / "run" / "run.sqlite")
    for opened in (lambda: Store.open(tmp_path / "run"), lambda: Store.create(tmp_path / "run", "digest", "")):
        with pytest.raises(InputError, match=message) as caught:
            opened()
        assert "--fresh" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert rows(Store.create(tmp_path / "run", "digest", "", fresh=True)) == {}


@pytest.mark.parametrize("version", [0, 12, 99, -1])
def test_another_format_is_refused(tmp_path, version):
    begin(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(
        InputError, match=f"has format {version} and this version of demur reads 1, 2, 3, 4, 5, 6, 7, 8, 9; use the"
    ):
        Store.create(tmp_path, "digest", "")


def test_a_folder_of_the_first_format_is_migrated(tmp_path):
    store = begin(tmp_path)
    for name in ("base", "chat"):
        store.add_direction(a_direction(name), DirectionFacts(name=name))
    store.add_completions(batch(0))
    store.close()
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        db.execute("ALTER TABLE directions DROP COLUMN file")
        db.execute("ALTER TABLE completions DROP COLUMN own_turn")
        for table in ("measurements", "measurement_failures", "judge_failures", "means"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 1")
    (tmp_path / "directions" / "chat.safetensors").unlink()
    store = Store.create(tmp_path, "digest", "")
    assert len(rows(store)) == BATCH
    assert store.direction_names() == {"base"}
    store.add_direction(a_direction("chat"), DirectionFacts(name="chat"))
    assert [entry.name for entry in store.directions()] == ["base", "chat"]
    for name in ("base", "chat"):
        assert torch.equal(store.direction(name).vector, a_direction(name).vector)


def test_a_folder_of_the_third_format_is_migrated(tmp_path):
    store = begin(tmp_path)
    store.close()
    arrays = save({"difference": numpy.ones((2, 3), dtype=numpy.float32)})
    old = {"key": "old", "target": "chat", "prompt": "native", "instructions": "harmful", "intervention": "add",
           "direction": "random-1", "source": "random-1", "control": True, "layer": 1, "sites": ["resid_pre"], "layers": None,
           "coefficient": -2.0, "unit": "raw", "positions": "all"}  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        for table in ("measurements", "measurement_failures", "judge_failures", "means"):
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE completions DROP COLUMN own_turn")
        db.execute("CREATE TABLE layerwise (arm TEXT PRIMARY KEY, facts TEXT NOT NULL, arrays BLOB NOT NULL)")
        db.execute("INSERT INTO layerwise VALUES ('base/native', '{\"checkpoint\": \"base\"}', ?)", (arrays,))
        db.execute("INSERT INTO cells VALUES ('old', ?)", (json.dumps(old),))
        db.execute('INSERT INTO directions VALUES (\'random-1\', \'{"name": "random-1", "control": true}\', NULL)')
        db.execute("PRAGMA user_version = 3")
        db.commit()
    store = Store.open(tmp_path)
    (found,) = store.measurements()
    assert (*found.key, found.version, found.record.facts) == ("by-layer", "base/native", "{}", 1, {"checkpoint": "base"})
    assert found.array_bytes() == arrays
    assert store.measured() == {("by-layer", "base/native", "{}"): 1}
    # What cells and directions did not say then follows from their kind.
    cell = store.cells()[-1]
    assert (cell.action, cell.expected, cell.control_kind) == ("subtract", -1, "random")
    assert (store.cells()[0].action, store.cells()[0].expected) == ("", 0)
    assert [facts.control_kind for facts in store.directions()] == ["random"]
    assert (store.failures(), store.unmeasured()) == ([], [])


def test_a_folder_of_the_fourth_format_is_migrated(tmp_path):
    begin(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        db.execute("ALTER TABLE measurement_failures ADD COLUMN try_again INTEGER NOT NULL DEFAULT 0")
        db.execute("INSERT INTO measurement_failures VALUES ('loss', 'arm', '{}', 1, 'no memory was left', 1)")
        db.execute("ALTER TABLE completions DROP COLUMN own_turn")
        db.execute("DROP TABLE means")
        db.execute("PRAGMA user_version = 4")
        db.commit()
    store = Store.open(tmp_path)
    failed = UnmeasuredSubject("loss", "arm", "{}", 1, "no memory was left")
    assert store.unmeasured() == [failed]
    store.add_unmeasured(failed._replace(reason="the work failed"))
    assert [each.reason for each in store.unmeasured()] == ["the work failed"]


def test_a_manifest_is_typed_and_in_the_order_of_the_study(tmp_path):
    store = begin(tmp_path)
    store.remember_study({"judges": ["prefix"], "checkpoints": {"base": {}, "chat": {}}})
    for name in ("chat", "base"):
        store.remember_checkpoint(name, CheckpointFacts(model=name, d_model=32, n_layers=3))
        store.remember_arms([ArmFacts(checkpoint=name, prompt="p", template=name, token_read="x")])
    session = Session(versions={"torch": "1"}, environment=Environment(system="s", machine="m"), device="cpu")
    for device in ("cpu", "cuda", "cpu"):
        store.remember_session(session.model_copy(update={"device": device}))
    store.remember_added_judges(["taxonomy"])
    store.remember_added_judges(["substring", "taxonomy"])
    store.warn(["one", "two"])
    store.warn(["two", "three"])
    found = store.manifest()
    assert list(found.checkpoints) == [arm.checkpoint for arm in found.arms] == ["base", "chat"]
    assert [each.device for each in found.sessions] == ["cpu", "cuda"]
    assert (found.versions, found.environment) == ({"torch": "1"}, session.environment)
    assert found.added_judges == ("taxonomy", "substring")
    assert found.warnings == ("one", "two", "three")


def test_directions_are_listed_in_the_order_of_the_plan(tmp_path):
    store = begin(tmp_path)
    store.add_planned_directions(["base", "chat", "random-1"])
    for name in ("random-1", "base"):
        store.add_direction(a_direction(name), DirectionFacts(name=name))
    assert [facts.name for facts in store.directions()] == ["base", "random-1"]
    assert store.direction_names() == {"base", "random-1"}
    assert "chat" not in store.direction_names()
    assert store.direction("chat") is None


def test_a_stored_direction_does_not_depend_on_its_file(tmp_path):
    store, one = begin(tmp_path), a_direction()
    store.add_direction(one, DirectionFacts(name="base"))
    path = tmp_path / "directions" / "base.safetensors"
    whole = path.read_bytes()
    for damage in (lambda: path.unlink(), lambda: path.write_bytes(whole[:50]), lambda: path.write_bytes(b"")):
        damage()
        assert torch.equal(store.direction("base").vector, one.vector)
        store.restore_directions()
        assert path.read_bytes() == whole
    assert torch.equal(load_direction(path).vector, one.vector)
    # What completions were generated with is not replaced under them.
    store.add_direction(from_raw(torch.ones(32), name="base", layer=1), DirectionFacts(name="base"))
    assert torch.equal(store.direction("base").vector, one.vector)


def test_a_full_disk_keeps_what_was_finished_and_goes_on(tmp_path):
    store = begin(tmp_path)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 4}")
    stored = 0
    with pytest.raises(WorkError, match="all finished batches are kept; free some space and run the same command to resume"):
        for number in range(20):
            store.add_completions(batch(number))
            stored += 1
    assert 0 < stored < 20
    assert len(rows(store)) == stored * BATCH
    store.close()
    store = Store.create(tmp_path, "digest", "")
    for number in range(20):
        store.add_completions(batch(number))
    assert rows(store) == EVERYTHING


def test_files_that_may_not_grow_stop_a_run_with_what_is_kept(tmp_path):
    """RLIMIT_FSIZE in a child: the write itself fails, in SQLite's log and in a derived file."""
    child = os.fork()
    if not child:
        status = 70
        try:
            store = begin(tmp_path / "run")
            resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))
            try:
                for number in range(20):
                    store.add_completions(batch(number))
            except WorkError as error:
                status = 0 if "are kept" in str(error) else 71
            try:
                replace_file(tmp_path / "big", b"x" * 200_000)
                status = 72
            except WorkError as error:
                status = status if "free some space" in str(error) and not (tmp_path / "big").exists() else 73
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store = Store.create(tmp_path / "run", "digest", "")
    kept = rows(store)
    assert 0 < len(kept) < len(EVERYTHING)
    assert kept.items() <= EVERYTHING.items()
    for number in range(20):
        store.add_completions(batch(number))
    assert rows(store) == EVERYTHING
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


HOLDER = """
import sys, time
from pathlib import Path
from demur.runs.store import Store
store = Store.create(Path(sys.argv[1]), "digest", "")
print("held", flush=True)
time.sleep(600)
"""


def test_one_process_writes_and_others_read(tmp_path):
    begin(tmp_path).close()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        for fresh in (False, True):
            with pytest.raises(InputError, match=rf"written by process {holder.pid} on .* since \d{{4}}-.*another --out"):
                Store.create(tmp_path, "digest", "", fresh=fresh)
        reader = Store.open(tmp_path)
        reader.add_answers("prefix", [("cell-0", 0, Verdict("prefix", True, "refusal"))])
        with reader.report_held(), reader.snapshot():
            assert len(reader.verdicts()) == 1
    finally:
        holder.kill()
        holder.wait()
    # The lock went with its process.
    Store.create(tmp_path, "digest", "").close()
    assert (tmp_path / "run.lock").read_bytes() == b""


def test_a_snapshot_is_of_one_moment(tmp_path):
    writer = begin(tmp_path)
    writer.add_completions(batch(0))
    reader = Store.open(tmp_path)
    with reader.snapshot():
        assert len(rows(reader)) == BATCH
        writer.add_completions(batch(1))
        assert len(rows(reader)) == BATCH
    assert len(rows(reader)) == 2 * BATCH


def test_a_file_system_without_locks_is_said_to_have_none(tmp_path, monkeypatch):
    def none(handle, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(file_locks.fcntl, "flock", none)
    assert begin(tmp_path).manifest().warnings == (NO_LOCKS,)


def test_a_replaced_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = replace_file(tmp_path / "a" / "file", "old")

    def cut(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr("demur.core.atomic_files.os.fsync", cut)
    with pytest.raises(KeyboardInterrupt):
        replace_file(path, "new" * 1000)
    assert [(each.name, each.read_text()) for each in path.parent.iterdir()] == [("file", "old")]
    monkeypatch.undo()
    (tmp_path / "a" / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        replace_file(tmp_path / "a" / "folder", "x")
    with pytest.raises(InputError, match="cannot be written: File exists"):
        replace_file(path / "under", "x")


def test_what_a_kill_leaves_before_there_is_a_run_is_no_other_file(tmp_path):
    for name in ("run.lock", "run.sqlite.partial", "run.sqlite.partial-journal"):
        (tmp_path / name).write_text("half")
    begin(tmp_path).close()
    (tmp_path / "mine.txt").write_text("x")
    (tmp_path / "run.sqlite").unlink()
    with pytest.raises(InputError, match="holds other files and no run"):
        begin(tmp_path)


def test_fresh_leaves_no_log_of_the_old_run(cut_off):
    store = Store.create(cut_off, "other", "", fresh=True)
    assert rows(store) == {}
    assert store.digest == "other"
