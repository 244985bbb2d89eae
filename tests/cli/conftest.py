"""Two small runs that differ in one setting, made once."""

import json
from pathlib import Path

import pytest

import demur
from demur.inputs.prompt_formats import USER_ASSISTANT
from tests.tiny_study import make_study


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    study = make_study(folder)
    for name, settings in (("first", ()), ("second", ("max_new_tokens=4", "interventions.1.coefficient=1.0"))):
        demur.run(demur.load_study(study, settings), folder / name)
    return folder / "first", folder / "second"


@pytest.fixture(scope="session")
def renamed(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first run once more, with other names: base is called `before`, chat `after`, and user-assistant `turns`."""
    folder = tmp_path_factory.mktemp("renamed")
    text = make_study(folder).read_text()
    # The same checkpoints under other paths would be another setting.
    text = text.replace(f'"{folder}/', f'"{runs[0].parent}/')
    text = text.replace("[checkpoints.base]", "[checkpoints.before]").replace("[checkpoints.chat]", "[checkpoints.after]")
    text = text.replace('["user-assistant"]', '["turns"]') + f"[prompts]\nturns = {json.dumps(USER_ASSISTANT)}\n"
    (folder / "study.toml").write_text(text)
    demur.run(demur.load_study(folder / "study.toml"), folder / "run")
    return folder / "run"
