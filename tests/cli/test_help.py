"""Help: at once, with examples that the parser takes, within 80 columns."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core.registry import register, registry

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)
HEAVY = ("torch", "transformers", "peft", "pandas", "numpy", "scipy", "matplotlib", "rich", "pyarrow", "plotly", "gguf")


def test_help_of_no_command_imports_anything_heavy():
    code = (
        "import sys, demur.cli.main\n"
        f"for name in {['', *COMMANDS]!r}:\n"
        "    try:\n        demur.cli.main.app([*name.split(), '--help'])\n"
        "    except SystemExit as end:\n        assert not end.code, name\n"
        f"print([name for name in {(*HEAVY, 'pydantic')!r} if name in sys.modules])\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
    assert output.count("Usage: ") == 1 + len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples_quiet_and_no_python(name):
    text = CliRunner().invoke(app, [name, "--help"], terminal_width=80).output
    before, word, examples = text.partition("  Example")
    assert word
    assert examples.splitlines()[1].startswith(f"    demur {name} ") or examples.splitlines()[1] == f"    demur {name}"
    assert "--quiet" in before
    assert not {"<", ">"} & set(re.sub(r"x>=\d", "", before))
    assert max(map(len, before.splitlines())) <= 80


def test_the_list_of_commands_is_whole():
    text = CliRunner().invoke(app, ["--help"], terminal_width=80).output
    assert "..." not in text.replace("[ARGS]...", "")
    assert max(map(len, text.splitlines())) <= 80
    for name in COMMANDS:
        assert f"\n  {name} " in text
    for section in ("Studies and their runs:", "One checkpoint:", "Files:"):
        assert f"\n{section}\n" in text


def _examples():
    for name, command in GROUP.commands.items():
        lines = command.epilog.split("\n")[2:]
        for line in "\n".join(lines).replace("\\\n", " ").split("\n"):
            yield pytest.param(name, line.strip(), id=line.strip())


@pytest.mark.parametrize(("name", "line"), list(_examples()))
def test_examples_are_commands_that_the_parser_takes(name, line):
    words = shlex.split(line.partition(" > ")[0])
    assert words[:2] == ["demur", name]
    with contextlib.redirect_stderr(io.StringIO()):
        context = GROUP.commands[name].make_context(name, words[2:])
    assert context.params


ROOT = Path(__file__).parents[2]


def _documented():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^    (demur [^\n]*)", text, flags=re.M):
            yield pytest.param(line, id=f"{page.name}: {line}")


@pytest.mark.parametrize("line", list(_documented()))
def test_commands_in_the_documentation_are_taken_by_the_parser(line):
    first = re.split(r" > | && ", line)[0].replace("$M", "--model M")
    _, name, *words = shlex.split(first, comments=True)
    if name.startswith("--"):
        assert name in ("--install-completion", "--show-completion", "--help")
    elif "--help" not in words:
        assert GROUP.commands[name].make_context(name, words).params


def test_help_lists_what_is_registered():
    register("judge", "of-ones-own", "tests.study_parts:Shouting")
    try:
        for command, kind in (("judge", "judge"), ("report", "judge"), ("export", "export")):
            text = " ".join(CliRunner().invoke(app, [command, "--help"], terminal_width=80).output.split())
            text = text.replace("- ", "-")  # a line may end behind a hyphen of a name
            for name in registry(kind).names():
                assert name in text, (command, name)
    finally:
        registry("judge").unregister("of-ones-own")


def test_demur_alone_shows_its_help():
    alone, helped = (CliRunner().invoke(app, arguments, terminal_width=80) for arguments in ([], ["--help"]))
    assert (alone.exit_code, alone.stderr) == (0, "")
    assert alone.stdout == helped.stdout
