"""Dose-response: lengths in all units, where half is refused, sources at one dose, the shorthand `ladder`, the page."""

import math

import pytest

import demur
from demur.analysis.doses.coherence_gate import Coherence
from demur.analysis.doses.dose_answers import dose_answers
from demur.analysis.doses.dose_response import dose_curves
from demur.analysis.doses.dose_results import DoseResults
from demur.analysis.doses.equal_dose import equal_doses
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import judged_cells
from demur.core.errors import InputError
from demur.core.number_format import MINUS
from demur.interventions.edit_kind import edit_kind, words_of
from demur.report.cell_view import entries
from demur.report.draw_plotly import interactive
from demur.report.draw_static import draw
from demur.report.pictures.inline_svg import inline_svg
from demur.report.sections.doses.coherence_lines import BROKEN
from demur.report.sections.section import ReportView, figures_of, made_sections
from demur.runs.store import Store
from demur.runs.stored_records import cell_of
from demur.study.shorthand.written_lists import LADDERS
from demur.study.spec import make_study as study_of
from tests.report.made_run import make_run
from tests.test_summary import cell
from tests.tiny_study import make_study

WORDS = words_of({"add": edit_kind("add")})
DIRECTIONS = [
    DirectionFacts(name="before", source="before", prompt="chatml", layer=17, raw_norm=10.0, mean_residual_norm=160.0),
    DirectionFacts(name="after", source="after", prompt="chatml", layer=17, raw_norm=20.0, mean_residual_norm=200.0),
]


def added(source, dose, unit="raw", **facts):
    edit = {"intervention": "add", "action": "add", "expected": 1, "direction": source, "source": source, "layer": 17,
            "positions": "all", "coefficient": dose, "unit": unit, **facts}  # fmt: skip
    return cell(f"{source} {dose:g} {unit}", instructions="harmless", **edit)


def judged(refused, n=100):
    """Cells with a number of refusals each; the first refused instructions are the same in all of them."""
    cells = [cell_of(facts) for facts, _ in refused]
    verdicts = {(facts["key"], "prefix"): {i: i < count for i in range(n)} for facts, count in refused}
    return judged_cells(cells, verdicts, ["prefix"]), verdicts


def curves_of(refused, probabilities=None, texts=()):
    cells, _ = judged(refused)
    return dose_curves(cells, "prefix", DIRECTIONS, probabilities or {}, texts), cells


BASELINE = (cell("none", instructions="harmless"), 2)
FIVE = [(added("before", dose), count) for dose, count in ((0.5, 5), (1.0, 20), (2.0, 80), (3.0, 97))]


def test_a_dose_has_its_length_and_its_share_of_the_target_s_own_stream():
    every = [BASELINE, *FIVE, *((added("before", dose, unit), 9) for unit in ("unit", "residual") for dose in (0.5, 1.0))]
    raw, unit, residual = curves_of(every)[0]
    assert [dose.coefficient for dose in raw.doses] == [0.0, 0.5, 1.0, 2.0, 3.0]
    assert [dose.norm for dose in raw.doses] == [0.0, 5.0, 10.0, 20.0, 30.0]
    # The target is "after", whose stream has a mean norm of 200; that of the source would be 160.
    assert [dose.residual_share for dose in raw.doses] == pytest.approx([0.0, 0.025, 0.05, 0.1, 0.15])
    assert [dose.norm for dose in unit.doses] == [0.0, 0.5, 1.0]
    assert [dose.norm for dose in residual.doses] == [0.0, 100.0, 200.0]
    assert [dose.residual_share for dose in residual.doses] == [0.0, 0.5, 1.0]


def log_odds(rate, n=100):
    """With half a refusal and half another answer added."""
    return math.log((rate * n + 0.5) / (n - rate * n + 0.5))


