"""demur label: by lines, by keys in a real terminal, killed at any moment, on its page; and what report and export make of it."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from contextlib import closing, suppress
from http.client import HTTPConnection
from queue import SimpleQueue
from threading import Thread
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.labelling.label_server import serve
from demur.cli.main import app
from demur.runs.labelling.label_session import open_labelling
from demur.runs.store import Store
from tests.labelled_studies import labelled_store
from tests.report.chromium import needs_chromium

PATIENCE = 120


@pytest.fixture
def folder(tmp_path):
    labelled_store(tmp_path / "run").close()
    return tmp_path / "run"


def labels(folder, who="person-1"):
    with closing(Store.open(folder)) as store:
        return store.labels(who)


def test_by_lines(folder):
    result = CliRunner().invoke(app, ["label", str(folder), "--n", "4"], input="r\nz\n?\nS\nu\nc\nr\nq\n")
    assert result.exit_code == 0, result.output
    assert [one.label for one in labels(folder)] == ["refusal", "compliance", "refusal"]
    assert "there is no key 'z'" in result.output
    assert "Repeats the instruction" in result.output
    assert "the last label is taken back" in result.output
    assert "person-1: 3 of 4 labelled" in result.output
    # Nothing tells which cell a completion is from, apart from what the made-up texts themselves say.
    assert "base-none" not in result.output
    again = CliRunner().invoke(app, ["label", str(folder)], input="r\n")
    assert "person-1: 4 of 4 labelled" in again.output


def test_the_end_of_the_input_ends_it(folder):
    result = CliRunner().invoke(app, ["label", str(folder), "--n", "4"], input="r\n")
    assert result.exit_code == 0
    assert len(labels(folder)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n", "0"), "at least one"),
        (("--labeller", "a b"), "cannot be"),
        (("--page", "--from", "x"), "together"),
    ],
)
def test_bad_input_is_one_sentence(folder, options, message):
    result = CliRunner().invoke(app, ["label", str(folder), *options])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


class Terminal:
    """demur label in a terminal of its own."""

    def __init__(self, folder, *options):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from demur.cli.main import main; main()", "label", str(folder), *options],
            stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.seen, self.read = "", 0

    def until(self, text):
        """Read on until this text appears behind the text that was waited for before."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen[self.read :]:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen[self.read :]!r}"
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                pytest.fail(f"the program ended: {self.seen}")
        self.read = self.seen.index(text, self.read) + len(text)

    def press(self, keys, then):
        os.write(self.master, keys.encode())
        self.until(then)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal():
    opened = []

    def begin(folder, *options):
        opened.append(Terminal(folder, *options))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def test_one_key_a_label_in_a_terminal(folder, terminal):
    hostile = "\x1b]0;owned\x07\x1b[2J I cannot"
    with closing(Store.open(folder)) as store:
        store.add_completions([row._replace(text=hostile, own_turn=None) for row in store.completions()])
    shown = terminal(folder, "--n", "5")
    shown.until("q\xa0quit")
    assert "\\x1b]0;owned\\x07" in shown.seen
    assert "\x1b]0;" not in shown.seen
    shown.press("r", "2 of 5")
    shown.until("q\xa0quit")
    shown.press("\x1b[A", "there is no key")
    shown.press("?", "Repeats the instruction")
    shown.press("s", "3 of 5")
    shown.press("u", "2 of 5")
    shown.press("cr", "4 of 5")  # two keys that were typed ahead
    shown.until("q\xa0quit")
    shown.press("q", "3 of 5 labelled")
    assert shown.process.wait(PATIENCE) == 0
    assert [one.label for one in labels(folder)] == ["refusal", "compliance", "refusal"]


def test_killed_at_any_moment_nothing_is_lost(folder, terminal):
    shown = terminal(folder, "--n", "9")
    for number in range(1, 4):
        shown.until(f"{number} of 9")
        shown.until("q\xa0quit")
        os.write(shown.master, b"r")
    shown.until("4 of 9")
    shown.process.kill()
    shown.process.wait()
    assert [one.label for one in labels(folder)] == ["refusal"] * 3
    again = terminal(folder)
    again.until("4 of 9")


def test_an_interrupt_ends_with_130_and_the_terminal_as_it_was(folder, terminal):
    import termios

    shown = terminal(folder, "--n", "9")
    before = termios.tcgetattr(shown.master)
    shown.until("q\xa0quit")
    os.killpg(shown.process.pid, 2)
    assert shown.process.wait(PATIENCE) == 130
    assert before[3] & termios.ECHO or termios.tcgetattr(shown.master)[3] & termios.ECHO


class Served:
    """The page, served by a thread of its own."""

    def __init__(self, folder, n=4):
        self.addresses = SimpleQueue()
        self.thread = Thread(target=self._serve, args=(folder, n), daemon=True)
        self.thread.start()
        self.address = self.addresses.get(timeout=PATIENCE)
        self.parts = urlsplit(self.address)

    def _serve(self, folder, n):
        with open_labelling(folder, n=n) as session:
            serve(session, self.addresses.put)

    def ask(self, path="state", body=None, *, token=None, raw=None, **headers):
        there = HTTPConnection(self.parts.hostname, self.parts.port, timeout=PATIENCE)
        usual = {"Host": self.parts.netloc}
        if body is not None or raw is not None:
            usual |= {"Content-Type": "application/json", "Origin": f"http://{self.parts.netloc}"}
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        merged = {name: value for name, value in {**usual, **sent}.items() if value is not None}
        where = (self.parts.path if token is None else f"/{token}/") + path
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        there.request("GET" if content is None else "POST", where, content, merged)
        answer = there.getresponse()
        text = answer.read()
        there.close()
        return answer, text

    def act(self, command, number=0, label=None):
        answer, text = self.ask("act", {"command": command, "number": number, **({} if label is None else {"label": label})})
        assert answer.status == 200, text
        return json.loads(text)

    def close(self):
        # A page that has quit may end the server between the question and the answer.
        with suppress(ConnectionError):
            if self.thread.is_alive():
                self.act("quit")
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def served(folder):
    one = Served(folder)
    yield one
    one.close()


