"""One made-up run, reported once, for all tests that only read."""

from pathlib import Path
from typing import Any

import pandas
import pytest

from demur.report import write_report
from tests.report.made_run import make_run


@pytest.fixture(scope="session")
def made() -> tuple[dict[str, Any], pandas.DataFrame]:
    return make_run()


@pytest.fixture(scope="session")
def page(made: tuple[dict[str, Any], pandas.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("run"), *made)
