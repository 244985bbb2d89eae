"""`demur report`: quick where nothing changed, and the figures when they are asked for or out of date."""

import os
import subprocess
import sys

import pytest

import demur
from tests.cli.test_ends_of_runs import invoke
from tests.tiny_study import make_study


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    with demur.run(make_study(folder), folder / "run") as made:
        return made.path


def test_a_report_imports_nothing_that_it_does_not_need(run):
    """Importing torch takes longer than the report of the demo."""
    code = (
        "import sys; from demur.runs.run import open_run\n"
        f"open_run({str(run)!r}).report()\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib.figure', 'plotly') if name in sys.modules])"
    )
    # The first call draws the figures, because the tests of this process leave them blank.
    for expected in (None, "[]\n"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
        assert expected is None or done.stdout == expected


def test_figures_are_drawn_when_asked_for_or_out_of_date(run):
    figures = run / "figures"
    assert invoke("report", run).exit_code == 0
    before = {path.name: path.stat().st_mtime_ns for path in figures.iterdir()}
    result = invoke("report", run)
    assert result.exit_code == 0
    assert result.stdout.rstrip().endswith("report.html")
    assert {path.name: path.stat().st_mtime_ns for path in figures.iterdir()} == before
    (figures / "rates.svg").unlink()
    assert invoke("report", run, "--no-figures").exit_code == 0
    assert not (figures / "rates.svg").exists()
    assert invoke("report", run).exit_code == 0
    assert (figures / "rates.svg").exists()
    assert invoke("report", run, "--figures").exit_code == 0
    after = {path.name: path.stat().st_mtime_ns for path in figures.iterdir()}
    assert all(after[name] > before[name] for name in before)
