"""The divergence of two checkpoints along responses: a figure by token, and a table of means."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.diff.divergence_results import FIRST, DivergenceCurve, DivergenceResult, Estimate
from demur.core import number_format
from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.diff.what_changed import PART
from demur.report.sections.section import ReportView
from demur.report.style import NEUTRAL, PALETTE

_RUNS = {"later": "as it is", "ablated": "with its direction ablated", "null": "null: with a random direction ablated"}


class DivergenceAlong:
    """The figure and the table `diff-divergence`."""

    part: ClassVar[str] = PART

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure for each pair."""
        results = view.summary.diff_details.divergence
        return [_figure(one, "" if len(results) == 1 else f"-{number}") for number, one in enumerate(results, start=1)]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One table; none for a run that did not measure it."""
        results = view.summary.diff_details.divergence
        return [_table(results)] if results else []


def _figure(one: DivergenceResult, number: str) -> FigureSpec:
    import pandas

    from_earlier = [curve for curve in one.curves if curve.other == "earlier"]
    count = max(len(curve.by_token) for curve in from_earlier)
    keys = dict.fromkeys((curve.instructions, curve.responses) for curve in from_earlier)
    panels = [_panel(one, [each for each in from_earlier if (each.instructions, each.responses) == key], count) for key in keys]
    title = f"Divergence along responses: {one.subject}"
    caption = (
        f"KL({one.second} || {one.first}) of the next token, in nats, at each token of greedy responses. Both checkpoints run "
        f"along the same responses. {one.second} also runs with its component along its own direction set to the mean of "
        "harmless instructions at every layer, and in the null with that along a random direction. Means over instructions, with "
        "95 % intervals. Responses that have ended are left out."
    )
    rows = [
        {
            "instructions": curve.instructions,
            "responses": curve.responses,
            "run": _RUNS[curve.one],
            "token": token,
            "n": each.n,
            "kl": each.kl.mean,
            "js": each.js.mean,
            "same most likely token": each.agrees,
        }
        for curve in from_earlier
        for token, each in enumerate(curve.by_token, start=1)
    ]
    said = "; ".join(
        f"{curve.instructions} instructions, responses of {curve.responses}: {curve.kl.mean:.3g} nats per token"
        for curve in from_earlier
        if curve.one == "later"
    )
    content = LayerLines(
        tuple(panels),
        inches=1.7 * len(panels) + 0.8,
        pixels=230 * len(panels) + 60,
        horizontal=tuple(range(1, count + 1)),
        axis="token of the response",
    )
    return FigureSpec.of(Sheet(f"diff-divergence{number}", title, caption, f"{title}. {said}.", pandas.DataFrame(rows), content))


def _panel(one: DivergenceResult, curves: Sequence[DivergenceCurve], count: int) -> LinePanel:
    lines, bands = [], []
    for number, curve in enumerate(curves):
        null = curve.one == "null"
        colour, name = NEUTRAL if null else PALETTE[number % len(PALETTE)], f"{one.second} {_RUNS[curve.one]}"
        missing = (None,) * (count - len(curve.by_token))
        lines.append(Line(name, (*(each.kl.mean for each in curve.by_token), *missing), colour, 1 if null else 0, thin=null))
        if not null:
            bounds = tuple(None if each.kl.ci95 is None else _from_zero(each.kl.ci95) for each in curve.by_token)
            bands.append(Band(name, (*bounds, *missing), colour))
    heading = f"{curves[0].instructions} instructions, responses of {curves[0].responses}"
    return LinePanel("nats", tuple(lines), tuple(bands), unit=" nats", short_title="nats", heading=heading)


def _from_zero(bounds: tuple[float, float]) -> tuple[float, float]:
    """An interval without its part below 0, where no divergence is."""
    return max(0.0, bounds[0]), bounds[1]


def _table(results: Sequence[DivergenceResult]) -> TableSpec:
    import pandas

    data, readable = [], []
    for one in results:
        for curve in one.curves:
            row = {"pair": one.subject, **curve.model_dump(include={"instructions", "responses", "one", "other", "n"})}
            numbers: dict[str, Estimate | None] = {"kl": curve.kl, "reverse kl": curve.reverse, "js": curve.js}
            numbers |= {"same most likely token": curve.agrees}
            numbers |= {f"kl of the first {FIRST} tokens": curve.beginning, "kl of later tokens": curve.rest}
            data.append({**row, **{name: value for each, of in numbers.items() for name, value in _columns(each, of)}})
            other = one.first if curve.other == "earlier" else f"{one.second} as it is"
            readable.append(
                {
                    **({"Pair": one.subject} if len(results) > 1 else {}),
                    "Compared": f"{one.second} {_RUNS[curve.one]}, with {other}",
                    "Along": f"responses of {curve.responses} to {curve.instructions} instructions",
                    "KL": _nats(curve.kl),
                    "Reversed": _nats(curve.reverse),
                    "JS": _nats(curve.js),
                    "Same token": number_format.percent(curve.agrees.mean, 100),
                }
            )
    caption = (
        "Divergence of the next token along greedy responses, in nats per token, with 95 % intervals over instructions. KL: from "
        "the first of the compared runs to the second; reversed: from the second to the first; JS: Jensen-Shannon, at most 0.69. "
        "Same token: how often both find the same token most likely."
    )
    numeric = frozenset({"KL", "Reversed", "JS", "Same token"})
    return TableSpec("diff-divergence", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numeric)


def _columns(name: str, value: Estimate | None) -> list[tuple[str, float | None]]:
    low, high = (None, None) if value is None or value.ci95 is None else value.ci95
    return [(name, None if value is None else value.mean), (f"{name} ci95 low", low), (f"{name} ci95 high", high)]


def _nats(value: Estimate) -> str:
    if value.ci95 is None:
        return number_format.number(value.mean, 3)
    low, high = (number_format.number(bound, 2) for bound in value.ci95)
    return f"{number_format.number(value.mean, 3)} [{low}, {high}]"
