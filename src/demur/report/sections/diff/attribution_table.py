"""Which heads and MLPs write the difference in the log-odds of a refusal: a figure by layer, and a table of components."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.diff.attribution_results import AttributionResult, ComponentResult
from demur.analysis.diff.divergence_results import Estimate
from demur.core import number_format
from demur.report.figure_contents import Band, LayerLines, Line, LinePanel
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.diff.what_changed import PART
from demur.report.sections.section import ReportView
from demur.report.style import PALETTE

SHOWN = 15
"""How many components the page shows; the CSV file has all."""


class AttributionTable:
    """The figure and the table `components`."""

    part: ClassVar[str] = PART

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure for each pair."""
        results = view.summary.diff_details.attribution
        return [_figure(one, "" if len(results) == 1 else f"-{number}") for number, one in enumerate(results, start=1)]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One table; none for a run that did not measure it."""
        results = view.summary.diff_details.attribution
        return [_table(results)] if results else []


def _figure(one: AttributionResult, number: str) -> FigureSpec:
    import pandas

    series = {
        "all heads": [each.heads for each in one.by_layer],
        "MLP": [each.mlp for each in one.by_layer],
    }
    lines = [Line(name, tuple(each.mean for each in values), PALETTE[at]) for at, (name, values) in enumerate(series.items())]
    bands = [Band(name, tuple(each.ci95 for each in values), PALETTE[at]) for at, (name, values) in enumerate(series.items())]
    title = f"Who writes the difference in the log-odds of a refusal: {one.subject}"
    caption = (
        f"Direct attribution at the prompt's last token: what each layer's heads together, and its MLP, add to the logits of "
        f"tokens that begin a refusal minus the others, {one.second} minus {one.first}, in nats. Above 0: towards a refusal. "
        "Means over harmful instructions with 95 % intervals. What a component adds directly is not all that it does, because "
        "later layers read it."
    )
    rows = [{"layer": each.layer, "all heads": each.heads.mean, "MLP": each.mlp.mean} for each in one.by_layer]
    largest = max(one.components, key=lambda each: abs(each.change.mean))
    said = f"largest change of one component: {largest.name}, {largest.change.mean:+.2g} nats"
    panel = LinePanel("change in nats", tuple(lines), tuple(bands), unit=" nats", short_title="nats")
    content = LayerLines((panel,), inches=2.8, pixels=360)
    return FigureSpec.of(Sheet(f"components{number}", title, caption, f"{title}. {said}.", pandas.DataFrame(rows), content))


def _table(results: Sequence[AttributionResult]) -> TableSpec:
    import pandas

    data = [{"pair": one.subject, **_numbers(one, each)} for one in results for each in one.components]
    readable = [
        {**({"Pair": one.subject} if len(results) > 1 else {}), **_readable(one, each)}
        for one in results
        for each in one.components[:SHOWN]
    ]
    caption = (
        "The heads and MLPs whose direct attribution changes most, in nats of the log-odds that the first token begins a "
        "refusal, with 95 % intervals over harmful instructions. p: paired t test, corrected for all components (Holm). "
        "Estimate: what attribution patching says that a patch of the component would change; exact: what it changes, where it "
        "was made. The CSV file has all."
    )
    numeric = frozenset(name for row in readable for name in row if name not in ("Pair", "Component"))
    return TableSpec("components", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numeric)


def _numbers(one: AttributionResult, each: ComponentResult) -> dict[str, object]:
    low, high = each.change.ci95 or (None, None)
    row: dict[str, object] = {"layer": each.layer, "head": each.head}
    row |= {f"direct {name}": value for name, value in zip((one.first, one.second), each.direct, strict=True)}
    row |= {"change": each.change.mean, "ci95 low": low, "ci95 high": high, "p": each.p}
    for place, name in enumerate((one.first, one.second)):
        row |= {f"estimate into {name}": each.estimate[place], f"exact into {name}": each.exact[place]}
    return row


def _readable(one: AttributionResult, each: ComponentResult) -> dict[str, str]:
    row = {"Component": each.name[0].upper() + each.name[1:], "Change": _nats(each.change), "p": number_format.p_value(each.p)}
    for place, name in enumerate((one.first, one.second)):
        row[f"Estimate into {name}"] = number_format.hundredths(each.estimate[place])
        row[f"Exact into {name}"] = number_format.hundredths(each.exact[place])
    return row


def _nats(value: Estimate) -> str:
    if value.ci95 is None:
        return number_format.hundredths(value.mean)
    low, high = map(number_format.hundredths, value.ci95)
    return f"{number_format.hundredths(value.mean)} [{low}, {high}]"
