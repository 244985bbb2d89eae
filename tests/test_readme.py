"""What the README shows runs: its Python on the demo checkpoint, its commands as far as they exist."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demur.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.soak
def test_the_python_example_runs(smollm, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in ("none", "ablate", "add")] == [
        "none",
        "ablate",
        "add",
    ]


def test_every_command_that_is_named_exists():
    help_text = CliRunner().invoke(app, ["--help"]).output
    named = re.search(r"lists the commands: (.*?)\.\n", README, flags=re.S)
    assert named is not None
    for command in re.findall(r"`([a-z]+)`", named[1]):
        assert f"\n  {command} " in help_text


def test_files_that_are_linked_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
