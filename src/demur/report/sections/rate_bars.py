"""Refusal rates as bars: the shared parts of all figures of rates, with their captions, texts and numbers."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from demur.analysis.published_rates import SAME
from demur.analysis.summary import PublishedRow
from demur.core import number_format
from demur.report.cell_labels import BASELINE
from demur.report.cell_view import Entry
from demur.report.figure_contents import Bar, BarBlock, BarRow, Mark, RateBand, Tip
from demur.report.result_tables import result_frame
from demur.report.sections.control_pools import MANY, MANY_OTHERS, Spread, edit_key, folded, pool_label, pool_shares, row_labels
from demur.report.sections.page_address import cell_address

if TYPE_CHECKING:
    import pandas


def bar_block(
    title: str,
    found: Sequence[Entry],
    sets: Sequence[str],
    label: Callable[[Entry], str],
    colour: Callable[[Entry], str | None],
) -> BarBlock:
    """Bars of some entries: a row for each label, a panel for each instruction set; baselines first, controls last.

    Many controls of one kind are one row, and so are many directions of other checkpoints.
    Behind each bar of a real direction is a band for each such row at the same setting.
    """
    rows: dict[str, dict[str, list[Entry]]] = {}
    labels = row_labels(found, label, others=True)
    for entry in in_order_of_rows(found):
        rows.setdefault(labels[entry.key], {}).setdefault(entry.instructions, []).append(entry)
    bands: dict[object, list[RateBand]] = {}
    for name, cells in rows.items():
        for pool in cells.values():
            if len(pool) > 1 and pool[0].control:
                spread = Spread.of(pool)
                band = RateBand(100 * spread.low, 100 * spread.middle, 100 * spread.high, Tip(name, (f"{spread} refused",)))
                bands.setdefault((pool[0].instructions, edit_key(pool[0])), []).append(band)
    return BarBlock(
        title,
        tuple(BarRow(name, tuple(_bar(cells.get(each), colour, bands) for each in sets)) for name, cells in rows.items()),
    )


def in_order_of_rows(found: Sequence[Entry]) -> list[Entry]:
    """Baselines first, controls last."""
    return sorted(found, key=lambda entry: (entry.edited, entry.control))


def _bar(
    pool: Sequence[Entry] | None, colour: Callable[[Entry], str | None], bands: Mapping[object, Sequence[RateBand]]
) -> Bar | None:
    if pool is None:
        return None
    if len(pool) > 1:
        spread = Spread.of(pool)
        low, middle, high = (100 * rate for rate in (spread.low, spread.middle, spread.high))
        # Only the median as text, because the line of the bar shows the range, and the text of both would not fit.
        return Bar(middle, low, high, spread.pieces[0], pool_tip(pool), control=pool[0].control)
    entry = pool[0]
    low, high = entry.interval
    marks = [
        Mark(100 * rate, row.settings == SAME, _published_tip(row))
        for row in entry.published
        if (rate := rate_of(row)) is not None
    ]
    text = number_format.percent(entry.rate, entry.n)
    behind = () if entry.control or not entry.edited else tuple(bands.get((entry.instructions, edit_key(entry)), ()))
    ends, more = (100 * entry.rate, 100 * low, 100 * high), (tuple(marks), behind, cell_address(entry))
    return Bar(*ends, text, tip_of(entry), colour(entry), entry.control, *more)


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
    if entry.cell.crosses_formats:
        lines.append("read under another prompt format")
    if entry.likelihood is not None:
        lines.append(f"mean probability of a refusal {entry.likelihood}, {entry.likelihood.n} instructions")
    if entry.change is not None:
        tested = "" if entry.p_holm is None else f" (Holm p {number_format.p_value(entry.p_holm)})"
        lines.append(f"change {number_format.points(entry.change)} points{tested}")
    if entry.shares is not None:
        lines.append(f"{entry.shares.judge}: {entry.shares.words}")
    return Tip(entry.target, tuple(lines))


def pool_tip(pool: Sequence[Entry]) -> Tip:
    """The text that the figure shows for many controls of one kind, or many other directions, when a reader points at them."""
    entry = pool[0]
    what = f"{pool_label(pool, _variant)}{' controls' if entry.control else ''} {entry.done}" + (
        f", {entry.dose}" if entry.dose else ""
    )
    lines = [f"{entry.instructions} instructions", what, f"median and range: {Spread.of(pool)} refused"]
    if (shares := pool_shares(pool)) is not None:
        lines.append(f"{shares.judge}: {shares.words}")
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


def bands_in_words(blocks: Sequence[BarBlock]) -> str:
    """The meaning of rows of many controls and of the bands behind bars; empty if there are none."""
    bars = [bar for block in blocks for row in block.rows for bar in row.bars if bar is not None]
    if not any(bar.bands for bar in bars):
        return ""
    return (
        f" {MANY} or more controls of one kind are one bar: its length is their median, its line goes from the lowest to the "
        "highest rate. The same range is a pale band behind each bar at the same setting, with the median as a thin line."
    )


def others_in_words(shown: Sequence[Entry]) -> str:
    """The meaning of rows of many directions of other checkpoints; empty if there are none."""
    if not any(len(pool) > 1 and not pool[0].control for pool in folded(shown)):
        return ""
    return (
        f" {MANY_OTHERS} or more directions of other checkpoints are one bar: its length is their median, its line goes from the "
        "lowest to the highest rate. The figure of transfer has each of them."
    )


def rates_in_words(title: str, shown: Sequence[Entry]) -> str:
    """A text alternative with the numbers. Of many controls of one kind it gives the median and the range."""
    parts = []
    for pool in folded(shown):
        entry = pool[0]
        name = pool_label(pool, _variant) if len(pool) > 1 else entry.variant
        rate = str(Spread.of(pool)) if len(pool) > 1 else number_format.percent(entry.rate, entry.n)
        published = [f" (published {100 * given:.0f} %)" for row in entry.published if (given := rate_of(row)) is not None]
        where = f"{name} on {entry.target}, " if entry.edited else f"{entry.target}, "
        parts.append(f"{where}{entry.instructions}: {rate}{''.join(published)}")
    return f"{title}. {shortened(parts)}."


def _variant(entry: Entry) -> str:
    return entry.variant


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


def readable_rate_numbers(shown: Sequence[Entry]) -> "pandas.DataFrame":
    """The numbers of a figure of rates as the page shows them. Rows are folded as in the bars of the figure."""
    import pandas

    frame = pandas.DataFrame([_readable_numbers(pool) for pool in folded(shown)])
    empty = [] if any(entry.published for entry in shown) else ["published"]
    empty += [] if any(entry.likelihood is not None for entry in shown) else ["mean probability"]
    judge = next((entry.shares.judge for entry in shown if entry.shares is not None), None)
    return frame.drop(columns=[*empty, *(["answers"] if judge is None else [])]).rename(columns={"answers": f"answers ({judge})"})


def _readable_numbers(pool: Sequence[Entry]) -> dict[str, object]:
    entry, many = pool[0], len(pool) > 1
    published = [f"{100 * rate:.1f} %" for row in entry.published if (rate := rate_of(row)) is not None]
    return {
        "target": entry.target,
        "instructions": entry.instructions,
        "intervention": entry.intervention,
        "direction": pool_label(pool, _variant) if many else entry.variant,
        "layer": "" if entry.cell.layer is None else entry.cell.layer,
        "coefficient": entry.dose,
        "n": entry.n,
        "refusals": "" if many else entry.refusals,
        "rate": str(Spread.of(pool)) if many else f"{100 * entry.rate:.1f} %",
        "95 % interval": "" if many else number_format.interval(entry.interval),
        "mean probability": "" if many or entry.likelihood is None else str(entry.likelihood),
        "answers": "" if (shares := pool_shares(pool)) is None else shares.words,
        "published": ", ".join(published),
    }


def source_colour(palette: Mapping[str, str]) -> Callable[[Entry], str | None]:
    """The colour of a bar by the checkpoint that its direction came from."""
    return lambda entry: palette.get(entry.source or "")
