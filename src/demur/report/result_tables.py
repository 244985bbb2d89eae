"""The tables of a run as data frames.

Most have two forms: one with all digits for the CSV files, and one with labels and rounded numbers for LaTeX and the page.
"""

import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from demur.analysis.manifest import DirectionFacts
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.report.cell_labels import BASELINE, direction_labels
from demur.report.cell_view import Entry, entries
from demur.report.sections.control_pools import MANY, Spread, folded, kind_of, pool_label
from demur.report.sections.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas

_COUNTED = {"Refused", "No verdict", "Rate", "95 % interval", "Probability", "Published", "Measured"}
_RATES = {*_COUNTED, "Change", "Difference", "p", "Holm p"}
NUMERIC = frozenset({*_RATES, "Layer", "Raw norm", "Mean residual norm", "Zero at"})
"""Readable columns that are aligned to the right."""


def result_table(summary: Summary) -> "pandas.DataFrame":
    """One row for each cell and judge, in reading order. Rates are fractions, `change` is in percentage points."""
    return result_frame(entries(summary))


def result_frame(found: Sequence[Entry]) -> "pandas.DataFrame":
    """The same table for the given entries."""
    import pandas

    measured = any(entry.likelihood is not None for entry in found)
    rows = [
        {
            **identity(entry),
            "refusals": entry.refusals,
            "rate": entry.rate,
            "ci_low": entry.interval[0],
            "ci_high": entry.interval[1],
            "change": None if entry.change is None else 100 * entry.change,
            "p_value": entry.p_value,
            "p_holm": entry.p_holm,
            **(_likelihood(entry) if measured else {}),
        }
        for entry in found
    ]
    frame = pandas.DataFrame(rows)
    return frame.astype({"layer": "Int64", **dict.fromkeys(("coefficient", "change", "p_value", "p_holm"), "float64")})


def _likelihood(entry: Entry) -> dict[str, float | int | None]:
    """The columns of the mean probability of a refusal."""
    known = entry.likelihood
    low, high = (None, None) if known is None or known.interval is None else known.interval
    mean, n = (None, None) if known is None else (known.mean, known.n)
    return {"probability": mean, "probability_low": low, "probability_high": high, "probability_n": n}


def identity(entry: Entry) -> dict[str, object]:
    """The columns of a CSV file that name the cell and the judge of a row, and the number of completions."""
    return {
        "target": entry.cell.target,
        "prompt": entry.cell.prompt,
        "instructions": entry.instructions,
        "intervention": entry.intervention,
        "source": entry.source,
        "direction": entry.cell.direction,
        "moved across": entry.moved,
        "control": entry.control,
        "layer": entry.cell.layer,
        "layers": "+".join(map(str, entry.cell.layers or ())),
        "sites": "+".join(entry.cell.sites or ()),
        "positions": entry.cell.positions,
        "settings": json.dumps(entry.cell.settings, sort_keys=True) if entry.cell.settings else None,
        "coefficient": entry.cell.coefficient,
        "unit": entry.cell.unit,
        "judge": entry.judge,
        "n": entry.n,
    }


def readable_results(found: Sequence[Entry]) -> "pandas.DataFrame":
    """The readable table of entries. Many controls of one kind are one row, with the median and the range of their rates.

    Prompt and judge are left out if there is only one, and failures of judges if there are none. What directions were moved
    across is left out if none was moved to another prompt format.
    """
    import pandas

    frame = pandas.DataFrame([_readable(pool) for pool in folded(found)])
    same = [name for name in ("Prompt", "Judge") if frame[name].nunique() == 1]
    same += [] if any(entry.cell.crosses_formats for entry in found) else ["Moved across"]
    empty = [] if any(entry.cell.failures for entry in found) else ["No verdict"]
    empty += [] if any(entry.likelihood is not None for entry in found) else ["Probability"]
    return frame.drop(columns=[*same, *empty])


def _readable(pool: Sequence[Entry]) -> dict[str, str]:
    entry = pool[0]
    row = {
        "Target": entry.cell.target,
        "Prompt": entry.cell.prompt,
        "Instructions": entry.instructions,
        "Intervention": BASELINE if not entry.edited else entry.intervention,
        "Direction from": "" if not entry.edited else entry.direction,
        "Moved across": entry.moved,
        "Layer": number_format.number(entry.cell.layer),
        "Coefficient": entry.dose.replace("-", number_format.MINUS, 1),
        "Judge": entry.judge,
        "Refused": f"{entry.refusals}/{entry.n}",
        "No verdict": str(sum(one.cell.failures for one in pool)),
        "Rate": f"{100 * entry.rate:.1f} %",
        "95 % interval": number_format.interval(entry.interval),
        "Probability": "" if entry.likelihood is None else str(entry.likelihood),
        "Change": number_format.points(entry.change),
        "p": number_format.p_value(entry.p_value),
        "Holm p": number_format.p_value(entry.p_holm),
    }
    if len(pool) == 1:
        return row
    changes = [one.change for one in pool if one.change is not None]
    return row | {
        "Direction from": pool_label(pool, lambda one: one.direction),
        "Refused": "",
        "Rate": str(Spread.of(pool)),
        "95 % interval": "",
        "Probability": "",
        "Change": number_format.points(median(changes)) if changes else "",
        "p": "",
        "Holm p": "",
    }


