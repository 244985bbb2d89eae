"""A run goes on with a larger study: it ends as a run of the larger study does, and generates nothing again."""

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs import execution
from demur.runs.store import Store
from tests.tiny_study import contents, make_checkpoint, make_study

SMALL = ("instructions.harmful.test=1", "instructions.harmless.test=1")
ADD = 'interventions=[{kind="ablate",on=["harmful"]},{kind="add",coefficient=2.0,unit="residual"},'
ABLATE = 'interventions=[{kind="ablate",on=["harmful"]}]'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study of two checkpoints, and a third checkpoint beside it."""
    folder = tmp_path_factory.mktemp("grow")
    make_study(folder)
    make_checkpoint(folder / "third", seed=3)
    return folder


def run(place, out, *settings, quiet=True):
    words = [word for setting in settings for word in ("--set", setting)]
    return CliRunner().invoke(app, ["run", str(place / "study.toml"), "--out", str(out), *(["-q"] if quiet else []), *words])


def third(place):
    return f'checkpoints.third.model="{place}/third"'


@pytest.fixture
def generated(monkeypatch):
    """The number of rows that are generated from now on, as a list of one number for each call."""
    rows, whole = [], execution.generate_batches

    def counted(checkpoint, requests, **settings):
        rows.append(len(requests))
        return whole(checkpoint, requests, **settings)

    monkeypatch.setattr(execution, "generate_batches", counted)
    return rows


def completions(out):
    return sum(Store.open(out).progress().values())


GROWTHS = {
    "instructions": (SMALL, ()),
    "one label": (SMALL[:1], ()),
    "a dose": ((), (ADD + '{kind="add",coefficient=3.0,unit="residual"}]',)),
    "a dose in front": (
        (),
        ('interventions=[{kind="add",coefficient=3.0},{kind="ablate",on=["harmful"]},'
         '{kind="add",coefficient=2.0,unit="residual"}]',),
    ),
    "a label": ((ABLATE,), ('interventions=[{kind="ablate"}]',)),
    "a target": (('interventions=[{kind="ablate",targets=["base"]}]',), ('interventions=[{kind="ablate"}]',)),
    "controls": ((), ("controls.random=3",)),
    "a kind of controls": ((), ("controls.shuffled=1",)),
    "first controls": (("controls.random=0",), ("controls.random=2", "controls.seed=7")),
    "a judge": (('judges=["prefix"]',), ()),
    "a measurement": (("measurements=[]",), ()),
    "a checkpoint": ((), ("third",)),
    "a checkpoint and controls": (("controls.random=2",), ("third", "controls.random=3")),
    "a layer": (("direction.layers=[1,2]",), ("direction.layers=[0,1,2]",)),
    "a format": (
        ('checkpoints.chat.prompts=["native","user-assistant"]',),
        ('checkpoints.chat.prompts=["native","user-assistant","plain"]',),
    ),
    "much": ((*SMALL, "controls.random=0", 'judges=["prefix"]', ABLATE), ("third", "controls.random=1")),
}  # fmt: skip


def settings_of(place, settings):
    return [third(place) if each == "third" else each for each in settings]


@pytest.mark.parametrize("case", GROWTHS)
def test_a_grown_run_ends_as_a_run_of_the_larger_study_and_generates_nothing_again(place, tmp_path, generated, case):
    before, after = (settings_of(place, each) for each in GROWTHS[case])
    assert run(place, tmp_path / "grown", *before).exit_code == 0
    stored = completions(tmp_path / "grown")
    assert run(place, tmp_path / "whole", *after).exit_code == 0
    whole = completions(tmp_path / "whole")
    generated.clear()
    result = run(place, tmp_path / "grown", *after)
    assert result.exit_code == 0, result.output
    assert sum(generated) == whole - stored
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    assert (tmp_path / "grown" / "study.toml").read_text() == (tmp_path / "whole" / "study.toml").read_text()
    assert Store.open(tmp_path / "grown").digest == Store.open(tmp_path / "whole").digest
    generated.clear()
    assert run(place, tmp_path / "grown", *after).exit_code == 0
    assert generated == []
