"""How well judges and labellers agree, and rates corrected for the errors of the judges."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.judging.cell_groups import NO_EDIT
from demur.analysis.judging.rating_records import Agreement, CorrectedRate
from demur.core import number_format
from demur.report.cell_labels import BASELINE, arm_labels
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView

_LEAST_SHOWN = 10
"""The fewest completions of a row of the table of agreement on the page."""


class RaterSection:
    """The tables `agreement`, `confusions` and `corrected`; none for a run with one judge that nobody labelled."""

    part: ClassVar[str] = "How well do the judges agree"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """Corrected rates first, then agreement, then the labels of people against those of the judge."""
        return [table for table in (_corrected(view), _agreement(view), _confusions(view)) if table is not None]


def _where(view: ReportView, one: Agreement) -> str:
    if one.target is None or one.prompt is None:
        return "all completions"
    arm = arm_labels(view.summary).get((one.target, one.prompt), one.target)
    return arm if one.edit is None else f"{arm}, {_edit(view, one.edit)}"


def _edit(view: ReportView, edit: str) -> str:
    """The words for an edit: what is done to the direction."""
    if edit == NO_EDIT:
        return BASELINE
    action, _, control = edit.partition(" ")
    words = view.summary.edits.get(action)
    return f"{action if words is None else words.done}{', null directions' if control else ''}"


def _agreement(view: ReportView) -> TableSpec | None:
    import pandas

    found = view.summary.agreement
    if not found:
        return None
    data = [
        {
            "first": one.first,
            "second": one.second,
            "labellers": "+".join(one.labellers),
            "target": one.target,
            "prompt": one.prompt,
            "edit": one.edit,
            "of": one.of,
            "n": one.n,
            "agreement": one.agreement,
            "kappa": one.kappa,
            "ci95 low": None if one.ci95 is None else one.ci95[0],
            "ci95 high": None if one.ci95 is None else one.ci95[1],
            "table": _written(one),
        }
        for one in found
    ]
    # The page has refusals in each arm; the file has every edit and all labels.
    shown = [one for one in found if one.edit is None and (one.of == "refusal" or one.target is None) and one.n >= _LEAST_SHOWN]
    shown = shown or [one for one in found if one.target is None]
    readable = [
        {
            "Raters": f"{one.first} and {one.second}",
            "Completions": _where(view, one),
            "Compared": "refusal or not" if one.of == "refusal" else f"{len(one.labels)} labels",
            "n": f"{one.n:,}",
            "Same": number_format.percent(one.agreement, one.n),
            "Kappa": "not defined" if one.kappa is None else number_format.hundredths(one.kappa),
            "95 %": "" if one.ci95 is None else "[{}, {}]".format(*map(number_format.hundredths, one.ci95)),
        }
        for one in shown
    ]
    caption = (
        "How far judges and people agree. Kappa (Cohen 1960) is 1 for full agreement, and 0 for the agreement that follows from "
        "the numbers of refusals alone; the intervals are 95 % bootstrap intervals over instructions. Where people take part, "
        "completions are weighted, so that the labelled sample stands for all completions. tables/agreement.csv also has each "
        f"edit, rows of fewer than {_LEAST_SHOWN} completions, and the counts of completions by both labels."
    )
    numbers = frozenset({"n", "Same", "Kappa", "95 %"})
    return TableSpec("agreement", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _written(one: Agreement) -> str:
    """A table of counts in one cell of a file: `first label/second label: count`, without zeros."""
    return "; ".join(
        f"{label}/{other}: {count}"
        for label, row in zip(one.labels, one.table, strict=True)
        for other, count in zip(one.labels, row, strict=True)
        if count
    )


def _confusions(view: ReportView) -> TableSpec | None:
    """What each labeller said of the completions to which the judge gave each label, in the whole run."""
    import pandas

    names = {one.name for one in view.summary.labellers}
    found = [one for one in view.summary.agreement if one.target is None and one.of == "labels" and one.second in names]
    found = [one for one in found if one.first not in names]
    if not found:
        return None
    data, readable = [], []
    for one in found:
        for index, label in enumerate(one.labels):
            counts = [row[index] for row in one.table]
            if not any(counts):
                continue
            named = dict(zip(one.labels, counts, strict=True))
            data += [
                {"judge": one.first, "labeller": one.second, "judge's label": judged, "label": label, "n": count}
                for judged, count in named.items()
            ]
            readable.append(
                {
                    "Labeller": one.second,
                    "Label": label,
                    **{f"{one.first}: {judged}": str(n or "") for judged, n in named.items()},
                }
            )
    frame = pandas.DataFrame(readable).fillna("")
    # Labels that the judge gave to no labelled completion need no column.
    frame = frame[[name for name in frame.columns if name in ("Labeller", "Label") or (frame[name] != "").any()]]
    caption = (
        "Labels of people (rows) and of the judge (columns), as counts of labelled completions. Completions on which judges "
        "disagree were drawn more often, so the counts are no shares of all completions."
    )
    numbers = frozenset(map(str, frame.columns)) - {"Labeller", "Label"}
    return TableSpec("confusions", caption, pandas.DataFrame(data), frame, numbers)


def _corrected(view: ReportView) -> TableSpec | None:
    import pandas

    found = view.summary.corrected
    if not found:
        return None
    data = [
        {
            "judge": one.judge,
            "target": one.target,
            "prompt": one.prompt,
            "instructions": one.instructions,
            "edit": one.edit,
            "n": one.n,
            "labelled": one.labelled,
            **_pieces("rate", one.rate, one.ci95),
            **_pieces("prediction-powered", one.prediction_powered, one.prediction_powered_ci95),
            "errors from": one.errors_from,
            "sensitivity": one.sensitivity,
            "specificity": one.specificity,
            **_pieces("rogan-gladen", one.rogan_gladen, one.rogan_gladen_ci95),
        }
        for one in found
    ]
    shown = [one for one in found if one.judge == view.judge] or found
    readable = [_readable(view, one) for one in shown]
    names = " and ".join(f"{one.name} ({one.labelled} labels)" for one in view.summary.labellers)
    caption = (
        f"Refusal rates as {shown[0].judge} gives them, and corrected for its errors by the labels of {names}. "
        "Prediction-powered: the rate of the judge, plus the weighted mean of label minus verdict on the labelled completions of "
        "this row. Rogan-Gladen: corrected by sensitivity and specificity of the judge on the completions that the last column "
        "names; it assumes that the judge errs on this row as it does there. It is left out where the rates contradict this, or "
        "where the judge does no better than a guess. Other empty cells have too few labels. tables/corrected.csv has every "
        "judge."
    )
    numbers = frozenset({"n", "Labelled", "Judge", "Prediction-powered", "Rogan-Gladen", "Sensitivity", "Specificity"})
    return TableSpec("corrected", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _pieces(name: str, rate: float | None, interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {name: rate, f"{name} low": low, f"{name} high": high}


def _readable(view: ReportView, one: CorrectedRate) -> dict[str, str]:
    def shown(rate: float | None, interval: tuple[float, float] | None) -> str:
        return "" if rate is None or interval is None else number_format.estimate(rate, interval, one.labelled)

    return {
        "Checkpoint": arm_labels(view.summary).get((one.target, one.prompt), one.target),
        "Set": one.instructions,
        "Edit": _edit(view, one.edit),
        "n": f"{one.n:,}",
        "Labelled": f"{one.labelled:,}",
        "Judge": number_format.estimate(one.rate, one.ci95, one.n),
        "Prediction-powered": shown(one.prediction_powered, one.prediction_powered_ci95),
        "Rogan-Gladen": shown(one.rogan_gladen, one.rogan_gladen_ci95),
        "Sensitivity": number_format.hundredths(one.sensitivity),
        "Specificity": number_format.hundredths(one.specificity),
        "Errors of": one.errors_from or "",
    }
