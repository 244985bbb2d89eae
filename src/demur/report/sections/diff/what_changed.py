"""What fine-tuning changed: the argument as a table, and for each measurement of pairs a figure and a table of its runs."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from demur.analysis.diff.finding import Finding
from demur.analysis.diff.pair_results import PairCurve, PairResult
from demur.core import number_format
from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.diff.diff_words import DiffWords, kind_words, measurement_words
from demur.report.sections.section import ReportView
from demur.report.style import NEUTRAL, PALETTE

PART = "What changed"

_OTHER_PLACES = (("interpolation",), ("rank", "random rank"))
"""Kinds of runs whose places are no layers, but shares or ranks. They get a figure of their own, named after the first kind."""


class WhatChanged:
    """The table `what-changed`, and for each measurement of pairs a figure and a table of the same name."""

    part: ClassVar[str] = PART

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure for each measurement of each pair that has runs at several places."""
        made = []
        drawn = [part for one in view.summary.diff for part in _apart(one)]
        for name in dict.fromkeys(one.measurement for one in drawn):
            mine = [one for one in drawn if one.measurement == name]
            for number, one in enumerate(mine, start=1):
                panels = [panel for source in (one.second, one.first) for panel in _panels(one, source)]
                if panels:
                    made.append(_figure(one, measurement_words(name), panels, "" if len(mine) == 1 else f"-{number}"))
        return made

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """The argument, and one table of runs for each measurement; none for a run without measurements of pairs."""
        if not view.summary.changed:
            return []
        names = dict.fromkeys(one.measurement for one in view.summary.diff)
        runs = [_runs(name, [one for one in view.summary.diff if one.measurement == name]) for name in names]
        return [_argument(view.summary.changed), *runs]


def _argument(found: Sequence[Finding]) -> TableSpec:
    import pandas

    several = len({one.subject for one in found}) > 1
    readable = [
        {
            **({"Checkpoints": one.subject} if several else {}),
            "Question": one.question,
            "Answer": one.answer if one.shown or one.answer.startswith("N") else f"Not shown: {one.answer}",
            "Rests on": one.evidence,
        }
        for one in found
    ]
    caption = (
        "What fine-tuning changed, step by step. Recovery is 0 % where a checkpoint refuses as it does by itself and 100 % where "
        "it refuses as the other one does, with 95 % intervals over instructions. An answer is shown only if it beats its null."
    )
    data = pandas.DataFrame([one.model_dump() for one in found])
    # The page opens with the argument.
    return TableSpec("what-changed", caption, data, pandas.DataFrame(readable), on_page=False)


def _runs(name: str, results: Sequence[PairResult]) -> TableSpec:
    import pandas

    words, data, readable = measurement_words(name), [], []
    for one in results:
        for checkpoint, rate in ((one.first, one.first_rate), (one.second, one.second_rate)):
            shared = {"pair": one.subject, "source": checkpoint, "target": checkpoint, "kind": "alone", "n": one.n}
            data.append({**shared, words.place: None, "rate": rate})
            readable.append({"Run": f"{checkpoint} as it is", "Refusals": number_format.percent(rate, one.n)})
        for curve in one.curves:
            for run in curve.runs:
                low, high = run.ci95 or (None, None)
                below, above = run.recovery_ci95 or (None, None)
                shared = {"pair": one.subject, "source": curve.source, "target": curve.target, "kind": curve.kind, "n": one.n}
                data.append(
                    {
                        **shared,
                        words.place: run.place,
                        "rate": run.rate,
                        "ci95 low": low,
                        "ci95 high": high,
                        "recovery": run.recovery,
                        "recovery ci95 low": below,
                        "recovery ci95 high": above,
                    }
                )
                readable.append(
                    {
                        "Run": f"{curve.source} into {curve.target}: {kind_words(curve.kind)}",
                        words.place.capitalize(): "" if run.place is None else f"{run.place:g}",
                        "Refusals": number_format.percent(run.rate, one.n),
                        "Recovery": _recovery(run.recovery, run.recovery_ci95),
                    }
                )
    numbers = frozenset({words.place.capitalize(), "Refusals", "Recovery"})
    frame = pandas.DataFrame(readable).fillna("")
    return TableSpec(f"diff-{name}", words.table, pandas.DataFrame(data), frame, numbers, on_page=False)


