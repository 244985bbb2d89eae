"""Published and measured rates, as tables for files, page and terminal, and as sentences.

If a measured rate has settings that differ from the published ones, the output says so and lists these settings with both
values.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.analysis.published_rates import DEPARTS, SAME, UNSTATED, in_words
from demur.analysis.summary import Departure, Figure, PublishedRow, Summary
from demur.core import number_format
from demur.core.fitted_table import USUAL, Line, Pieces, fitted_table
from demur.core.statistics import LEVEL
from demur.report.cell_labels import BASELINE

if TYPE_CHECKING:
    import pandas
    from rich.table import Table

UNPAIRED = (
    "p is from Fisher's exact test of two independent proportions. Only counts were published, so verdicts cannot be paired, "
    "even if the instructions are the same."
)


@dataclass(frozen=True)
class CountedDeparture:
    """A setting in which measured cells differ from the published ones, and the number of rates for which it differs."""

    setting: str
    published: str
    here: str
    rates: str


def published_table(summary: Summary) -> "pandas.DataFrame":
    """One row for each published rate, with the measured one. Rates are fractions, `difference` is in percentage points."""
    import pandas

    rows = [
        {
            **row.model_dump(include={"work", "target", "prompt", "instructions", "intervention", "source", "coefficient"}),
            **_numbers("published", row.published),
            "judge": row.judge,
            **_numbers("measured", row.measured),
            "difference": None if row.difference is None else 100 * row.difference,
            "p_value": row.p_value,
            "verdicts_changed_at_least": row.verdicts_changed_at_least,
            "settings": row.settings,
            "departures": "; ".join(_departure(each) for each in row.departures),
            "not_stated": "; ".join(row.not_stated),
            "note": row.note,
            "reason": row.reason,
        }
        for row in summary.published
    ]
    counts = ["published_n", "published_refusals", "measured_n", "measured_refusals", "verdicts_changed_at_least"]
    numbers = ["coefficient", "difference", "p_value"]
    return pandas.DataFrame(rows).astype({**dict.fromkeys(counts, "Int64"), **dict.fromkeys(numbers, "float64")})


def readable_published(summary: Summary) -> "pandas.DataFrame":
    """The readable table of published and measured rates."""
    import pandas

    rows = [
        {
            "Work": row.work,
            "Target": row.target,
            "Prompt": row.prompt or "",
            "Instructions": row.instructions,
            "Edit": _edit(row),
            "Published": rate_in_words(row.published),
            "Measured": rate_in_words(row.measured),
            "Difference": number_format.points(row.difference),
            "p": number_format.p_value(row.p_value),
            "Result": finding(row),
            "Settings": row.settings or "",
        }
        for row in summary.published
    ]
    frame = pandas.DataFrame(rows)
    return frame.drop(columns=[name for name in ("Work", "Prompt") if frame[name].nunique() == 1])


def readable_departures(summary: Summary) -> "pandas.DataFrame":
    """Settings of the run that differ from the published ones."""
    import pandas

    rows = [(each.setting, each.published, each.here, each.rates) for each in departures(summary)]
    return pandas.DataFrame(rows, columns=["Setting", "As published", "This run", "Rates"])


def readable_text_and_code(summary: Summary) -> "pandas.DataFrame":
    """Settings where a publication's text and code differ."""
    import pandas

    rows = [(each.setting, each.text, each.code) for each in summary.text_and_code]
    return pandas.DataFrame(rows, columns=["Setting", "The text says", "The code does"])


def departures(summary: Summary) -> list[CountedDeparture]:
    """Every setting that differs from the published one, once, in the order of the rates."""
    found: dict[tuple[str, str, str], int] = {}
    rows = [row for row in summary.published if row.measured]
    for row in rows:
        for each in row.departures:
            key = each.setting, in_words(each.published), in_words(each.here)
            found[key] = found.get(key, 0) + 1
    return [CountedDeparture(*key, "all" if count == len(rows) else f"{count} of {len(rows)}") for key, count in found.items()]


