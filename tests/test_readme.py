"""What the README shows runs: its Python on the demo checkpoint, its commands as far as they exist."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demur.cli.main import app
from demur.study.spec import (
    CheckpointSpec,
    ClaimSpec,
    ControlSpec,
    DirectionSpec,
    InstructionSpec,
    InterventionSpec,
    SelectionSpec,
    Study,
)
from demur.study.study_files import load_study

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
STUDIES = (Path(__file__).parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")


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


def test_the_study_is_the_one_of_the_reference_and_is_complete(tmp_path):
    first, second = (re.findall(r"```toml\n(.*?)```", text, flags=re.S)[0] for text in (README, STUDIES))
    assert first == second
    (tmp_path / "mine.toml").write_text(first)
    study = load_study(tmp_path / "mine.toml")
    assert [edit.kind for edit in study.interventions] == ["ablate", "add"]
    settings = [one.removesuffix("`") for one in re.findall(r"--set ([\w.]+=\S+)", README + STUDIES) if "KEY" not in one]
    assert len(settings) >= 4
    for one in settings:
        assert load_study(tmp_path / "mine.toml", [one.rstrip("`,.")]) != study, one


@pytest.mark.parametrize(
    ("of", "model"),
    [
        ("Of the study itself", Study),
        ("Of a checkpoint", CheckpointSpec),
        ("Of instructions", InstructionSpec),
        ("Of the direction", DirectionSpec),
        ("Of the selection", SelectionSpec),
        ("Of an intervention", InterventionSpec),
        ("Of a claim", ClaimSpec),
        ("Of null directions", ControlSpec),
    ],
)
def test_the_reference_has_every_key_with_its_default(of, model):
    table = STUDIES.split(f"\n{of}")[1].split("\n\n| key")[1].split("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table, flags=re.M))
    words = (
        "none",
        "all",
        "empty",
        "by memory",
        "needed to add",
        "see below",
        "below",
        "5, or 5 an arm if a dose has the unit `raw` (at most 20; at least one an arm)",
    )
    assert list(told) == list(model.model_fields)
    for name, field in model.model_fields.items():
        default, said = field.default, told[name]
        if name == "measurements":
            default = [measurement.model_dump() for measurement in default]
        if field.is_required():
            assert said == "needed", name
        elif default in (None, [], {}, "") or name in ("on", "random", "controls", "selection"):
            assert said in words, name
        else:
            assert said.strip("`") == json.dumps(default), name