def _recovery(value: float | None, bounds: tuple[float, float] | None) -> str:
    if value is None or bounds is None:
        return "not defined"
    return f"{number_format.points(value, 0).lstrip('+')} % {number_format.interval(bounds, 0)}"


def _panels(one: PairResult, source: str) -> Iterator[LinePanel]:
    """The panel of one direction: refusals in each kind of run, with those of both checkpoints as they are."""
    curves = [curve for curve in one.curves if curve.source == source]
    if not curves:
        return
    target = one.first if source == one.second else one.second
    places = sorted({run.place for curve in curves for run in curve.runs if run.place is not None})
    lines, bands = [], []
    for number, curve in enumerate(curves):
        null = kind_words(curve.kind).startswith("null")
        colour = NEUTRAL if null else PALETTE[number % len(PALETTE)]
        name = kind_words(curve.kind)
        values = _at(curve, places)
        # Some kinds are measured at every second layer.
        lines.append(Line(name, tuple(values), colour, 1 if null else 0, thin=null, joined=True))
        if not null:
            bands.append(Band(name, tuple(_bounds(curve, places)), colour))
    ends = {one.first: one.first_rate, one.second: one.second_rate}
    for dash, checkpoint in ((2, source), (3, target)):
        role = "source" if checkpoint == source else "target"
        lines.append(Line(f"{role} as it is", (ends[checkpoint],) * len(places), NEUTRAL, dash, thin=True))
    yield LinePanel(
        "probability of a refusal",
        tuple(lines),
        tuple(bands),
        scale="share",
        short_title="refusals",
        heading=f"{source} into {target}",
        top=1.0,
    )


def _apart(one: PairResult) -> list[PairResult]:
    """The parts of a result that have different places: an interpolation has shares, and other runs have layers."""
    several = [curve for curve in one.curves if len(curve.runs) > 1]
    apart = {kind for kinds in _OTHER_PLACES for kind in kinds}
    found = [one.model_copy(update={"curves": tuple(curve for curve in several if curve.kind not in apart)})]
    for kinds in _OTHER_PLACES:
        own = tuple(curve for curve in several if curve.kind in kinds)
        if own:
            found.append(one.model_copy(update={"measurement": kinds[0], "curves": own, "transitions": ()}))
    return found


def _at(curve: PairCurve, places: Sequence[float]) -> list[float | None]:
    rates: dict[float | None, list[float]] = {}
    for run in curve.runs:
        rates.setdefault(run.place, []).append(run.rate)
    return [sum(rates[place]) / len(rates[place]) if place in rates else None for place in places]


def _bounds(curve: PairCurve, places: Sequence[float]) -> list[tuple[float, float] | None]:
    there = {run.place: run.ci95 for run in curve.runs}
    return [there.get(place) for place in places]


def _figure(one: PairResult, words: DiffWords, panels: Sequence[LinePanel], number: str) -> FigureSpec:
    import pandas

    places = sorted({run.place for curve in one.curves for run in curve.runs if run.place is not None})
    marked = tuple(float(each.layer) for each in one.transitions if each.layer is not None)
    title = f"{words.title}: {one.subject}"
    content = LayerLines(
        tuple(panels),
        marked,
        inches=2.0 * len(panels) + 0.8,
        pixels=300 * len(panels) + 60,
        horizontal=tuple(places),
        axis=words.place,
    )
    rows = [
        {"into": curve.target, "kind": kind_words(curve.kind), words.place: run.place, "refusals": run.rate}
        for curve in one.curves
        for run in curve.runs
        if run.place is not None
    ]
    said = "; ".join(
        f"{curve.source} into {curve.target}, {kind_words(curve.kind)}: refusals from {100 * min(rates):.0f} to "
        f"{100 * max(rates):.0f} %"
        for curve in one.curves
        if len(rates := [run.rate for run in curve.runs]) > 1
    )
    sheet = Sheet(f"diff-{one.measurement}{number}", title, words.figure, f"{title}. {said}.", pandas.DataFrame(rows), content)
    return FigureSpec.of(sheet)
