"""A run folder that one was sent: whatever it holds, nothing outside it is written, deleted or truncated, and nothing hangs."""

import json
import os
import shutil
import signal
import sqlite3
import stat
from contextlib import closing

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from tests.tiny_study import make_study

PRECIOUS = "a file of the reader\n" * 400


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    study = make_study(folder)
    demur.run(demur.load_study(study, ["instructions.harmful.test=2", "instructions.harmless.test=1"]), folder / "run").close()
    with closing(sqlite3.connect(folder / "run" / "run.sqlite")) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # the whole run in one file, as it is sent
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run beside a folder of the reader's own, with a limit on the time that a test may hang."""
    shutil.copytree(finished, tmp_path / "run")
    own = tmp_path / "own"
    own.mkdir()
    for name in ("notes.txt", "x.safetensors", "rates.svg", "results.csv", "run.sqlite"):
        (own / name).write_text(PRECIOUS)
    (own / "directions").mkdir()
    (own / "directions" / "base.safetensors").write_text(PRECIOUS)

    def hangs(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield tmp_path / "run"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outside(run):
    """Everything outside the run folder: names, kinds, contents."""
    found = {}
    for path in sorted(run.parent.rglob("*")):
        if path != run and run not in path.parents:
            facts = path.lstat()
            found[str(path)] = (facts.st_mode, facts.st_size, path.read_bytes() if path.is_file() else b"")
    return found


def sql(*statements, values=()):
    def spoil(run):
        with closing(sqlite3.connect(run / "run.sqlite")) as db:
            db.execute("PRAGMA writable_schema = ON")
            for statement in statements:
                db.execute(statement, values)
            db.commit()

    return spoil


def renamed(name):
    return sql("UPDATE directions SET name = ? WHERE name = 'base'", values=(name,))


def renamed_outside(run):
    renamed(str(run.parent / "own" / "x"))(run)


def linked(name, target):
    """The entry of the run folder is a link to something of the reader's."""

    def spoil(run):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(run.parent / "own" / target)

    return spoil


def hard_linked(name):
    def spoil(run):
        (run / name).unlink(missing_ok=True)
        (run / name).parent.mkdir(exist_ok=True)
        os.link(run.parent / "own" / "notes.txt", run / name)

    return spoil


def pipe(name):
    def spoil(run):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        os.mkfifo(path)

    return spoil


def a_folder(name):
    def spoil(run):
        (run / name).unlink(missing_ok=True)
        (run / name / "inner").mkdir(parents=True)

    return spoil


def a_file(name):
    def spoil(run):
        shutil.rmtree(run / name)
        (run / name).write_text("no folder")

    return spoil


def sparse(name, size=1 << 42):
    def spoil(run):
        with (run / name).open("ab") as file:
            os.truncate(file.fileno(), size)

    return spoil


def page_lists(text):
    def spoil(run):
        (run / "report.html").write_text(f'<meta name="demur-files" content="{text}">')
        (run / "figures" / "mine.svg").write_text("of the run")
        (run / "tables" / "link.csv").symlink_to(run.parent / "own" / "results.csv")

    return spoil


def hot_journal(run):
    """A rollback journal that names another file, which SQLite would delete after a rollback."""
    target = str(run.parent / "own" / "notes.txt").encode()
    end = (1).to_bytes(4, "big") + target + len(target).to_bytes(4, "big") + sum(target).to_bytes(4, "big")
    magic = bytes.fromhex("d9d505f920a163d7")
    size = (run / "run.sqlite").stat().st_size // 4096
    head = magic + (0).to_bytes(4, "big") + (7).to_bytes(4, "big") + size.to_bytes(4, "big") + (512).to_bytes(4, "big")
    head += (4096).to_bytes(4, "big")
    (run / "run.sqlite-journal").write_bytes(head.ljust(512, b"\x00") + end + magic)


def rewritten(table, column, change):
    def spoil(run):
        with closing(sqlite3.connect(run / "run.sqlite")) as db:
            found = db.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
            for row, text in found:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (json.dumps(change(json.loads(text))), row))
            db.commit()

    return spoil


