"""One made-up run, reported once, for all tests that only read; one browser for all tests that look at it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas
import pytest

from demur.analysis.summary import Summary
from demur.report import draw_static, style
from demur.report.write_report import write_report
from tests.conftest import DRAW, KINDS, SAVE
from tests.report.chromium import Open, watched
from tests.report.made_run import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextmanager
def drawn_for_real(kinds: Sequence[str] = ("svg",)) -> Iterator[None]:
    """Figures drawn and rendered, which elsewhere they are not: for what looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "save", SAVE)
        patch.setattr(style, "KINDS", kinds)
        patch.setattr(draw_static, "draw", DRAW)
        yield


@pytest.fixture
def real_figures() -> Iterator[None]:
    with drawn_for_real():
        yield


@pytest.fixture
def every_kind() -> Iterator[None]:
    with drawn_for_real(KINDS):
        yield


@pytest.fixture(scope="session")
def made() -> tuple[Summary, pandas.DataFrame]:
    return make_run()


@pytest.fixture(scope="session")
def page(made: tuple[Summary, pandas.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with drawn_for_real():
        return write_report(tmp_path_factory.mktemp("run"), *made)


@pytest.fixture(scope="session")
def undrawn(made: tuple[Summary, pandas.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with blank drawings, which stand hidden behind the figures that scripts draw: made and opened sooner."""
    return write_report(tmp_path_factory.mktemp("undrawn"), *made)


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Open]:
    with watched(browser) as opened:
        yield opened