def test_half_is_found_between_two_doses_on_the_log_odds():
    (curve,), _ = curves_of([BASELINE, *FIVE])
    low, high = log_odds(0.2), log_odds(0.8)
    assert (curve.outcome, len(curve.doses)) == ("verdict", 5)
    assert curve.half == pytest.approx(1.0 + low / (low - high))
    assert curve.half == pytest.approx(1.5)
    assert (curve.half_norm, curve.half_residual_share) == (pytest.approx(15.0), pytest.approx(0.075))


def test_probabilities_are_used_where_every_dose_has_one():
    values = {"none": 0.01, "before 0.5": 0.1, "before 1": 0.4, "before 2": 0.7, "before 3": 0.9}
    known = {f"{key} raw" if key != "none" else key: {0: value, 1: value} for key, value in values.items()}
    (curve,), _ = curves_of([BASELINE, *FIVE], known)
    low, high = (math.log(value / (1 - value)) for value in (0.4, 0.7))
    assert curve.outcome == "probability"
    assert curve.half == pytest.approx(1.0 + low / (low - high), abs=1e-6)
    known.popitem()
    assert curves_of([BASELINE, *FIVE], known)[0][0].outcome == "verdict"


def test_lost_refusals_cross_half_from_above_and_signs_are_apart():
    down = [(added("before", -dose) | {"instructions": "harmful"}, count) for dose, count in ((1.0, 70), (2.0, 20))]
    up = [(added("before", dose) | {"instructions": "harmful"}, 90) for dose in (1.0, 2.0)]
    low, high = curves_of([(cell("none"), 90), *down, *up])[0]
    assert [dose.coefficient for dose in low.doses] == [0.0, -1.0, -2.0]
    assert -2.0 < low.half < -1.0
    assert high.half is None


def test_one_dose_is_no_curve_and_controls_have_none():
    nulls = [(added("random-1", dose, control=True, stands_beside="before"), 3) for dose in (1.0, 2.0)]
    assert curves_of([BASELINE, FIVE[0], *nulls])[0] == []


def coherent(key, loss, passes):
    return Coherence(key=key, n=100, reference="before/chatml", loss=1.0, loss_change=loss, echo=0.0, degenerate=0.0,
                     coherent=passes, reason="" if passes else "the text is broken: x")  # fmt: skip


def test_the_sentence_gives_the_dose_and_what_the_text_costs():
    texts = [coherent("before 1 raw", 0.1, True), coherent("before 2 raw", 0.3, True)]
    found, cells = curves_of([BASELINE, *FIVE], texts=texts)
    assert found[0].half_loss_change == pytest.approx(0.2)
    (said,) = dose_answers(found, cells, "prefix", WORDS)
    assert said.text == (
        'Adding "before"\'s direction (layer 17) to "after" makes half of the harmless instructions refused at '
        "1.5 x its raw norm (7.5 % of the norm of its stream), where the loss of its text is 0.20 nats a token higher."
    )
    assert (said.shown, said.cells[0]) == (True, "none")
    texts[1] = coherent("before 2 raw", 2.3, False)
    found, cells = curves_of([BASELINE, *FIVE], texts=texts)
    (said,) = dose_answers(found, cells, "prefix", WORDS)
    assert said.text.endswith("1.20 nats a token higher and the text is broken.")
    assert said.shown is False
    found, cells = curves_of([BASELINE, *FIVE[:2]])
    (said,) = dose_answers(found, cells, "prefix", WORDS)
    assert said.text.endswith("never brings the refusals of harmless instructions to half: they are 20 % at 1 x its raw norm, "
                              "the largest dose.")  # fmt: skip
    assert said.shown is False


def test_a_direction_is_compared_with_the_target_s_own_at_one_coefficient():
    own = [(added("after", dose, unit), 30) for dose, unit in ((1.0, "raw"), (0.1, "residual"))]
    cells, verdicts = judged([BASELINE, FIVE[1], (added("before", 0.1, "residual"), 55), *own])
    raw, residual = equal_doses(cells, verdicts, "prefix", DIRECTIONS, ())
    assert (raw.key, raw.own_key, raw.equal, raw.norms) == ("before 1 raw", "after 1 raw", "multiple", (10.0, 20.0))
    assert (raw.difference, raw.n) == (pytest.approx(-0.1), 100)
    assert raw.ci95[0] < -0.1 < raw.ci95[1] < 0
    assert (residual.equal, residual.norms) == ("norm", (20.0, 20.0))
    assert (residual.difference, residual.p_value < 0.001) == (pytest.approx(0.25), True)