def studied(**changes):
    return rewritten(
        "meta", "value", lambda value: {**value, **changes} if isinstance(value, dict) and "judges" in value else value
    )


def early_format(run):
    """A run of the first format, whose directions are still files, with a name that leads out of the folder."""
    with closing(sqlite3.connect(run / "run.sqlite")) as db:
        db.execute("ALTER TABLE directions DROP COLUMN file")
        db.execute("ALTER TABLE completions DROP COLUMN own_turn")
        for table in ("measurements", "measurement_failures", "judge_failures", "means"):
            db.execute(f"DROP TABLE {table}")
        db.execute("UPDATE directions SET name = '../../own/x' WHERE name = 'base'")
        db.execute("PRAGMA user_version = 1")
        db.commit()


def own_code(run):
    """A judge of the folder's own, which would write into the reader's folder when it is imported."""
    (run / "hostilejudge.py").write_text(f"open({str(run.parent / 'own' / 'notes.txt')!r}, 'w').close()\n")
    studied(judges=["hostilejudge:Judge"])(run)


MARKUP = "<script>document.title=1</script><img src=x onerror=alert(1)>\x1b]0;owned\x07"
REFUSED = {
    "a direction two folders up": renamed("../../own/x"),
    "a direction in a folder": renamed("inner/x"),
    "a direction at an absolute path": renamed_outside,
    "a direction with NUL": renamed("base\x00.txt"),
    "a direction with a Windows path": renamed("..\\own\\x"),
    "a direction on a Windows drive": renamed("C:x"),
    "a direction called ..": renamed(".."),
    "a direction without a name": renamed(""),
    "a direction with a line end": renamed("base\nx"),
    "a direction with a name of 5000 letters": renamed("x" * 5000),
    "a direction whose name is a blob": renamed(b"\xff\xfe/../x"),
    "a direction that is a number": sql("UPDATE directions SET file = 3 WHERE name = 'base'"),
    "figures is a link": linked("figures", ""),
    "tables is a link": linked("tables", ""),
    "directions is a link": linked("directions", "directions"),
    "figures is a link to nothing": linked("figures", "missing"),
    "figures is a file": a_file("figures"),
    "directions is a pipe": pipe("directions"),
    "run.sqlite is a link": linked("run.sqlite", "run.sqlite"),
    "run.sqlite is a pipe": pipe("run.sqlite"),
    "run.sqlite-wal is a link": linked("run.sqlite-wal", "notes.txt"),
    "run.sqlite-shm is a link": linked("run.sqlite-shm", "missing"),
    "run.sqlite-journal is a link": linked("run.sqlite-journal", "notes.txt"),
    "run.sqlite-wal is a pipe": pipe("run.sqlite-wal"),
    "run.sqlite-journal names another file": hot_journal,
    "report.lock is a link": linked("report.lock", "notes.txt"),
    "report.lock is a link to nothing": linked("report.lock", "missing"),
    "report.lock is a hard link": hard_linked("report.lock"),
    "report.lock is a pipe": pipe("report.lock"),
    "report.html is a link": linked("report.html", "notes.txt"),
    "report.html is a pipe": pipe("report.html"),
    "report.html is a folder": a_folder("report.html"),
    "summary.json is a link": linked("summary.json", "notes.txt"),
    "a figure is a link": linked("figures/rates.svg", "rates.svg"),
    "a table is a pipe": pipe("tables/results.csv"),
    "a direction's file is a link": linked("directions/base.safetensors", "x.safetensors"),
    "summary.json.partial is a folder": a_folder("summary.json.partial"),
    "a trigger": sql(
        "CREATE TRIGGER act AFTER INSERT ON verdicts BEGIN DELETE FROM completions; END",
        "DELETE FROM verdicts WHERE position = 0",
    ),
    "a view in place of a table": sql("ALTER TABLE verdicts RENAME TO kept", "CREATE VIEW verdicts AS SELECT * FROM kept"),
    "a virtual table": sql("CREATE VIRTUAL TABLE notes USING fts4(x)"),
    "a generated column": sql("ALTER TABLE cells ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))"),
    "a value of 300 MB": sql("UPDATE directions SET file = zeroblob(300000000) WHERE name = 'base'"),
    "the first format with a name that leads out": early_format,
    "facts that are no JSON": sql("UPDATE cells SET facts = '{'"),
    "facts of another kind": sql("UPDATE cells SET facts = '[1, 2]'"),
    "facts nested a million times": sql("UPDATE meta SET value = ? WHERE key = 'edits'", values=("[" * 1_000_000,)),
    "a study that is a list": sql("UPDATE meta SET value = '[]' WHERE key = 'study_facts'"),
    "token ids that are no JSON": sql("UPDATE completions SET token_ids = 'x'"),
    "a table is missing": sql("DROP TABLE verdicts"),
    "a judge that is no name": studied(judges=["../../own/x"]),
    "a cell with an unknown kind of edit": rewritten(
        "cells", "facts", lambda facts: {**facts, "intervention": "../x", "action": ""}
    ),
    "a judge that is code in the folder": own_code,
    "a study that lacks its direction": studied(direction=None),
    "a study without judges": studied(judges=[]),
}

