"""Two small runs that differ in one setting, made once."""

from pathlib import Path

import pytest

import demur
from tests.tiny_study import make_study


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    study = make_study(folder)
    for name, settings in (("first", ()), ("second", ("max_new_tokens=4", "interventions.1.coefficient=1.0"))):
        demur.run(demur.load_study(study, settings), folder / name)
    return folder / "first", folder / "second"