def direction_table(summary: Summary) -> "pandas.DataFrame":
    """One row for each direction: where it was read, its norm, the mean norm of the stream there, and where zero lies.

    `zero_at` is the place of zero along the direction in its own arm: 0 is the arm's harmless mean, 1 its harmful mean.
    """
    import pandas

    names = [
        "name",
        "source",
        "prompt",
        "control",
        "layer",
        "position",
        "site",
        "raw_norm",
        "mean_residual_norm",
        "stands_beside",
        "cosine",
        "zero_at",
        "fingerprint",
        "file",
    ]
    rows = [
        {name: _own_zero(each) if name == "zero_at" else getattr(each, name) for name in names} for each in summary.directions
    ]
    return pandas.DataFrame(rows, columns=names)


def _own_zero(direction: DirectionFacts) -> float | None:
    return direction.zero_at.get(f"{direction.source}/{direction.prompt}")


def readable_directions(summary: Summary) -> "pandas.DataFrame":
    """The readable table of directions. Many controls of one kind at one layer are one row.

    Of controls it says what they are a null for, and their cosine with the direction that they stand beside.
    """
    import pandas

    labels = direction_labels(summary)
    groups: dict[object, list[DirectionFacts]] = {}
    for each in summary.directions:
        groups.setdefault((kind_of(each), each.layer) if each.control else each.name, []).append(each)
    parts = [part for group in groups.values() for part in ([group] if len(group) >= MANY else [[each] for each in group])]
    rows = [_readable_direction(part, labels) for part in parts]
    if not any(each.control for each in summary.directions):
        rows = [{name: text for name, text in row.items() if name not in _OF_CONTROLS} for row in rows]
    return pandas.DataFrame(rows)


_OF_CONTROLS = ("Null for", "Cosine with its direction")


def _readable_direction(part: Sequence[DirectionFacts], labels: Mapping[str, str]) -> dict[str, str]:
    each, many = part[0], len(part) > 1
    norms = [one.raw_norm for one in part if one.raw_norm is not None]
    reach = list(dict.fromkeys(map(number_format.number, (min(norms), max(norms))))) if norms else []
    return {
        "Direction": f"{len(part)} {kind_of(each)}" if many else labels[each.name],
        "From": "control" if each.control else each.method or "difference of means",
        "Prompt": ", ".join(dict.fromkeys(str(one.prompt or "") for one in part)),
        "Layer": number_format.number(each.layer),
        "Position": number_format.number(each.position),
        "Site": str(each.site or ""),
        "Raw norm": " to ".join(reach),
        "Mean residual norm": "" if many else number_format.number(each.mean_residual_norm),
        "Zero at": number_format.number(_own_zero(each)),
        "Fingerprint": "" if many else str(each.fingerprint or ""),
        _OF_CONTROLS[0]: each.null_of,
        _OF_CONTROLS[1]: _cosine_text([one.cosine for one in part if one.cosine is not None]),
    }


def _cosine_text(cosines: Sequence[float]) -> str:
    """One cosine, or the median and the range of several; empty for none, as in runs of earlier versions."""
    middle, low, high = (f"{pick(cosines):.2f}" if cosines else "" for pick in (median, min, max))
    text = middle if low == high else f"{middle} ({low} to {high})"
    return text.replace("-", number_format.MINUS)


def matrix_table(matrix: Matrix) -> "pandas.DataFrame":
    """A transfer matrix: one row for each source, one column for each target, rates as fractions."""
    import pandas

    cells = [[e.rate if (e := matrix.cells.get((row, column))) else None for column in matrix.columns] for row in matrix.rows]
    frame = pandas.DataFrame(cells, columns=list(matrix.columns), dtype="float64")
    frame.insert(0, "direction from", list(matrix.rows), allow_duplicates=True)
    return frame


def readable_matrix(matrix: Matrix) -> "pandas.DataFrame":
    """The readable table of a transfer matrix: rates in per cent and intervals, of many controls the median and the range."""
    import pandas

    pools = matrix.pools()

    def text(pool: Sequence[Entry] | None) -> str:
        if pool is None:
            return number_format.DASH
        entry = pool[0]
        return str(Spread.of(pool)) if len(pool) > 1 else number_format.estimate(entry.rate, entry.interval, entry.n)

    rows = [
        (row, *(text(pools.get((row, column))) for column in matrix.columns)) for row in dict.fromkeys(matrix.labels.values())
    ]
    return pandas.DataFrame(rows, columns=["Direction from", *matrix.columns])
