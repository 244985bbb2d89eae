"""What others add to the report: a section of their own, a kind of edit, a judge that is not installed here."""

import json
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pandas
import pytest

import demur
from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.report.complete_summary import completed, parsed_summary
from demur.report.draw_plotly import interactive
from demur.report.draw_static import draw
from demur.report.figure_contents import (
    Band,
    Bar,
    BarBlock,
    BarRow,
    Bars,
    HeatMap,
    HeatMaps,
    LayerLines,
    Line,
    LinePanel,
    Point,
    PointGroup,
    PointLook,
    PointStrip,
    PointStrips,
    Tile,
    Tip,
)
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.pictures.inline_svg import inline_svg
from demur.report.sections.section import ReportView, figures_of, made_sections
from demur.report.terminal import terminal_table
from demur.report.write_report import made_report, write_report
from tests.report.made_run import made_facts, make_run
from tests.report.test_tables import printed
from tests.tiny_study import make_study


class CompletionLengths:
    """A section as somebody else writes it: how long completions are."""

    part = "Lengths of <completions>"

    def figures(self, view):
        means = view.completions.groupby("target")["n_tokens"].mean()
        rows = [
            BarRow(name, (Bar(mean, mean, mean, f"{mean:.1f}", Tip(name, ("tokens on average",))),))
            for name, mean in means.items()
        ]
        content = Bars(("tokens of a completion",), (BarBlock("", tuple(rows)),), full=20)
        data = pandas.DataFrame({"target": means.index, "tokens": means.to_numpy()})
        words = "Lengths of completions", "How many tokens a completion has.", "Lengths: before and after, in tokens."
        return [FigureSpec.of(Sheet("lengths", *words, data, content))]

    def tables(self, view):
        data = view.completions.groupby("prompt", as_index=False)["n_tokens"].max()
        return [TableSpec("longest", "The longest completions", data, data.astype(str))]


@pytest.fixture
def added():
    registry("section").register("lengths", CompletionLengths)
    yield
    registry("section").unregister("lengths")


def written_by(page):
    return {f"{path.parent.name}/{path.stem}" for inner in ("figures", "tables") for path in (page.parent / inner).iterdir()}