def verdicts(summary: Summary) -> list[str]:
    """The result of the comparison in sentences: whether it is a reproduction, what differs, what was not stated or measured."""
    rows = summary.published
    said = []
    for settings, sentence in {
        SAME: "{} of {} published rates were measured under the published settings.",
        DEPARTS: "Not a reproduction: {} of {} published rates were measured under other settings, which are listed below.",
        UNSTATED: "Not known to be a reproduction: for {} of {} published rates, the source does not state every setting.",
    }.items():
        count = sum(row.settings == settings for row in rows)
        if count:
            said.append(sentence.format(count, len(rows)))
    tested = [row for row in rows if row.differs is not None]
    if tested:
        differ = sum(bool(row.differs) for row in tested)
        said.append(f"Measured and published rates differ in {differ or 'none'} of {len(tested)} tested pairs (p < {LEVEL}).")
        said.append(UNPAIRED)
    changed = [row.verdicts_changed_at_least for row in rows if row.verdicts_changed_at_least]
    if changed:
        said.append(
            f"Greedy decoding has no sampling error. If the settings are the same and two counts differ by k, at least k "
            f"verdicts differ. The largest such difference in a cell is {max(changed)}."
        )
    said += [f"Settings that the source does not state: {name}." for name in [_listed(row.not_stated for row in rows)] if name]
    said += list(dict.fromkeys(f"{_what(row)}: {row.reason}." for row in rows if row.reason))
    said += [f"{_what(row)}: {row.note}." for row in rows if row.note]
    return said


def finding(row: PublishedRow) -> str:
    """The test of one pair of rates, in words."""
    if row.differs is None:
        return "not measured" if row.measured is None else "no test"
    return "differ" if row.differs else "no difference shown"


def rate_in_words(figure: Figure | None) -> str:
    """A rate with its interval, or alone if no n was published; a dash where nothing was measured."""
    return " ".join(_rate_pieces(figure))


def _rate_pieces(figure: Figure | None) -> Pieces:
    """The parts of `rate_in_words`, between which a line may end."""
    if figure is None or figure.rate is None:
        return (number_format.DASH,)
    if figure.n is None or figure.ci95 is None:
        return (f"{100 * figure.rate:.0f} %",)
    return number_format.estimate_pieces(figure.rate, figure.ci95, figure.n)


def terminal_published(summary: Summary, width: int = USUAL) -> "list[Table | str]":
    """The output for a terminal of `width` columns: rates, sentences, and settings that differ from the published ones."""
    rows = summary.published
    if not rows:
        return []
    departing = any(row.settings == DEPARTS for row in rows)
    title = "Published and measured rates: not a reproduction" if departing else "Published and measured rates"
    lines = [_terminal_line(row) for row in rows]
    words, numbers = ("target", "set", "edit", "from"), ("published", "measured", "p")
    shown: list[Table | str] = [
        fitted_table(words, numbers, [[line] for line in lines], width=width, title=title, sections=False),
        *verdicts(summary),
    ]
    for title, frame in (
        ("Settings of this run that differ from the published ones", readable_departures(summary)),
        ("Settings where the published text and code differ (docs/differences.md)", readable_text_and_code(summary)),
    ):
        if len(frame):
            lines = [Line(tuple(map(str, values)), ()) for values in frame.itertuples(index=False, name=None)]
            headings = [str(name).lower() for name in frame.columns]
            shown.append(fitted_table(headings, (), [[line] for line in lines], width=width, title=title, sections=False))
    return shown


def _terminal_line(row: PublishedRow) -> Line:
    names = (row.target, row.instructions, row.intervention, row.source or BASELINE)
    tested = tuple(f"{'* ' if row.differs else ''}{number_format.p_value(row.p_value)}".split())
    return Line(names, (_rate_pieces(row.published), _rate_pieces(row.measured), tested), "bold" if row.differs else "")


def _numbers(name: str, figure: Figure | None) -> dict[str, object]:
    found = figure or Figure()
    low, high = found.ci95 or (None, None)
    counts = {f"{name}_n": found.n, f"{name}_refusals": found.refusals, f"{name}_rate": found.rate}
    return {**counts, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _departure(each: Departure) -> str:
    return f"{each.setting}: published {in_words(each.published)}, here {in_words(each.here)}"


def _edit(row: PublishedRow) -> str:
    dose = "" if row.coefficient is None else f", {number_format.TIMES} {number_format.number(row.coefficient)}"
    return BASELINE if row.intervention == "none" else f"{row.intervention} {row.source}{dose}"


def _what(row: PublishedRow) -> str:
    prompt = f" under {row.prompt}" if row.prompt else ""
    return f"{row.target}{prompt}, {row.instructions}, {_edit(row)}"


def _listed(names: Iterable[Iterable[str]]) -> str:
    return ", ".join(dict.fromkeys(name for each in names for name in each))
