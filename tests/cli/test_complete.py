"""What a shell offers, asked as bash asks; and that it imports nothing heavy."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import demur
from demur.cli import shell_completion
from demur.cli.main import app
from demur.core.registry import registry
from demur.inputs.prompt_formats import FORMATS, NATIVES
from demur.study.study_files import preset_names
from tests.cli.test_help import HEAVY


def offered(line):
    words = line.split(" ")
    asked = {"_DEMUR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return CliRunner().invoke(app, [], env=asked, prog_name="demur").output.split()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/second", "notes"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/first/run.sqlite", "mine.toml", "rows.jsonl", "rows.csv", "one.safetensors", "notes/run.sqlite"):
        (tmp_path / name).touch()
    return tmp_path


def test_presets_and_study_files(place):
    assert set(preset_names()) < set(offered("demur run "))
    assert "mine.toml" in offered("demur plan ")
    assert offered("demur plan dem") == ["demo", "demo-arms", "demo-sweep"]
    assert "rows.csv" not in offered("demur plan ")


def test_names_that_are_registered(place):
    assert set(offered("demur generate --prompt ")) == {*FORMATS, *NATIVES}
    for kind, name, line in (("prompt", "mine", "--prompt"), ("instructions", "mine", "--instructions"), ("judge", "mine", "")):
        demur.register(kind, name, f"{__name__}:OWN")
        asked = f"demur generate {line} m" if line else "demur judge rows.jsonl --judge m"
        assert "mine" in offered(asked)
        registry(kind).unregister(name)
        assert "mine" not in offered(asked)
    assert offered("demur judge rows.jsonl --judge ") == list(registry("judge").names())
    assert offered("demur generate --instructions contrast-harm") == ["contrast-harmful", "contrast-harmless"]
    assert {"advbench", "rows.csv", "rows.jsonl"} <= set(offered("demur extract --harmful "))
    assert offered("demur export notes --format p") == ["parquet"]
    assert offered("demur select demo --by c") == ["cosmic"]
    assert offered("demur extract --estimator w") == ["whitened"]
    assert offered("demur generate --unit r") == ["raw", "residual"]
    assert offered("demur generate --sites resid_pre,resid_p") == ["resid_pre,resid_pre", "resid_pre,resid_post"]
    assert offered("demur directions ") == ["notes/", "one.safetensors", "runs/"]


def test_run_folders(place):
    assert set(offered("demur report ")) == {"notes", "runs/first"}
    assert offered("demur compare notes runs/") == ["runs/first"]
    assert offered("demur export ru") == ["runs/"]


def test_hidden_files_and_missing_folders_are_not_offered(place):
    (place / ".hidden.toml").touch()
    assert ".hidden.toml" not in shell_completion.studies("")
    assert ".hidden.toml" in shell_completion.studies(".hid")
    assert shell_completion.runs("none/") == []


@pytest.mark.parametrize("line", ["demur run d", "demur judge x --judge ", "demur generate --prompt ", "demur export runs/"])
def test_completion_imports_nothing_heavy(line):
    code = (
        "import sys, demur.cli.main\ntry:\n    demur.cli.main.app([], prog_name='demur')\nexcept SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    asked = {"_DEMUR_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked}, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
