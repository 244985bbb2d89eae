"""The end of a run: a folder that was moved, an archive that cannot be written, a lock of another process, a closed pipe."""

import contextlib
import csv
import errno
import fcntl
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core import file_locks
from demur.core.atomic_files import cannot_write
from demur.core.errors import InputError, WorkError
from demur.runs import driver
from demur.runs.database import archived_file
from demur.runs.store import REPORT_LOCK
from tests.tiny_study import make_study


def invoke(*command):
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def after_two_records(monkeypatch, act):
    count = []

    def commit(record, store, real=driver.commit):
        real(record, store)
        count.append(record)
        if len(count) == 2:
            act()

    monkeypatch.setattr(driver, "commit", commit)


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


def test_a_folder_that_is_moved_while_a_run_works_ends_it_and_the_message_says_where_it_is(study, tmp_path, monkeypatch):
    out, moved = tmp_path / "run", tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        after_two_records(patch, lambda: out.rename(moved))
        result = invoke("run", study, "--out", out, "--quiet")
    assert result.exit_code == 1
    assert f"was moved to '{moved}'" in result.stderr
    assert not out.exists()
    assert invoke("run", study, "--out", moved, "--quiet").exit_code == 0
    assert (moved / "report.html").is_file()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_deleted_while_a_run_works_ends_it(study, tmp_path, monkeypatch, replaced):
    out = tmp_path / "run"

    def delete():
        shutil.rmtree(out)
        if replaced:
            out.mkdir()
            (out / "run.sqlite").write_bytes(b"another")

    after_two_records(monkeypatch, delete)
    result = invoke("run", study, "--out", out, "--quiet")
    assert result.exit_code == 1
    assert "was moved, deleted or replaced while the run was at work" in result.stderr
    assert not (out / "report.html").exists()


def everything(folder):
    return {
        path.relative_to(folder): (path.lstat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def archive(runs, tmp_path, monkeypatch):
    """A run that cannot be written. The tests may run as root, whom no mode keeps out, so the question is answered for them."""
    folder = tmp_path / "archive"
    shutil.copytree(runs[0], folder)
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (str(path).startswith(str(folder)) and mode & os.W_OK) and real(path, mode)
    )
    return folder


@pytest.fixture(params=["whole", "with its log", "of an earlier format"])
def kinds_of_archive(archive, request):
    if request.param == "with its log":
        other = sqlite3.connect(archive / "run.sqlite")
        other.execute("UPDATE meta SET value = value")
        other.commit()
        kept = {end: (archive / f"run.sqlite{end}").read_bytes() for end in ("", "-wal")}
        other.close()
        for end, content in kept.items():
            (archive / f"run.sqlite{end}").write_bytes(content)
    if request.param == "of an earlier format":
        with closing(sqlite3.connect(archive / "run.sqlite")) as db:
            db.execute("ALTER TABLE measurement_failures ADD COLUMN try_again INTEGER NOT NULL DEFAULT 0")
            db.execute("ALTER TABLE completions DROP COLUMN own_turn")
            db.execute("DROP TABLE means")
            db.execute("PRAGMA user_version = 4")
            db.commit()
    return archive


def test_an_archived_run_is_read_and_left_as_it_is(kinds_of_archive, runs, tmp_path):
    archive = kinds_of_archive
    before = everything(archive)
    with demur.open_run(archive) as run, demur.open_run(runs[0]) as original:
        assert run.completions().equals(original.completions())
        assert run.summary()["claims"] == original.summary()["claims"]
    assert invoke("export", archive).stdout == invoke("export", runs[0]).stdout
    assert invoke("compare", archive, runs[1]).exit_code == 0
    result = invoke("report", archive)
    assert result.exit_code == 2
    assert f"demur report {archive} --out DIR copies the run" in result.stderr
    assert everything(archive) == before
    for _ in range(2):  # the second time replaces the copy
        assert invoke("report", archive, "--out", tmp_path / "copy", "--judge", "taxonomy").exit_code == 0
    assert everything(archive) == before
    assert (tmp_path / "copy" / "report.html").is_file()
    with demur.open_run(tmp_path / "copy") as copy:
        assert "taxonomy" in copy.judges()


def test_a_copy_replaces_no_other_files(archive, runs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    shutil.copytree(runs[1], tmp_path / "other")
    for target in ("mine", "other"):
        result = invoke("report", archive, "--out", tmp_path / target)
        assert result.exit_code == 2
        assert "holds other files than a copy of" in result.stderr
    assert (tmp_path / "mine" / "notes.txt").read_text() == "x"


def test_a_hard_linked_backup_is_read_and_not_written(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "backup", copy_function=os.link)
    assert not archived_file.can_be_written(tmp_path / "backup" / "run.sqlite")
    before = everything(runs[0])
    assert invoke("export", tmp_path / "backup").exit_code == 0
    assert invoke("report", tmp_path / "backup").exit_code == 2
    assert everything(runs[0]) == before


HOLDER = """
import os, signal, sys, time
from pathlib import Path
from demur.core import file_locks
lock = file_locks.hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(120)
"""


def test_a_report_that_waits_says_for_whom(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs[0], folder)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder / REPORT_LOCK)], stdout=subprocess.PIPE, text=True)
    told = []

    def waiting(sentence):
        told.append(sentence)
        holder.kill()

    try:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        with demur.open_run(folder) as run:
            run.report(waiting=waiting)
    finally:
        holder.kill()
        holder.wait()
    assert len(told) == 1
    assert f"process {holder.pid} on " in told[0]
    assert ("it goes on when that process ends" in told[0], "stopped; kill -CONT" in told[0]) == (True, sys.platform == "linux")


