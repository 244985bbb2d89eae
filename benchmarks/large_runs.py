"""How long large runs take to be summarised, reported, compared and opened: 60 x 60 cells, and a lineage of 40 checkpoints.

    python -m benchmarks.large_runs [--shapes matrix,lineage] [--out F]

The runs are made without a model. The times are seconds of this process's CPU, because other work on the machine changes the
seconds on the clock; the page is opened in Chromium and measured with its own clock.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmarks.made_runs import Shape, write_run
from demur.report.terminal import terminal_table
from demur.runs.compare import compare_runs
from demur.runs.run import Run, open_run
from tests.report.chromium import CHROMIUM, started, until, watched

SHAPES = {"matrix": Shape(60, 100), "lineage": Shape(40, 100, controls=5, lineage=True)}


def measure(name: str, folder: Path) -> dict[str, float]:
    """Write one run and measure everything that is done with it.

    Args:
        name: its shape.
        folder: an empty folder.

    Returns:
        CPU seconds, milliseconds of the page, megabytes, and lines of the terminal, by what was measured.
    """
    found: dict[str, float] = {}

    def timed(what: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        found[f"{what} (s)"] = round(time.process_time() - began, 2)
        print(f"  {what}: {found[f'{what} (s)']} s", flush=True)

    timed("write the run", lambda: write_run(folder / "run", SHAPES[name]))
    with open_run(folder / "run") as run:
        timed("summary", run.summary_record)
        timed("report with figures", run.report)
        timed("report without figures", lambda: run.report(figures="none"))
        found["terminal (lines)"] = _terminal_lines(run)
        with open_run(write_run(folder / "other", SHAPES[name], seed=1)) as other:
            timed("compare", lambda: compare_runs(run, other))
    page = folder / "run" / "report.html"
    found["page (MB)"] = round(page.stat().st_size / 1e6, 2)
    beside = page.with_name("report-completions.js")
    found["completions beside it (MB)"] = round(beside.stat().st_size / 1e6, 2) if beside.is_file() else 0.0
    return found | (_opened(page) if CHROMIUM else {})


def _terminal_lines(run: Run) -> int:
    written = StringIO()
    Console(file=written, width=80).print(terminal_table(run.summary_record()))
    return written.getvalue().count("\n")


def _opened(page: Path) -> dict[str, float]:
    """Milliseconds until the page can be used, and until its completions are shown."""
    with started() as browser, watched(browser) as open_page:
        opened = open_page(page)
        ready = opened.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
        began = opened.evaluate("performance.now()")
        opened.locator("#browser > summary").click()
        until(opened, "document.querySelectorAll('table.completions tbody tr').length > 0")
        shown = opened.evaluate("performance.now()") - began
    return {"page can be used (ms)": round(ready), "completions shown (ms)": round(shown)}


def main() -> None:
    """Measure and print; with --out also write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {}
    for name in given.shapes.split(","):
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(name, Path(folder))
        for what, value in found[name].items():
            print(f"{value:10} {what}", flush=True)
    if given.out:
        given.out.write_text(json.dumps({"large runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