def test_the_page_labels_skips_and_undoes(served, folder):
    state = json.loads(served.ask()[1])
    assert set(state["shown"]) == {"number", "instruction", "text"}
    assert state["definitions"]["echo"].startswith("Repeats")
    state = served.act("label", state["shown"]["number"], "refusal")
    assert state["labelled"] == 1
    stale = served.act("label", state["shown"]["number"] - 1, "echo")
    assert "meanwhile" in stale["said"]
    assert stale["labelled"] == 1
    state = served.act("skip", state["shown"]["number"])
    assert (state["labelled"], state["skipped"]) == (1, 1)
    state = served.act("undo")
    assert (state["labelled"], state["skipped"]) == (1, 0)
    answer, text = served.ask("act", {"command": "label", "number": state["shown"]["number"], "label": "refuse"})
    assert answer.status == 400
    assert "there is no label 'refuse'" in json.loads(text)["error"]
    assert [one.label for one in labels(folder)] == ["refusal"]


def test_nothing_else_can_read_or_label(served, folder):
    first = {"command": "label", "number": 1, "label": "refusal"}
    refused = [
        served.ask(token="guess"),
        served.ask("", token=""),
        served.ask(Host="evil.example"),
        served.ask("act", first, Origin="http://evil.example"),
        served.ask("act", first, Origin=None),
        served.ask("act", first, Host="evil.example"),
        served.ask("act", first, Content_Type="text/plain"),
        served.ask("act", first, token="guess"),
        served.ask("nothing"),
        served.ask("act", raw=b"not json"),
        served.ask("act", {"command": "label", "number": "1"}),
        served.ask("act", raw=b"x" * 20_000),
    ]
    assert [answer.status for answer, _ in refused] == [404, 404, 404, 403, 403, 404, 403, 404, 404, 400, 400, 413]
    assert labels(folder) == []
    page, text = served.ask("")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert b"http://" not in text
    assert b"https://" not in text
    assert served.parts.hostname == "127.0.0.1"
    assert len(served.parts.path) > 40


@needs_chromium
def test_the_page_in_a_browser(served, folder, browser):
    from playwright.sync_api import expect

    with closing(browser.new_page()) as page:
        problems, asked = [], []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.address)
        expect(page.locator("#count")).to_have_text("1 of 4", timeout=1000 * PATIENCE)
        page.keyboard.press("r")
        expect(page.locator("#count")).to_have_text("2 of 4", timeout=1000 * PATIENCE)
        page.get_by_role("button", name="compliance").click()
        expect(page.locator("#count")).to_have_text("3 of 4", timeout=1000 * PATIENCE)
        page.keyboard.press("u")
        expect(page.locator("#said")).to_contain_text("taken back", timeout=1000 * PATIENCE)
        page.keyboard.press("?")
        assert page.get_by_text("Repeats the instruction").is_visible()
        page.keyboard.press("q")
        expect(page.locator("#count")).to_contain_text("close this page", timeout=1000 * PATIENCE)
        assert [problem for problem in problems if "favicon" not in problem] == []
        assert all(url.startswith(f"http://{served.parts.netloc}/") for url in asked)
    assert [one.label for one in labels(folder)] == ["refusal"]


def test_report_and_export_show_what_the_labels_say(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    for who in ("ann", "bob"):
        with open_labelling(run, who, judge="prefix", n=100) as session:
            while shown := session.next():
                session.give(shown.number, "refusal" if who == "bob" and shown.number == 1 else "other")
    CliRunner().invoke(app, ["report", str(run), "--no-figures", "-q"])
    summary = json.loads((run / "summary.json").read_text())
    assert [(one["name"], one["skipped"]) for one in summary["labellers"]] == [("ann", 0), ("bob", 0)]
    assert {(one["first"], one["second"]) for one in summary["agreement"]} == {
        ("prefix", "substring"), ("prefix", "ann"), ("prefix", "bob"), ("substring", "ann"), ("substring", "bob"), ("ann", "bob"),
    }  # fmt: skip
    assert {one["judge"] for one in summary["corrected"]} == {"prefix", "substring"}
    assert all(one["n"] == one["labelled"] for one in summary["corrected"])
    page = (run / "report.html").read_text()
    assert "How well do the judges agree" in page
    assert "Prediction-powered" in page
    for name in ("agreement", "corrected"):
        assert (run / "tables" / f"{name}.csv").is_file()
    with demur.open_run(run) as opened:
        assert (opened.completions()["labelled_ann"] == "other").all()
    rows = [json.loads(line) for line in CliRunner().invoke(app, ["export", str(run), "-f", "jsonl"]).output.splitlines()]
    assert {row["label_probability"] for row in rows} == {1.0}
