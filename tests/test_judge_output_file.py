"""`demur judge --out` keeps what a judge's model answered, so a second command goes on where the first one stopped."""

import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core.errors import InputError
from demur.judges.asked.model_outputs import ModelOutput
from demur.judges.asked.output_file import OutputFile
from tests.judge_server import judge_file, judge_server

N = 12


@pytest.fixture
def server():
    with judge_server() as found:
        yield found


@pytest.fixture
def rows(tmp_path):
    """A file of completions, all different, every other one a refusal for the server's model."""
    path = tmp_path / "rows.jsonl"
    said = [f"This is answer number {i}, and I {'cannot' if i % 2 else 'can'} say it." for i in range(N)]
    path.write_text("".join(json.dumps({"instruction": "ask", "completion": text}) + "\n" for text in said))
    return path


def ask(rows, judge, out):
    return CliRunner().invoke(app, ["judge", str(rows), "--judge", judge, "--out", str(out)])


def verdicts(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_only_what_failed_is_asked_again(server, rows, tmp_path):
    judge, out = judge_file(tmp_path, server, max_tries=1), tmp_path / "verdicts.jsonl"
    server.rule = lambda number, _: "status 400" if number < 5 else "answer"
    first = ask(rows, judge, out)
    assert first.exit_code == 1
    assert "failed on 5 of 12 texts" in first.stderr
    assert sum("failure" in line for line in verdicts(out)) == 5
    second = ask(rows, judge, out)
    assert second.exit_code == 0, second.output
    assert "7 outputs of before are in" in second.stderr
    assert [line["label"] for line in verdicts(out)] == ["compliance", "refusal"] * 6
    assert len(server.bodies) == N + 5
    assert ask(rows, judge, out).exit_code == 0
    assert len(server.bodies) == N + 5


def test_a_kill_loses_only_what_was_on_its_way(server, rows, tmp_path):
    judge, out = judge_file(tmp_path, server, concurrency=1, most_concurrent=1), tmp_path / "verdicts.jsonl"
    server.rule = lambda number, _: "stall" if number == 5 else "answer"
    command = [
        sys.executable,
        "-c",
        "from demur.cli.main import app; app()",
        "judge",
        str(rows),
        "--judge",
        judge,
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command)
    while len(server.bodies) < 6:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists()
    assert ask(rows, judge, out).exit_code == 0
    assert [line["label"] for line in verdicts(out)] == ["compliance", "refusal"] * 6
    assert sorted(server.answered) == sorted({json.loads(line)["completion"] for line in rows.read_text().splitlines()})


def test_without_a_model_no_file_of_outputs_is_made(rows, tmp_path):
    assert ask(rows, "prefix", tmp_path / "verdicts.jsonl").exit_code == 0
    assert not list(tmp_path.glob("*.outputs"))


def test_a_line_that_a_kill_cut_is_replaced(tmp_path):
    path = tmp_path / "folder" / "verdicts.jsonl.outputs"
    outputs = [ModelOutput(f"key {i}", "asked", "model", "label: caf\u00e9\u2028\nsee", 3, None, 0.5) for i in range(3)]
    OutputFile(path).keep(outputs[:2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    kept = OutputFile(path)
    assert list(kept.outputs.values()) == outputs[:1]
    kept.keep(outputs[1:2])
    kept.keep(outputs[2:])
    again = OutputFile(path)
    assert list(again.outputs.values()) == outputs
    assert (again.cost("asked"), again.served("asked"), again.served("other")) == (1.5, "model", None)


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"key": "a"}'])
def test_another_file_of_this_name_is_refused_and_kept(tmp_path, line):
    path = tmp_path / "verdicts.jsonl.outputs"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1 of .* is not an output of a judge's model"):
        OutputFile(path)
    assert path.read_text() == line + "\n"
