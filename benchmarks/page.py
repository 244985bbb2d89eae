"""How long the page takes to filter fifty thousand completions, measured in Chromium with the page's own clock.

    python -m benchmarks.page [REPORT.html]

Uses the page of a made-up run, or the page that is given. Prints its size, the time to unpack it, and the median and longest
time of several filters. The time of a filter begins when a control changes and ends when the rows are in the document.
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

from demur.report.write_report import write_report
from tests.report.chromium import CHROMIUM, started, until, watched
from tests.report.made_run import make_run
from tests.report.many import MANY, with_many

FILTERS: tuple[dict[str, str], ...] = (
    {"intervention": "ablate"},
    {"verdict": "lost"},
    {"checkpoint": "after", "verdict": "refusal"},
    {"q": "easy"},
    {"q": "sorry 17"},
    {"q": '"of cell 3" no.'},
    {"instruction": "harmful 12"},
    {},
)
REPEATS = 5
LIMIT = 200
"""The most milliseconds that a filter should take."""

_APPLY = """(parts) => new Promise((done) => {
    performance.clearMeasures("demur filter");
    history.replaceState(null, "", `#${new URLSearchParams(parts).toString() || "q="}`);
    dispatchEvent(new HashChangeEvent("hashchange"));
    const wait = () => {
        const [found] = performance.getEntriesByName("demur filter");
        if (found) done(found.duration); else setTimeout(wait, 1);
    };
    wait();
})"""


def main() -> None:
    """Measure and print."""
    if CHROMIUM is None:
        raise SystemExit("this benchmark needs Chromium; scripts/install_chromium.sh installs it on Debian")
    with tempfile.TemporaryDirectory() as folder, started() as browser, watched(browser) as open_page:
        page = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else with_many(_made(folder), Path(folder) / "many.html")
        opened = open_page(page)
        began = opened.evaluate("performance.now()")
        opened.locator("#browser > summary").click()
        until(opened, "document.getElementById('status').textContent !== ''")
        ready = opened.evaluate("performance.getEntriesByName('demur filter')[0].startTime") - began
        shown = opened.locator("#status").text_content()
        print(f"{page.stat().st_size / 1e6:.2f} MB; {shown}; opened and unpacked in {ready:.0f} ms")
        slowest = 0.0
        for parts in FILTERS:
            times = [opened.evaluate(_APPLY, parts) for _ in range(REPEATS)]
            slowest = max(slowest, *times)
            shown = opened.locator("#status").text_content()
            print(f"{median(times):7.1f} ms, at most {max(times):7.1f} ms  {parts or 'no filter'}  {shown}")
        print(f"slowest of {len(FILTERS) * REPEATS} filters: {slowest:.1f} ms; the limit at {MANY} rows is {LIMIT} ms")


def _made(folder: str) -> Path:
    return write_report(Path(folder) / "run", *make_run(n=3, controls=0, judges=("prefix",)))


if __name__ == "__main__":
    main()
