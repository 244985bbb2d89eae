"""A reader that closes the pipe, such as head, is no failure of the command."""

import subprocess
import sys

import pytest


def status(*arguments, read):
    """The exit status of a command whose output is closed after `read` bytes, and what it says of an error."""
    command = [sys.executable, "-c", "from demur.cli.main import main; main()", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(read)
        process.stdout.close()
        said = process.stderr.read().decode()
        return process.wait(), said


@pytest.mark.parametrize("read", [0, 5])
@pytest.mark.parametrize("arguments", [("--help",), ("presets",), ("compare", "RUN", "RUN"), ("export", "RUN")])
def test_a_closed_pipe_is_no_failure(runs, arguments, read):
    given = [runs[0] if each == "RUN" else each for each in arguments]
    assert status(*given, read=read) == (0, "")


def test_a_failure_stays_one(tmp_path):
    found, said = status("plan", "nosuch", read=0)
    assert (found, "neither a preset nor a study file" in said) == (2, True)
