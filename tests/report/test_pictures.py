"""The files in `figures/`: drawn where what they show changed, and only there; and a report that imports nothing slow."""

import dataclasses
import json
import subprocess
import sys

import pytest

from demur.report import style
from demur.report.draw_static import draw
from demur.report.figure_contents import Bar, BarBlock, BarRow, Bars, Tip
from demur.report.pictures import picture_files
from demur.report.pictures.picture_files import RECORD, out_of_date
from demur.report.write_report import made_report
from tests.conftest import SAVE
from tests.report.made_run import make_run


@pytest.fixture(scope="module")
def report():
    return made_report(*make_run(n=3))


@pytest.fixture
def written(report, tmp_path):
    report.write(tmp_path)
    return tmp_path


def stale(report, folder):
    return {sheet.name for sheet in out_of_date(folder, report.sheets)}


def test_what_was_drawn_is_not_drawn_again(report, written):
    names = {sheet.name for sheet in report.sheets}
    assert names == {path.stem for path in (written / "figures").glob("*.svg")}
    assert stale(report, written) == set()
    before = {path: path.stat().st_mtime_ns for path in (written / "figures").iterdir()}
    report.write(written)
    assert {path: path.stat().st_mtime_ns for path in (written / "figures").iterdir()} == before
    report.draw_pictures(written, every=True)
    after = {path: path.stat().st_mtime_ns for path in (written / "figures").iterdir()}
    assert all(after[path] > before[path] for path in before)


def test_a_file_that_is_missing_or_was_changed_is_drawn_again(report, written):
    (written / "figures" / "rates.svg").unlink()
    (written / "figures" / "added.svg").write_text("<svg/>")
    assert stale(report, written) == {"rates", "added"}
    report.write(written)
    assert stale(report, written) == set()


def test_a_figure_that_shows_other_numbers_is_drawn_again(report, written):
    other = made_report(*make_run(n=3, seed=1))
    assert {"added", "ablated", "answer"} <= stale(other, written)
    assert "cosines" not in stale(other, written)


def test_other_drawing_code_draws_everything_again(report, written, monkeypatch):
    monkeypatch.setattr(picture_files, "_DRAWING_CODE", ("draw_static.py", "latex.py"))
    assert stale(report, written) == {sheet.name for sheet in report.sheets}


@pytest.mark.parametrize("content", ["", "[]", '{"pictures": []}', '{"pictures": {"rates": 3}}', "[" * 100_000])
def test_a_record_that_demur_did_not_write_draws_everything(report, written, content):
    (written / RECORD).write_text(content)
    assert stale(report, written) == {sheet.name for sheet in report.sheets}
    report.write(written)
    assert stale(report, written) == set()


def test_a_stopped_report_remembers_what_it_drew(report, tmp_path):
    def stop_after_three(name, total):
        class Stop:
            done = 0

            def __enter__(self):
                return self.count

            def __exit__(self, *_):
                return False

            def count(self, by):
                self.done += by
                if self.done == 3:
                    raise KeyboardInterrupt

        assert name == "figures"
        assert total == len(report.sheets)
        return Stop()

    report.write_page(tmp_path)
    assert not (tmp_path / "figures").exists()
    with pytest.raises(KeyboardInterrupt):
        report.draw_pictures(tmp_path, phases=stop_after_three)
    assert len(stale(report, tmp_path)) == len(report.sheets) - 3


def test_what_only_the_page_shows_is_no_reason_to_draw(report, real_figures):
    """`_ONLY_ON_THE_PAGE` names what `draw_static` leaves out: the files do not change with it."""
    bar = Bar(5, 4, 6, "5", Tip("one", ("text",)), "#0072B2")
    other = dataclasses.replace(bar, tip=Tip("another", ()), selects="edit=none")
    contents = [Bars(("a",), (BarBlock("", (BarRow("r", (each,)),)),)) for each in (bar, other)]
    one, two = (SAVE(draw(content), "svg") for content in contents)
    assert one == two
    sheet = report.sheets[0]
    shown = [picture_files._shown(dataclasses.replace(sheet, content=content), "code") for content in contents]
    assert shown[0] == shown[1]
    third = dataclasses.replace(bar, value=7)
    changed = dataclasses.replace(sheet, content=Bars(("a",), (BarBlock("", (BarRow("r", (third,)),)),)))
    assert picture_files._shown(changed, "code") != shown[0]


@pytest.mark.soak
def test_the_digest_of_a_figure_is_the_same_in_every_process():
    """Sets have another order in another process."""
    code = (
        "from tests.report.made_run import make_run; from demur.report.write_report import made_report;"
        "from demur.report.pictures.picture_files import _shown;"
        "print([_shown(sheet, '') for sheet in made_report(*make_run(n=2)).sheets])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_every_kind_of_file_is_recorded(report, tmp_path, monkeypatch):
    monkeypatch.setattr(style, "KINDS", ("svg", "png"))
    report.write(tmp_path)
    pictures = json.loads((tmp_path / RECORD).read_text())["pictures"]
    assert {tuple(sorted(one["files"])) for one in pictures.values()} == {("png", "svg")}
    (tmp_path / "figures" / "rates.png").unlink()
    assert stale(report, tmp_path) == {"rates"}
