"""Several ways to find a direction, and several directions together, side by side, with refusals, text and null directions."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from demur.analysis.cell import Claim, Null
from demur.analysis.doses.coherence_gate import Coherence
from demur.analysis.manifest import DirectionFacts
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.report.cell_view import Entry
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView

_CAPTION = (
    "Every edit with the directions of every estimator, and with several directions together. Refused: the refusal rate. "
    "Probability: the mean probability of a refusal. Null place: how many null directions at the same setting and dose do at "
    "least as much, of the kind against which the edit looks weakest. Loss and Harmless: as in the table of coherence, how much "
    "higher the loss of the text is, and the divergence of the next token after harmless prompts, in nats. Cosine: with the "
    "direction of the study's first estimator at the same place."
)


class EstimatorComparison:
    """The table `estimators`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures; the edits have bars among the others."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """One row for each edited cell, null directions left out; none for a run with one estimator and single directions."""
        import pandas

        found = [entry for entry in view.entries if entry.edited and not entry.control and entry.cell.direction is not None]
        if not any(entry.cell.estimator or entry.cell.dimension > 1 for entry in found):
            return []
        found.sort(key=lambda one: (one.target, one.instructions))
        rows = _Rows(view.summary)
        numbers = frozenset({"Refused", "Probability", "Change", "Loss", "Harmless", "Cosine", "Null place"})
        return [
            TableSpec(
                "estimators",
                _CAPTION,
                pandas.DataFrame([rows.numbers(entry) for entry in found]),
                pandas.DataFrame([rows.readable(entry) for entry in found]),
                numbers,
            )
        ]


class _Rows:
    """The rows of the table, from what a summary says of each cell."""

    def __init__(self, summary: Summary) -> None:
        self._texts: Mapping[str, Coherence] = {one.key: one for one in summary.doses.coherence}
        effects = (claim for claim in summary.claims if claim.about == "effect")
        self._claims: Mapping[str, Claim] = {claim.id.removeprefix("effect: "): claim for claim in effects}
        self._cosines = _with_first(summary)

    def numbers(self, entry: Entry) -> dict[str, object]:
        """One row with all digits."""
        cell, text, null = entry.cell, self._texts.get(entry.key), self._null(entry)
        return {
            "key": cell.key,
            "target": cell.target,
            "prompt": cell.prompt,
            "instructions": cell.instructions,
            "intervention": cell.intervention,
            "direction": cell.direction,
            "estimator": cell.estimator,
            "directions": cell.dimension,
            "layer": cell.layer,
            "coefficient": cell.coefficient,
            "n": cell.n,
            "rate": cell.rate,
            "probability": None if entry.likelihood is None else entry.likelihood.mean,
            "change": entry.change,
            "verdict": self._claims[cell.key].verdict if cell.key in self._claims else None,
            "null": None if null is None else null.kind,
            "null n": None if null is None else null.n,
            "null place": None if null is None else null.place,
            "null p": None if null is None else null.p,
            "loss change": None if text is None else text.loss_change,
            "shapeless change": None if text is None else text.shapeless_change,
            "divergence": None if text is None else text.divergence,
            "coherent": None if text is None else text.coherent,
            "cosine": self._cosines.get(cell.direction or ""),
        }

    def readable(self, entry: Entry) -> dict[str, str]:
        """One row with labels and rounded numbers."""
        text, null, cosine = self._texts.get(entry.key), self._null(entry), self._cosines.get(entry.cell.direction or "")
        return {
            "Target": entry.target,
            "Instructions": entry.instructions,
            "Edit": entry.done,
            "Direction": entry.variant,
            "Refused": number_format.percent(entry.rate, entry.n),
            "Probability": "" if entry.likelihood is None else str(entry.likelihood),
            "Change": "" if entry.change is None else number_format.points(entry.change, number_format.decimals(entry.n)),
            "Null place": "" if null is None else f"{null.place} of {null.n} {null.kind}",
            "Loss": "" if text is None or text.loss_change is None else _signed(text.loss_change),
            "Harmless": "" if text is None or text.divergence is None else f"{text.divergence:.2f}",
            "Cosine": "" if cosine is None else _signed(cosine),
        }

    def _null(self, entry: Entry) -> Null | None:
        claim = self._claims.get(entry.key)
        return None if claim is None else claim.null


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", number_format.MINUS)


def _with_first(summary: Summary) -> dict[str, float]:
    """The cosine of each direction with that of the first estimator at the same place, by name."""
    own = [one for one in summary.directions if not one.control and one.resample_of is None]
    first = {_place(one): one.name for one in own if not one.estimator}
    names, matrix = summary.cosines.names, summary.cosines.matrix
    rows = {name: dict(zip(names, row, strict=True)) for name, row in zip(names, matrix, strict=True)}
    pairs = ((one.name, first.get(_place(one))) for one in own)
    return {name: rows[name][other] for name, other in pairs if other is not None and name in rows and other in rows[name]}


def _place(one: DirectionFacts) -> tuple[object, ...]:
    return one.source, one.prompt, one.layer, one.site, one.position, one.pairs_seed