def test_a_ladder_has_five_doses_of_units_that_say_something(tmp_path):
    given = demur.load_study(make_study(tmp_path)).model_dump(mode="json")

    def with_unit(unit):
        return study_of({**given, "interventions": [{"kind": "add", "coefficient": "ladder", "unit": unit}]})

    for unit, doses in LADDERS.items():
        assert [edit.dose for edit in with_unit(unit).interventions] == doses
        assert len(doses) >= 5
    # A study with a ladder is the same as one that names each dose.
    edits = [{"kind": "add", "coefficient": [0.25, 0.5, 1.0, 2.0, 4.0], "unit": "raw"}]
    assert with_unit("raw").digest == study_of({**given, "interventions": edits}).digest
    with pytest.raises(InputError, match='"ladder", which needs unit = "residual" or unit = "raw", not \'unit\''):
        with_unit("unit")


def test_the_unit_residual_is_the_norm_of_the_target_s_own_stream(tmp_path):
    study = demur.load_study(make_study(tmp_path))
    demur.run(study, tmp_path / "run")
    with demur.open_run(tmp_path / "run") as run:
        summary = run.summary()
    assert summary["doses"]["curves"] == []  # one dose
    store = Store.open(tmp_path / "run")
    norms = {name: store.direction(name).provenance.mean_residual_norm for name in ("base", "chat")}
    store.close()
    assert norms["base"] != norms["chat"]
    found = {(one["key"], *one["norms"]) for one in summary["doses"]["equal"]}
    assert len(found) == 4
    for key, norm, own in found:
        target = key.partition("/")[0]
        assert norm == own == pytest.approx(2 * norms[target])


@pytest.fixture(scope="module")
def view():
    summary, completions = make_run(n=10, coefficients=(0.5, 1.0, 2.0))
    edited = [one for one in entries(summary, "prefix") if one.edited]
    texts = tuple(coherent(one.key, 0.3 * (one.cell.coefficient or 1.0), (one.cell.coefficient or 0) < 2) for one in edited)
    cells = [cell for cell in summary.cells if cell.judge == "prefix"]
    curves = dose_curves(cells, "prefix", summary.directions, {}, texts)
    return ReportView.of(summary.model_copy(update={"doses": DoseResults(coherence=texts, curves=tuple(curves))}), completions)


def test_dose_lines_have_a_panel_of_losses_and_mark_broken_text(view):
    figure = figures_of(view)["doses-add-raw"]
    rates, losses = figure.content.panels[:2]
    (line,) = [one for one in losses.lines if one.name == "before"]
    assert line.values == (0.0, 0.15, 0.3, 0.6)
    assert any(one.name.startswith("gate") for one in losses.lines)
    marks = [one for one in rates.lines if one.name == BROKEN]
    assert marks
    assert all(one.values[:3] == (None, None, None) and one.values[3] is not None for one in marks)
    assert "before: the text is broken: x" in {note for one in marks for note in one.notes}
    assert [trace for trace in interactive(figure).data if trace["name"] == BROKEN]
    draw(figure.sheets[0].content)
    assert BROKEN in inline_svg(figure.content)


def test_tables_of_coherence_and_of_half_doses(view):
    tables = {table.name: table for made in made_sections(view)[0] for table in made.tables}
    readable = tables["coherence"].readable
    assert set(readable["Text"]) >= {"text", "broken"}
    assert len(tables["coherence"].data) == len(view.summary.doses.coherence)
    assert tables["half-dose"].readable["Half at"].str.len().min() > 0
    assert MINUS not in "".join(readable["Loss"])