HARMLESS = {
    "summary.json.partial is a link": linked("summary.json.partial", "notes.txt"),
    "report.html.partial is a link": linked("report.html.partial", "notes.txt"),
    "report.html.partial is a pipe": pipe("report.html.partial"),
    "summary.json.partial is a hard link": hard_linked("summary.json.partial"),
    "a figure's partial file is a link": linked("figures/rates.svg.partial", "rates.svg"),
    "a direction's partial file is a link to nothing": linked("directions/base.safetensors.partial", "missing"),
    "report.html is a hard link": hard_linked("report.html"),
    "a table is a hard link": hard_linked("tables/results.csv"),
    "a direction's file is a hard link": hard_linked("directions/base.safetensors"),
    "report.html of 4 TB": sparse("report.html"),
    "a direction's file of 4 TB": sparse("directions/base.safetensors"),
    "a page that lists other files": page_lists("figures/../../own/notes tables/link tables/../../own/results /etc/passwd"),
    "a page that is no text": lambda run: (run / "report.html").write_bytes(b"\xff\xfe" * 1000),
    "markup in the study's name and summary": studied(name=MARKUP, summary=MARKUP),
    "markup in the completions": sql("UPDATE completions SET completion = ?, instruction = ?", values=(MARKUP, MARKUP)),
    "markup in labels and reasons": sql("UPDATE verdicts SET label = ?, evidence = ?", values=(MARKUP, MARKUP)),
    "a direction whose facts name another file": rewritten(
        "directions", "facts", lambda facts: {**facts, "file": "../../own/notes.txt"}
    ),
    "a summary that is no JSON": lambda run: (run / "summary.json").write_text("{"),
}


def test_there_are_forty_kinds():
    assert len(REFUSED) + len(HARMLESS) >= 40


def reported(run, *more):
    result = CliRunner().invoke(app, ["report", str(run), *more])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_leads_elsewhere_is_refused_and_nothing_there_is_changed(run, kind, monkeypatch):
    REFUSED[kind](run)
    monkeypatch.syspath_prepend(run)
    before = outside(run)
    for command in (["report"], ["export"], ["compare", str(run)]):
        result = CliRunner().invoke(app, [command[0], str(run), *command[1:]])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert outside(run) == before
        if command == ["report"]:
            assert result.exit_code == 2, result.output
            assert result.stderr.startswith("demur: ")
            assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", HARMLESS)
def test_a_folder_that_can_be_used_is_reported_and_nothing_elsewhere_is_changed(run, kind):
    HARMLESS[kind](run)
    before = outside(run)
    result = reported(run)
    assert result.exit_code == 0, result.output
    assert outside(run) == before
    page = run / "report.html"
    assert stat.S_ISREG(page.lstat().st_mode)
    assert "<script>document.title" not in page.read_text(encoding="utf-8")
    assert "<img src=x" not in page.read_text(encoding="utf-8")
    json.loads((run / "summary.json").read_text(encoding="utf-8"))
