"""Whether the completions of each edited cell are still text, where that was measured."""

from collections.abc import Sequence
from statistics import median
from typing import ClassVar

from demur.analysis.doses.coherence_gate import MOST_LOSS, MOST_SHAPELESS, Coherence
from demur.core import number_format
from demur.report.cell_view import Entry
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.control_pools import folded, pool_label
from demur.report.sections.section import ReportView


class CoherenceTable:
    """The table `coherence`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures; `doses` draws the change of the loss below the rates."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One row for each edited cell, or for many controls of one kind; no table for a run that did not measure it."""
        import pandas

        texts = {one.key: one for one in view.summary.doses.coherence}
        found = [entry for entry in view.entries if entry.key in texts]
        if not found:
            return []
        data = pandas.DataFrame([_numbers(texts[entry.key]) for entry in found])
        readable = pandas.DataFrame([_readable(pool, [texts[entry.key] for entry in pool]) for pool in folded(found)])
        caption = (
            f"Is it still text? Loss: how much higher it is, in nats a token, under {_references(found, texts)} without an edit, "
            "than that of unedited answers to the same instructions, refusals left out. Shapeless: the change, in points, of the "
            "share of completions that only repeat themselves or the instruction. Harmless: the divergence of the next token "
            f"after harmless prompts, in nats. Text is broken if the loss is up by {MOST_LOSS:g} or the share by "
            f"{100 * MOST_SHAPELESS:.0f} points."
        )
        return [TableSpec("coherence", caption, data, readable, frozenset({"Loss", "Shapeless", "Harmless", "n"}))]


def _references(found: Sequence[Entry], texts: dict[str, Coherence]) -> str:
    return " and ".join(dict.fromkeys(texts[entry.key].reference for entry in found))


def _numbers(text: Coherence) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, value in text.model_dump().items():
        if name.endswith("ci95"):
            row |= {f"{name} low": None if value is None else value[0], f"{name} high": None if value is None else value[1]}
        else:
            row[name] = value
    return row


def _readable(pool: Sequence[Entry], texts: Sequence[Coherence]) -> dict[str, str]:
    entry, text = pool[0], texts[0]
    row = {
        "Target": entry.target,
        "Instructions": entry.instructions,
        "Edit": entry.done,
        "Direction": entry.variant if len(pool) == 1 else pool_label(pool, lambda one: one.variant),
        "n": str(text.pairs),
        "Loss": _signed([one.loss_change for one in texts]),
        "Shapeless": number_format.points(_middle([one.shapeless_change for one in texts]), 0),
        "Harmless": _size([one.divergence for one in texts]),
    }
    if len(pool) > 1:
        fails = sum(one.coherent is False for one in texts)
        return {**row, "Text": f"{fails} of {len(texts)} broken"}
    if text.loss_change is not None and text.loss_ci95 is not None:
        low, high = (f"{bound:+.2f}".replace("-", number_format.MINUS) for bound in text.loss_ci95)
        row["Loss"] += f" [{low}, {high}]"
    return {**row, "Text": {True: "text", False: "broken", None: "loss not known"}[text.coherent]}


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _signed(values: Sequence[float | None]) -> str:
    middle = _middle(values)
    return "" if middle is None else f"{middle:+.2f}".replace("-", number_format.MINUS)


def _size(values: Sequence[float | None]) -> str:
    middle = _middle(values)
    return "" if middle is None else f"{middle:.2f}"
