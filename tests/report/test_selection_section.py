"""The section of the report that shows how layer and dose were selected."""

from demur.analysis.selection_record import SelectedPlace, SelectionRecord, TriedDose
from demur.report.complete_summary import parsed_summary
from demur.report.sections.section import ReportView
from demur.report.sections.selection_by_layer import SelectionByLayer
from tests.report.made_run import made_facts

RECORD = SelectionRecord(
    judge="prefix",
    instructions=12,
    position=-1,
    layer=2,
    coefficients={1: 1.0},
    places=(
        SelectedPlace(position=-1, layer=2, share=0.9, n=12, kl=0.2, change=0.7, broken=0.0),
        SelectedPlace(position=-1, layer=1, share=0.4, n=8, kl=2.5, dropped="the edit changes next tokens"),
        SelectedPlace(position=-2, layer=2, share=0.1, n=8, kl=0.1, dropped="others have a larger effect"),
    ),
    doses=(
        TriedDose(intervention=1, kind="add", unit="raw", coefficient=0.5, change=0.2, broken=0.0, n=12),
        TriedDose(intervention=1, kind="add", unit="raw", coefficient=1.0, change=0.8, broken=0.1, n=12),
    ),
)


def view(record):
    facts, completions = made_facts(n=3, controls=1, judges=("prefix",))
    return ReportView.of(parsed_summary(facts).model_copy(update={"selection": record}), completions)


def test_effect_and_damage_are_drawn_by_layer_at_the_selected_position():
    seen = view(RECORD)
    (figure,) = SelectionByLayer().figures(seen)
    effect, damage = figure.content.panels
    assert effect.lines[0].values == (None, 0.4, 0.9)
    assert damage.lines[0].values == (None, 2.5, 0.2)
    assert figure.content.marked == (2,)
    assert "70 points" in figure.sheets[0].alternative
    (table,) = SelectionByLayer().tables(seen)
    assert list(table.readable["Chosen"]) == ["", "yes"]
    assert list(table.data["coefficient"]) == [0.5, 1.0]


def test_runs_that_selected_nothing_have_no_such_section():
    seen = view(None)
    assert list(SelectionByLayer().figures(seen)) == list(SelectionByLayer().tables(seen)) == []
    one = RECORD.model_copy(update={"places": RECORD.places[:1], "doses": ()})
    assert list(SelectionByLayer().figures(view(one))) == []
