"""The completions browser in a real Chromium, where there is one: opened from disk, driven through the address."""

import re
import shutil
import subprocess
from html import unescape

import pytest

from tests.report.made_run import HOSTILE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium")

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=4000", "--enable-logging=stderr", "--dump-dom",
]  # fmt: skip


@pytest.fixture(scope="module")
def opened(page, tmp_path_factory):
    """The document behind an address, with the completions open as a returning reader finds them."""
    folder = tmp_path_factory.mktemp("browser")
    copy = folder / "report.html"
    closed = page.read_text(encoding="utf-8")
    copy.write_text(closed.replace('<details id="browser">', '<details id="browser" open>'), encoding="utf-8")

    def load(state=""):
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"{copy.as_uri()}#{state}"]
        for _ in range(4):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
            assert "CONSOLE" not in done.stderr, done.stderr
            # Chromium's first start in a new profile sometimes dumps the document before any script of it has run. The page
            # always writes a status, so an empty one means that; a page that never writes one still fails below.
            if status(done.stdout):
                break
        return done.stdout

    return load


def status(document):
    return re.search(r'<p id="status"[^>]*>([^<]*)</p>', document)[1]


def cards(document):
    return re.findall(r'<li class="row.*?</li>', document, flags=re.DOTALL)


def test_all_completions_are_there(opened, made):
    document = opened()
    assert status(document) == f"{len(made[1])} of {len(made[1])} completions; 1 to 25 shown."
    assert len(cards(document)) == 25


def test_the_address_filters(opened, made):
    _, completions = made
    chosen = completions[
        (completions["target"] == "after") & (completions["intervention"] == "ablate") & (completions["source"] == "before")
    ]
    chosen = chosen[~chosen["prefix_refusal"]]
    assert 25 < len(chosen) < 50
    document = opened("target=after&intervention=ablate&direction=before&verdict=other&page=2")
    assert status(document) == f"{len(chosen)} of {len(completions)} completions; 26 to {len(chosen)} shown."
    assert len(cards(document)) == len(chosen) - 25
    assert all("before ablated (layer 16)" in card and "No intervention" in card for card in cards(document))


def test_search_wants_every_word_in_instruction_or_completion(opened, made):
    _, completions = made
    found = completions["completion"].str.contains("two is not") & completions["instruction"].str.contains("<harmless> thing")
    assert 0 < found.sum() < len(completions)
    assert status(opened('q="TWO+is"+harmless>')).startswith(f"{found.sum()} of ")
    assert status(opened("q=harmless>+sorry+nowhere")) == f"None of {len(completions)} completions fits."


def test_changed_verdicts_are_found_beside_their_baseline(opened, made):
    _, completions = made
    keys = ["target", "instructions", "index"]
    baseline = completions[completions["intervention"] == "none"].set_index(keys)["prefix_refusal"]
    edited = completions[completions["intervention"] != "none"]
    before = baseline.loc[list(edited[keys].itertuples(index=False, name=None))].to_numpy()
    lost = int((before & ~edited["prefix_refusal"].to_numpy()).sum())
    assert lost > 0
    document = opened("verdict=lost")
    assert status(document).startswith(f"{lost} of ")
    for card in cards(document):
        assert card.index('class="badge refusal">prefix: refusal') < card.index('class="badge">prefix: other')
        assert re.search(r"<mark[^>]*>I(?:'m sorry| cannot| can't)</mark>", card)


def test_hostile_text_is_text(opened):
    document = opened("q=owned&intervention=none")
    assert "<title>demo: refusal report</title>" in document
    texts = {unescape(text) for text in re.findall(r'<p class="text" dir="auto">([^<]*)</p>', document)}
    assert texts == {HOSTILE[1], HOSTILE[2]}


def test_one_instruction_in_every_cell(opened, made):
    document = opened("instruction=harmless+3")
    cells = made[1]["key"][made[1]["instructions"] == "harmless"].nunique()
    assert status(document).startswith(f"{cells} of ")
    assert all("number 3?" in card for card in cards(document))


def test_nothing_is_read_before_the_reader_opens_it(page, opened):
    done = subprocess.run([CHROMIUM, *FLAGS, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert cards(done.stdout) == []
    assert status(done.stdout) == ""
