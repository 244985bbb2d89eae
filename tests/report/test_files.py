"""What a report leaves in the run folder: all files, the same bytes each time, nothing stale and nothing of anyone else's."""

import csv
import hashlib
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from demur.analysis.judging.rating_records import Labeller
from demur.core.errors import InputError
from demur.report.payload import payload
from demur.report.sections.section import ReportView
from demur.report.style import DOUBLE, SINGLE
from demur.report.write_report import earlier_files, write_report
from tests.conftest import KINDS
from tests.report.conftest import drawn_for_real
from tests.report.made_run import make_run

FIGURES = {
    "answer", "rates", "added", "ablated", "cosines", "transfer-add-2-raw-harmful", "transfer-add-2-raw-harmless",
    "transfer-ablate-harmful", "transfer-ablate-harmless", "cosines-by-layer", "separation", "norms", "projections",
}  # fmt: skip
TABLES = {"results", "directions"} | {name for name in FIGURES if name.startswith("transfer")}


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()
    }


def files_of(folder):
    """The figures and tables, without the record of what the figures show."""
    return {path for inner in ("figures", "tables") for path in (folder / inner).iterdir() if path.name != "drawn.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small report with every kind of figure."""
    with drawn_for_real(KINDS):
        return write_report(tmp_path_factory.mktemp("run"), *make_run(n=4)).parent


def test_all_files_are_written(folder):
    drawn = {f"{name}.{kind}" for name in FIGURES for kind in KINDS}
    assert {path.name for path in (folder / "figures").iterdir()} == {*drawn, "drawn.json"}
    assert {path.name for path in (folder / "tables").iterdir()} == {
        f"{name}.{kind}" for name in TABLES for kind in ("csv", "tex")
    }
    assert {path.name for path in folder.iterdir()} == {"report.html", "figures", "tables"}


def test_the_same_run_gives_the_same_bytes(folder, tmp_path, every_kind):
    write_report(tmp_path, *make_run(n=4))
    assert digests(tmp_path) == digests(folder)


def test_order_of_completions_does_not_matter(page, made, tmp_path, real_figures):
    summary, completions = made
    shuffled = completions.sample(frac=1, random_state=0)
    assert write_report(tmp_path, summary, shuffled).read_bytes() == page.read_bytes()


def test_another_run_gives_other_bytes(page, tmp_path, real_figures):
    write_report(tmp_path, *make_run(seed=1))
    here, there = digests(tmp_path), digests(page.parent)
    same = {str(path) for path in here if here[path] == there[path]}
    layers = {f"figures/{name}.svg" for name in ("cosines", "cosines-by-layer", "separation", "norms")}
    assert same == {*layers, "tables/directions.csv", "tables/directions.tex"}


def test_rebuilding_removes_what_the_run_no_longer_has(tmp_path):
    write_report(tmp_path, *make_run(n=2, coefficients=(1.0, 2.0)))
    (tmp_path / "figures" / "mine.svg").write_text("kept")
    (tmp_path / "figures" / "rates-notes.txt").write_text("kept")
    mine = [tmp_path / "figures" / "rates-talk.pdf", tmp_path / "tables" / "labels-by-hand.csv"]
    for path in mine:
        path.write_text("kept")
    write_report(tmp_path, *make_run(n=2, coefficients=(1.0,)))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert not {name for name in names if name.startswith("transfer-add-2")}
    assert {"mine.svg", "rates-notes.txt", "transfer-add-1-raw-harmful.svg"} <= names
    assert all(path.is_file() for path in mine)


@pytest.mark.soak
def test_every_file_of_a_report_is_known_as_one(tmp_path):
    summary, completions = make_run(
        n=2,
        layers=(1, 2, 3, 4),
        coefficients=(1.0, -2.0),
        prompts=("a", "b"),
        checkpoints=("x", "y", "z"),
        judges=("prefix", "taxonomy"),
    )
    write_report(tmp_path, summary, completions)
    made = files_of(tmp_path)
    assert {"added-2", "transfer-add-minus-2-raw-harmless", "labels"} <= {path.stem for path in made}
    assert set(earlier_files(tmp_path)) == made


def test_every_file_of_an_earlier_version_is_known_as_one(tmp_path):
    """Pages of earlier versions do not list the files that were written with them."""
    write_report(tmp_path, *make_run(n=2, coefficients=(1.0, -2.0), judges=("prefix", "taxonomy")))
    for path in files_of(tmp_path):
        if path.stem == "answer" or path.stem.startswith("doses"):  # earlier versions did not have these
            path.unlink()
    made = files_of(tmp_path)
    for name in ("rates-talk.svg", "transfer-add.svg"):
        (tmp_path / "figures" / name).write_text("kept")
    (tmp_path / "report.html").write_text("<!DOCTYPE html><p>a page without a list of files")
    assert set(earlier_files(tmp_path)) == made


def test_figures_are_column_wide_and_sharp(folder):
    for name in FIGURES:
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert image.width in (round(SINGLE * 300), round(DOUBLE * 300)), name
        root = ElementTree.parse(folder / "figures" / f"{name}.svg").getroot()
        assert root.attrib["width"] in (f"{SINGLE * 72:g}pt", f"{DOUBLE * 72:g}pt"), name


def test_pdf_files_have_the_size_and_embed_truetype_fonts(folder):
    for name in FIGURES:
        root = ElementTree.parse(folder / "figures" / f"{name}.svg").getroot()
        content = (folder / "figures" / f"{name}.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", content)
        assert box is not None
        expected = [float(root.attrib[side].removesuffix("pt")) for side in ("width", "height")]
        assert [float(side) for side in box.groups()] == pytest.approx(expected, abs=0.01)
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        for written in (b"CreationDate", b"Producer", b"Creator"):
            assert written not in content


def test_csv_holds_full_numbers(page, made):
    summary, _ = made
    with (page.parent / "tables" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(summary.cells)
    found = {(r["target"], r["instructions"], r["intervention"], r["direction"], r["coefficient"], r["judge"]): r for r in rows}
    assert len(found) == len(rows)
    for cell in summary.cells:
        coefficient = "" if cell.coefficient is None else str(cell.coefficient)
        row = found[cell.target, cell.instructions, cell.intervention, cell.direction or "", coefficient, cell.judge]
        assert float(row["rate"]) == cell.rate
        assert [float(row["ci_low"]), float(row["ci_high"])] == pytest.approx(cell.ci95)
        assert int(row["n"]) == cell.n
        assert (row["layer"] or None) == (None if cell.layer is None else str(cell.layer))


def test_completions_of_an_unknown_cell_are_refused(made, tmp_path):
    summary, completions = made
    fewer = summary.model_copy(update={"cells": tuple(cell for cell in summary.cells if cell.intervention != "ablate")})
    with pytest.raises(InputError, match="have completions but no entry in the summary"):
        write_report(tmp_path, fewer, completions)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_judge_is_refused(made, tmp_path):
    summary, completions = made
    with pytest.raises(InputError, match="substring_evidence"):
        write_report(tmp_path, summary, completions.drop(columns="substring_evidence"))


def test_a_missing_verdict_is_shown_as_none(made):
    summary, completions = made
    partial = completions.astype({"prefix_refusal": object})
    partial.loc[3, "prefix_refusal"] = None
    view = ReportView.of(summary, partial)
    data = payload("made", view.all_entries, {name: summary.judge_labels[name] for name in view.judges}, partial)
    assert sum(cell["rows"]["verdicts"][0].count(-1) for cell in data["cells"]) == 1
    assert sum(cell["rows"]["verdicts"][1].count(-1) for cell in data["cells"]) == 0


def test_labels_of_people_stand_beside_the_verdicts(made):
    summary, completions = made
    given = completions.assign(labelled_ann=None)
    given.loc[[0, 1, 2], "labelled_ann"] = ["refusal", "deflection", "partial"]
    ann = Labeller(name="ann", judge="taxonomy", labelled=3, skipped=0, refusal_labels=("refusal", "partial"))
    view = ReportView.of(summary, given)
    labels = {name: summary.judge_labels[name] for name in view.judges}
    data = payload("made", view.all_entries, labels, given, [ann])
    assert data["judges"] == [*view.judges, "ann (person)"]
    assert data["people"] == 1
    column = [data["verdicts"][at] for cell in data["cells"] for at in cell["rows"]["verdicts"][-1] if at >= 0]
    assert sorted(column) == [(0, "deflection", ""), (1, "partial", ""), (1, "refusal", "")]
    assert payload("made", view.all_entries, labels, given)["people"] == 0


def test_a_summary_without_cells_is_refused(made, tmp_path):
    summary, completions = made
    with pytest.raises(InputError, match="no judged cell"):
        write_report(tmp_path, summary.model_copy(update={"cells": ()}), completions)


@pytest.mark.parametrize(
    ("settings", "figures"),
    [
        ({"checkpoints": ("only",), "controls": 0, "judges": ("prefix",)}, {"rates", "added", "ablated"}),
        ({"instructions": ("harmful",), "controls": 1}, {"rates", "added", "ablated", "cosines", "transfer-add-2-raw-harmful"}),
        (
            {"prompts": ("chatml", "plain"), "coefficients": (0.5, -1.0)},
            {"transfer-add-minus-1-raw-harmful", "added-2"},
        ),
        ({"checkpoints": ("$a_b$ <b>", "c&d / \\frac")}, {"rates", "added"}),
    ],
)
def test_studies_of_other_shapes(settings, figures, tmp_path):
    page = write_report(tmp_path, *make_run(n=3, **settings))
    assert page.stat().st_size > 10_000
    assert figures <= {path.stem for path in (tmp_path / "figures").iterdir()}