def test_waiting_says_how_long(tmp_path, monkeypatch):
    monkeypatch.setattr(file_locks, "_TELL_EVERY", 0.05)
    monkeypatch.setattr(file_locks, "_LOOK_EVERY", 1.1)
    first, told = file_locks.hold(tmp_path / "lock"), []

    def waiting(sentence):
        told.append(sentence)
        if len(told) == 2:
            first.release()

    with file_locks.held(tmp_path / "lock", waiting):
        pass
    assert f"waiting for process {os.getpid()} on " in told[0]
    assert "waiting (for 1 s now) for process" in told[1]


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, WorkError, "free some space"),
        (errno.EDQUOT, WorkError, "quota"),
        (errno.EFBIG, WorkError, "ulimit -f"),
        (errno.EIO, WorkError, "check the disk and its connection"),
        (errno.EACCES, InputError, "give another place"),
        (errno.EROFS, InputError, "give another place"),
    ],
)
def test_the_advice_fits_the_error(tmp_path, number, kind, advice):
    error = cannot_write(tmp_path, OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert advice in str(error)
    assert ("free some space" in str(error)) == (number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def demur_command(*command, **more):
    code = "from demur.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, command)], stderr=subprocess.PIPE, **more)


@pytest.mark.parametrize("command", [("export",), pytest.param(("report", "--quiet"), marks=pytest.mark.soak), ("--help",)])
def test_a_closed_pipe_is_no_failure(runs, tmp_path, command):
    folder = tmp_path / "run"
    shutil.copytree(runs[0], folder)
    reading, writing = os.pipe()
    os.close(reading)
    process = demur_command(command[0], *([folder] if command[0] != "--help" else []), *command[1:], stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=120)[1] == b""
    assert process.returncode == 0


@pytest.mark.soak
def test_a_run_whose_messages_nobody_reads_is_finished(study, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    code = "from demur.cli.main import main; main()"
    with contextlib.closing(os.fdopen(writing, "w")) as closed:
        done = subprocess.run(
            [sys.executable, "-c", code, "run", str(study), "--out", str(tmp_path / "run")],
            stdout=closed, stderr=closed, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert (tmp_path / "run" / "report.html").is_file()


ESCAPES = "\x1b]0;owned\x07 \x1b[31mred \x9b31m back\rover \u202eesrever\u2066 \x08\x7f end"


@pytest.fixture
def escaping(runs, tmp_path):
    """A run whose names and texts are full of control characters."""
    folder = tmp_path / "escaping"
    shutil.copytree(runs[0], folder)
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        for key in ("study_facts",):
            facts = json.loads(db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])
            facts |= {"name": ESCAPES, "summary": ESCAPES}
            db.execute("UPDATE meta SET value = ? WHERE key = ?", (json.dumps(facts), key))
        db.execute("INSERT OR REPLACE INTO meta VALUES ('warnings', ?)", (json.dumps([ESCAPES]),))
        db.execute("UPDATE completions SET completion = ?, instruction = instruction || ?", (ESCAPES, ESCAPES))
        for key, text in db.execute("SELECT key, facts FROM cells").fetchall():
            cell = json.loads(text) | {"source": ESCAPES} if json.loads(text)["intervention"] != "none" else json.loads(text)
            db.execute("UPDATE cells SET facts = ? WHERE key = ?", (json.dumps(cell), key))
        db.commit()
    return folder


BAD = {chr(number) for number in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def on_a_terminal(*command):
    """What a command writes to a terminal, with standard error."""
    leader, follower = pty.openpty()
    fcntl.fcntl(leader, fcntl.F_SETFL, fcntl.fcntl(leader, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    code = "from demur.cli.main import main; main()"
    env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, command)], stdout=follower, stderr=follower, env=env)
    os.close(follower)
    content = b""
    with contextlib.suppress(OSError):
        while piece := os.read(leader, 65536):
            content += piece
    os.close(leader)
    process.wait()
    return content.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "command",
    [
        ("report",),
        ("export",),
        *(
            pytest.param(one, marks=pytest.mark.soak)
            for one in (("export", "--raw"), ("export", "--format", "jsonl"), ("compare",))
        ),
    ],
)
def test_no_control_character_reaches_a_terminal(escaping, runs, command):
    name, *more = command
    shown = on_a_terminal(name, escaping, *(more if name != "compare" else [escaping]))
    assert "\\x1b" in shown or "\\u001b" in shown or name == "compare"
    assert not BAD & set(shown), sorted(map(ascii, BAD & set(shown)))


def test_a_study_in_a_file_and_errors_write_their_control_characters_out(study, tmp_path):
    summary = json.dumps(ESCAPES).replace("\x7f", "\\u007f")  # as TOML writes it
    study.write_text(study.read_text().replace('name = "tiny"', f'name = "tiny"\nsummary = {summary}'))
    missing = tmp_path / f"{ESCAPES[:20]}.jsonl"
    for status, command in ((0, ["plan", study]), (2, ["doctor", "--model", f"/nowhere/{ESCAPES}"]), (2, ["judge", missing])):
        result = invoke(*command)
        assert (result.exit_code, BAD & set(result.output)) == (status, set()), result.output


def test_a_raw_file_keeps_every_text_and_a_spreadsheet_gets_none_that_acts(escaping, tmp_path):
    live = ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1", "-0.5", "+1e3", "- a list", "fine"]
    with closing(sqlite3.connect(escaping / "run.sqlite")) as db:
        rows = db.execute("SELECT cell, position FROM completions ORDER BY cell, position LIMIT ?", (len(live),)).fetchall()
        for (cell, position), text in zip(rows, live, strict=True):
            db.execute("UPDATE completions SET completion = ? WHERE (cell, position) = (?, ?)", (text, cell, position))
        db.commit()
    found = {}
    for how in ((), ("--raw",)):
        assert invoke("export", escaping, "--out", tmp_path / "rows.csv", *how).exit_code == 0
        with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
            found[how] = {row["completion"] for row in csv.DictReader(file)}
    assert {*live, ESCAPES} == found["--raw",]
    assert {f"'{text}" for text in live[:7]} | {"-0.5", "+1e3", "'- a list", "fine"} <= found[()]
    assert not any("\x1b" in text for text in found[()])
    lines = invoke("export", escaping, "--format", "jsonl").stdout
    assert not BAD & set(lines)
    assert {json.loads(line)["completion"] for line in lines.splitlines()} == {*live, ESCAPES}
    result = invoke("export", escaping, "--format", "jsonl", "--raw")
    assert (result.exit_code, "--raw is for csv" in result.stderr) == (2, True)
    assert invoke("report", escaping).exit_code == 0
    for table in (escaping / "tables").glob("*.csv"):
        text = table.read_text(encoding="utf-8")
        assert "\x1b" not in text
        for row in csv.reader(text.splitlines()):
            assert not any(cell[:1] in "=+@\t" and cell for cell in row), row