def test_a_section_from_outside_is_on_the_page_and_in_the_folder(added, tmp_path, real_figures):
    page = write_report(tmp_path, *make_run(n=3))
    text = page.read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "lengths.svg").read_bytes().startswith(b"<?xml")
    assert "\\toprule" in (tmp_path / "tables" / "longest.tex").read_text()
    assert pandas.read_csv(tmp_path / "tables" / "longest.csv")["prompt"].tolist() == ["chatml"]
    figure = text[text.index('<figure id="figure-lengths">') :]
    figure = figure[: figure.index("</figure>")]
    assert 'data-figure="lengths"' in figure
    assert "<svg" in figure
    assert "Numbers of: Lengths of completions" in figure
    assert "<caption>The longest completions</caption>" in text
    (anchor,) = re.findall(r'<a href="#(part-[\w-]+)">Lengths of &lt;completions&gt;</a>', text)
    assert f'<section id="{anchor}"' in text
    figures = json.loads(re.search(r'id="figures-data">(.*?)</script>', text)[1])["figures"]
    (live,) = [each for each in figures if each["name"] == "lengths"]
    assert live["data"][0]["type"] == "bar"
    numbers = [int(number) for number in re.findall(r"<b>Figure (\d+)\.", text)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_its_files_are_removed_when_it_is_gone(added, tmp_path):
    made = make_run(n=2)
    before = written_by(write_report(tmp_path, *made))
    registry("section").unregister("lengths")
    assert before - written_by(write_report(tmp_path, *made)) == {"figures/lengths", "tables/longest"}


def test_a_study_can_name_a_section():
    summary, completions = make_run(n=2)
    named = summary.model_copy(update={"study": {**summary.study, "sections": [f"{__name__}:CompletionLengths"]}})
    found = figures_of(ReportView.of(named, completions))
    assert list(found)[-1] == "lengths"
    assert "lengths" not in figures_of(ReportView.of(summary, completions))


class NoSection:
    part = "rates"


class SameName(CompletionLengths):
    def tables(self, view):
        return [TableSpec("results", "x", view.completions, view.completions)]


class OddName(CompletionLengths):
    def tables(self, view):
        return [TableSpec("../x", "x", view.completions, view.completions)]


class Raises(CompletionLengths):
    def figures(self, view):
        raise KeyError("no such\ncolumn")


class CannotBeDrawn(CompletionLengths):
    def figures(self, view):
        return [FigureSpec.of(Sheet("odd", "x", "x", "x", pandas.DataFrame(), "no content"))]


class CannotBeWritten(CompletionLengths):
    def tables(self, view):
        return [TableSpec("odd", "x", "no frame", "no frame")]


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (NoSection, "'odd' has no figures, tables; give it what demur.report.sections.section.Section asks for"),
        (SameName, "'results' is the name of two tables"),
        (OddName, "'../x' cannot be the name of a table"),
        (Raises, "left out of the report: .*no such"),
        (CannotBeDrawn, ""),
        (CannotBeWritten, ""),
        ("gone.module:Section", "cannot be imported: No module named 'gone'"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_a_warning(section, reason, tmp_path):
    summary, completions = make_run(n=2)
    registry("section").register("odd", section)
    try:
        report = made_report(summary, completions)
        page = report.write(tmp_path)
    finally:
        registry("section").unregister("odd")
    (sentence,) = report.left_out
    assert sentence.startswith("The section 'odd' is left out of the report: ")
    assert re.search(reason, sentence)
    assert sentence in unescape(page.read_text(encoding="utf-8"))
    plain = tmp_path / "plain"
    plain.mkdir()
    assert written_by(page) == written_by(write_report(plain, summary, completions))


def test_the_terminal_says_which_section_is_left_out(tmp_path):
    study = demur.load_study(make_study(tmp_path), [f"sections=['{__name__}:Raises']"])
    made = demur.run(study, tmp_path / "run")
    # What the command prints comes from this file.
    warnings = json.loads((made.path / "summary.json").read_text(encoding="utf-8"))["warnings"]
    assert [text for text in warnings if text.startswith(f"The section '{__name__}:Raises' is left out of the report: ")]


def test_a_section_with_two_names_is_made_once(added):
    summary, completions = make_run(n=2)
    target = f"{__name__}:CompletionLengths"
    registry("section").register("lengths", target)
    named = summary.model_copy(update={"study": {**summary.study, "sections": [target, "lengths"]}})
    made, left_out = made_sections(ReportView.of(named, completions))
    assert ([one.name for one in made].count("lengths"), left_out) == (1, [])


def test_a_section_that_demur_ships_is_never_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(type(registry("section").get("rates")), "figures", Raises.figures)
    with pytest.raises(KeyError):
        write_report(tmp_path, *make_run(n=2))


CLAMP = EditWords(
    action="clamp",
    kind="clamp",
    doing="clamping",
    into="in",
    done="clamped",
    moved="clamped in",
    figure="clamped",
    title="Refusal rates with each direction clamped",
)


def test_a_kind_of_edit_that_is_not_installed_shows_everywhere(tmp_path):
    """The summary brings its words, so nothing in the report knows its name."""
    facts, completions = made_facts(n=3, controls=1, judges=("prefix",))
    as_clamped = {"intervention": "clamp", "action": "clamp", "settings": {"ceiling": 1.5}}
    facts["cells"] = [cell | as_clamped if cell["intervention"] == "ablate" else cell for cell in facts["cells"]]
    summary = parsed_summary({**facts, "edits": {"clamp": CLAMP}})
    page = write_report(tmp_path, summary, completions.replace({"intervention": {"ablate": "clamp"}}))
    assert {"figures/clamped", "figures/transfer-clamp-harmful", "tables/transfer-clamp-harmful"} <= written_by(page)
    assert "figures/ablated" not in written_by(page)
    text = page.read_text(encoding="utf-8")
    assert "when it is added to or clamped in each of them?" in text
    assert "Refusal rates with each direction clamped" in text
    data = json.loads(re.search(r'id="completions-data">(.*?)</script>', text)[1])
    assert {(cell["intervention"], cell["done"]) for cell in data["cells"]} == {
        ("none", "no intervention"),
        ("add", "added"),
        ("clamp", "clamped"),
    }
    assert len(re.findall(r"\bclamp\b", printed(summary))) == sum(cell.intervention == "clamp" for cell in summary.cells)
    assert "clamped" in figures_of(ReportView.of(summary, completions))


def test_a_kind_named_by_its_class_is_reported_where_it_is_not_installed(tmp_path):
    """A study may write `module:Class`; the words of its actions are found by the action, not by that spelling."""
    facts, completions = made_facts(n=3, controls=1, judges=("prefix",))
    as_clamped = {"intervention": "gone:Clamp", "action": "clamp"}
    facts["cells"] = [cell | as_clamped if cell["intervention"] == "ablate" else cell for cell in facts["cells"]]
    words = {**parsed_summary(made_facts(n=3)[0]).model_dump(mode="json")["edits"], "clamp": CLAMP}
    del words["ablate"]
    summary = parsed_summary({**facts, "edits": {name: words[name] for name in ("clamp", "add", "subtract")}})
    view = ReportView.of(summary, completions.replace({"intervention": {"ablate": "gone:Clamp"}}))
    assert {matrix.name.split("-")[1] for matrix in view.matrices} == {"clamp", "add"}
    first = [entry.kind for entry in view.entries if entry.target == view.entries[0].target and entry.edited]
    assert (first[0], first[-1]) == ("add", "clamp")
    write_report(tmp_path, summary, view.completions)
    assert list((tmp_path / "figures").glob("transfer-clamp-*.svg"))


def test_edits_that_differ_in_a_setting_only_are_told_apart():
    facts, completions = made_facts(n=3, judges=("prefix",))
    edited = [cell for cell in facts["cells"] if cell["intervention"] == "ablate"]
    facts["cells"] += [{**cell, "key": cell["key"] + "half", "settings": {"strength": 0.5}} for cell in edited]
    view = ReportView.of(parsed_summary(facts), completions)
    variants = [(e.target, e.instructions, e.variant) for e in view.entries if e.intervention == "ablate"]
    assert len(set(variants)) == len(variants)
    assert ("after", "harmful", "before, strength 0.5") in variants


def test_a_run_is_reported_where_its_judge_is_not_installed(tmp_path):
    facts, completions = made_facts(n=4, judges=("taxonomy",))
    labels = ["refusal", *(f"kind {i}" for i in range(1, 6))]
    old = json.dumps(facts["cells"])
    facts["cells"] = json.loads(old.replace('"taxonomy"', '"panel of three"'))
    facts["comparisons"] = json.loads(json.dumps(facts["comparisons"]).replace('"taxonomy"', '"panel of three"'))
    facts["study"]["judges"] = ["panel of three"]
    with pytest.raises(InputError, match="no judge 'panel of three'"):
        parsed_summary(facts)
    summary = parsed_summary({**facts, "judge_labels": {"panel of three": labels}})
    renamed = completions.rename(columns=lambda name: name.replace("taxonomy_", "panel of three_"))
    page = write_report(tmp_path, summary, renamed)
    table = pandas.read_csv(page.parent / "tables" / "labels.csv")
    assert list(table.columns[-6:]) == labels
    assert terminal_table(summary).row_count > 0


def test_a_summary_of_an_earlier_version_is_completed_once():
    facts, _ = made_facts(n=2)
    assert not any("action" in cell for cell in facts["cells"])
    summary = parsed_summary(facts)
    assert list(summary.edits) == ["add", "subtract", "ablate"]
    assert {cell.action for cell in summary.cells} == {"", "add", "ablate"}
    assert {claim.verdict for claim in summary.claims} == {"supported", "not shown"}
    assert completed(summary) is summary


TIP = Tip("name", ("line", "other"))
LOOKS = (PointLook("yes", "filled"), PointLook("no", "hollow"), PointLook("open", "cross", optional=True))
CONTENTS = {
    "bars": Bars(("a (%)", "b (%)"), (BarBlock("on x", (BarRow("r", (Bar(5, 4, 6, "5", TIP), None)),)),)),
    "maps": HeatMaps(tuple(HeatMap(f"m{i}", ("r",), ("c",), ((Tile(0.5, "0.50"),),), heading=(f"m{i}",)) for i in range(2))),
    "signed map": HeatMaps((HeatMap("m", ("r", "s"), ("c",), ((Tile(-0.5, "-0.5"),), (None,)), signed=True),)),
    "lines": LayerLines((LinePanel("norm", (Line("l", (1.0, None, 3.0), "#0072B2"),), scale="log"),), (1,)),
    "doses": LayerLines(
        (
            LinePanel(
                "refused",
                (Line("d", (0.2, 0.5, 1.0), "#0072B2"), Line("c", (0.1, None, 0.1), "#b3b3b3", thin=True)),
                (Band("d", ((0.1, 0.3), None, (0.8, 1.0)), "#0072B2"),),
                scale="share",
                heading="before, harmful",
                top=1.0,
            ),
        ),
        (0.0,),
        horizontal=(-1.0, 0.0, 2.0),
        axis="coefficient",
    ),
    "points": PointStrips(
        (PointStrip("s", tuple(PointGroup(f"g{i}", "#0072B2", (Point(0.5, "yes", "a point"),)) for i in range(3))),),
        LOOKS,
        "place",
    ),
}


WRITTEN = {
    "bars": {"on x", "r", "5", "not measured", "a (%)", "b (%)", "100"},
    "maps": {"m0", "m1", "r", "c", "0.50"},
    "signed map": {"r", "s", "c", "-0.5", "\N{EN DASH}"},
    "lines": {"l", "norm", "layer", "1"},
    "doses": {"d", "before, harmful", "refused", "coefficient", "-1", "0", "2", "100 %"},
    "points": {"s", "g0, yes", "g0, no", "place"},
}
"""What the drawing inside the page says."""


@pytest.mark.parametrize("name", CONTENTS)
def test_each_content_is_drawn_in_three_ways(name, real_figures):
    content = CONTENTS[name]
    figure = draw(content)
    figure.draw_without_rendering()
    live = interactive(FigureSpec(name, "title", "caption", content, ()))
    inline = ElementTree.fromstring(inline_svg(content))
    assert live.data
    json.dumps([live.data, live.titled(), live.narrow])
    panels = {"bars": 2, "maps": 2, "signed map": 1, "lines": 1, "doses": 1, "points": 1}[name]
    assert len(figure.axes) == panels
    assert set(inline.itertext()) >= WRITTEN[name]
    assert sum(key.startswith("yaxis") for key in live.layout) == panels


def test_sections_are_made_in_the_order_of_the_registry():
    found, _ = made_sections(ReportView.of(*make_run(n=2)))
    assert [figure.name for section in found for figure in section.figures] == [
        "answer", "rates", "added", "ablated", "transfer", "cosines-by-layer", "separation", "norms", "projections", "cosines",
    ]  # fmt: skip


def test_the_documented_section_works(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    (tmp_path / "lengths.py").write_text(re.search(r"```python\n(# lengths.py.*?)```", text, re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    summary, completions = make_run(n=2)
    named = summary.model_copy(update={"study": {**summary.study, "sections": ["lengths:Lengths"]}})
    page = write_report(tmp_path / "run", named, completions)
    assert "figures/lengths" in written_by(page)
    assert '<figure id="figure-lengths">' in page.read_text(encoding="utf-8")
