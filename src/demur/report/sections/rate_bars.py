"""Refusal rates as bars: the shared parts of all figures of rates, with their captions, texts and numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from demur.analysis.published_rates import SAME
from demur.analysis.summary import PublishedRow
from demur.core import number_format
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry
from demur.report.figure_contents import Bar, BarBlock, BarRow, Mark, Tip
from demur.report.result_tables import result_frame

if TYPE_CHECKING:
    import pandas


def bar_block(
    title: str,
    found: Sequence[Entry],
    sets: Sequence[str],
    label: Callable[[Entry], str],
    colour: Callable[[Entry], str | None],
) -> BarBlock:
    """Bars of some entries: a row for each label, a panel for each instruction set; baselines first, controls last."""
    rows: dict[str, dict[str, Entry]] = {}
    for entry in sorted(found, key=lambda e: (e.edited, e.control)):
        rows.setdefault(label(entry), {})[entry.instructions] = entry
    return BarBlock(
        title, tuple(BarRow(name, tuple(_bar(cells.get(each), colour) for each in sets)) for name, cells in rows.items())
    )


def _bar(entry: Entry | None, colour: Callable[[Entry], str | None]) -> Bar | None:
    if entry is None:
        return None
    low, high = entry.interval
    marks = [
        Mark(100 * rate, row.settings == SAME, _published_tip(row))
        for row in entry.published
        if (rate := rate_of(row)) is not None
    ]
    text = number_format.percent(entry.rate, entry.n)
    return Bar(100 * entry.rate, 100 * low, 100 * high, text, tip_of(entry), colour(entry), entry.control, tuple(marks))


def rate_of(row: PublishedRow) -> float | None:
    """A published rate as a fraction, None if the source gives none."""
    return row.published.rate


def _published_tip(row: PublishedRow) -> Tip:
    return Tip("", (f"published: {100 * (rate_of(row) or 0):.1f} %", row.work, f"settings: {row.settings}"))


def tip_of(entry: Entry) -> Tip:
    """The text that the figure shows for an entry when a reader points at it."""
    what = f"{entry.variant} {entry.done}" if entry.edited else BASELINE
    lines = [
        f"{entry.instructions} instructions",
        what + (f", {entry.dose}" if entry.dose else ""),
        f"{entry.refusals} of {entry.n} refused, {number_format.percent(entry.rate, entry.n)} "
        f"{number_format.interval(entry.interval)}",
    ]
    if entry.change is not None:
        tested = "" if entry.p_holm is None else f" (Holm p {number_format.p_value(entry.p_holm)})"
        lines.append(f"change {number_format.points(entry.change)} points{tested}")
    return Tip(entry.target, tuple(lines))


def axis_titles(sets: Sequence[str]) -> tuple[str, ...]:
    """The title of each instruction set's axis."""
    return tuple(f"{name} instructions refused (%)" for name in sets)


def trials_in_words(shown: Sequence[Entry]) -> str:
    """The number of instructions for each bar."""
    counts = sorted({entry.n for entry in shown})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") + " instructions for each bar"


def diamonds_in_words(shown: Sequence[Entry]) -> str:
    """The meaning of the diamonds on the bars; empty if there are none."""
    settings = {row.settings for entry in shown for row in entry.published}
    if not settings:
        return ""
    hollow = "" if settings == {SAME} else ", hollow where the settings are not known to be the same"
    return f" Diamonds: published rates{hollow}."


def rates_in_words(title: str, shown: Sequence[Entry]) -> str:
    """A text alternative with the numbers."""
    parts = [
        (f"{entry.variant} on {entry.target}, " if entry.edited else f"{entry.target}, ")
        + f"{entry.instructions}: {number_format.percent(entry.rate, entry.n)}"
        + "".join(f" (published {100 * rate:.0f} %)" for row in entry.published if (rate := rate_of(row)) is not None)
        for entry in shown
    ]
    return f"{title}. {shortened(parts)}."


def shortened(parts: Sequence[str], limit: int = 24) -> str:
    """The first parts of a text alternative, and how many more there are."""
    more = len(parts) - limit
    return "; ".join(parts[:limit]) + (f"; and {more} more in the table of numbers" if more > 0 else "")


def rate_numbers(shown: Sequence[Entry]) -> "pandas.DataFrame":
    """The numbers of a figure of rates with all digits, and with the labels of the figure."""
    labels = {"arm": [e.target for e in shown], "label": [e.variant for e in shown], "dose": [e.dose for e in shown]}
    frame = result_frame(shown).assign(**labels)
    if any(entry.published for entry in shown):
        frame["published"] = [
            ", ".join(f"{100 * rate:.1f} %" for row in entry.published if (rate := rate_of(row)) is not None) for entry in shown
        ]
    return frame


def readable_rate_numbers(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """The numbers of a figure of rates as the page shows them."""
    columns = ["arm", "instructions", "intervention", "label", "layer", "dose", "n", "refusals"]
    shown = frame[columns].astype(object)
    shown = shown.where(shown.notna(), "").rename(columns={"arm": "target", "label": "direction", "dose": "coefficient"})
    shown["rate"] = [f"{100 * rate:.1f} %" for rate in frame["rate"]]
    shown["95 % interval"] = [number_format.interval(bounds) for bounds in zip(frame["ci_low"], frame["ci_high"], strict=True)]
    if "published" in frame.columns:
        shown["published"] = frame["published"]
    return shown


def source_colour(palette: Mapping[str, str]) -> Callable[[Entry], str | None]:
    """The colour of a bar by the checkpoint that its direction came from."""
    return lambda entry: palette.get(entry.source or "")
