"""The figures of what was measured at every layer, drawn for paper: cosines, separation, norms, single instructions.

They show what their interactive twins show, with the same names, words and colours. A run that was not measured has none.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from demur.report.cell_view import Entry
from demur.report.figures import Drawing
from demur.report.layer_view import (
    SETS,
    Line,
    Row,
    arm_looks,
    arm_names,
    cosine_lines,
    instruction_rows,
    norm_shares,
    null_band,
    scattered,
)
from demur.report.style import DOUBLE, LIGHT, NEUTRAL, PALETTE, STYLE, settled

if TYPE_CHECKING:
    import pandas

_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), "-.")


def draw_layers(
    summary: Mapping[str, Any], found: Sequence[Entry], palette: Mapping[str, str], completions: "pandas.DataFrame"
) -> list[Drawing]:
    """All of them, in the order of the page; none where nothing was measured."""
    measured = summary.get("by_layer")
    if not measured:
        return []
    names = arm_names(summary)
    looks = [{"color": colour, "linestyle": dash} for colour, dash in arm_looks(measured, palette, _DASHES)]
    marked = list(summary["study"]["direction"]["layers"])
    made = [_cosines(cosine_lines(summary), summary, marked), _separation(measured, names, looks, marked)]
    made += [_norms(measured, names, looks, marked), _projections(instruction_rows(summary, found, completions))]
    return [one for one in made if one is not None]


def _figure(panels: int, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(DOUBLE, height), layout="constrained")
    return figure, figure.subplots(panels, 1, squeeze=False, sharex=True)[:, 0]


def _layers(axes: Any, marked: Sequence[int], unit: str, last: bool) -> None:
    for layer in marked:
        axes.axvline(layer, color=NEUTRAL, linewidth=0.7, linestyle=":")
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylabel(unit)
    if last:
        axes.set_xlabel("layer")


def _line(axes: Any, values: Sequence[float | None], look: Mapping[str, Any], name: str) -> None:
    # What is not defined leaves a gap.
    axes.plot(
        [float("nan") if value is None else value for value in values],
        linewidth=1.1,
        marker=".",
        markersize=3,
        label=name,
        **look,
    )


def _band(axes: Any, bounds: Sequence[Sequence[float] | None], colour: str, name: str | None = None) -> None:
    there = [(layer, pair) for layer, pair in enumerate(bounds) if pair is not None]
    layers, low, high = [layer for layer, _ in there], [pair[0] for _, pair in there], [pair[1] for _, pair in there]
    axes.fill_between(layers, low, high, color=colour, alpha=0.16, linewidth=0, label=name)


def _legend(figure: Figure, axes: Any, entries: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(3, max(1, entries)), frameon=False, fontsize=7)


def _table(names: Sequence[str], columns: Sequence[Sequence[Any]], count: int) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame({"layer": [str(layer) for layer in range(count)], **dict(zip(names, columns, strict=True))})


def _numbers(values: Sequence[float | None]) -> list[Any]:
    return ["" if value is None else float(value) for value in values]


def _intervals(bounds: Sequence[Sequence[float] | None]) -> list[str]:
    return ["" if pair is None else f"[{pair[0]:.3f}, {pair[1]:.3f}]" for pair in bounds]


def _cosines(lines: Sequence[Line], summary: Mapping[str, Any], marked: Sequence[int]) -> Drawing | None:
    if not lines:
        return None
    null, count = summary["by_layer"]["cosine_null95"], len(lines[0].values)
    with rc_context(STYLE):
        figure, (axes,) = _figure(1, 2.2 + 0.1 * len(lines))
        _band(axes, [[-null, null]] * count, NEUTRAL, "random directions")
        for index, line in enumerate(lines):
            look = {"color": PALETTE[index % 6], "linestyle": _DASHES[index // 6 % len(_DASHES)]}
            _line(axes, line.values, look, line.name)
        _layers(axes, marked, "cosine", last=True)
        _legend(figure, axes, len(lines) + 1)
        settled(figure)
    title = "Cosine between the checkpoints' directions, by layer"
    caption = (
        "1: the same way, 0: orthogonal. Grey: where 95 % of pairs of random directions of this width lie. "
        "Pairs of different checkpoints under the same prompt format, where there are such; the table has every pair."
    )
    there = len(cosine_lines(summary, most=None))
    if there > len(lines):
        caption += f" Drawn are the first {len(lines)} of {there}."
    every = cosine_lines(summary, every=True)
    data = _table([line.name for line in every], [_numbers(line.values) for line in every], count)
    spoken = "; ".join(f"{line.name}: {_ranges(line.values)}" for line in lines)
    return Drawing("cosines-by-layer", title, caption, f"{title}. {spoken}.", data, figure)


def _ranges(values: Sequence[float | None]) -> str:
    there = [(value, layer) for layer, value in enumerate(values) if value is not None]
    if not there:
        return "not defined"
    (low, at_low), (high, at_high) = min(there), max(there)
    return f"from {low:.2f} at layer {at_low} to {high:.2f} at layer {at_high}"


def _separation(
    measured: Mapping[str, Any], names: Sequence[str], looks: Sequence[Mapping[str, Any]], marked: Sequence[int]
) -> Drawing:
    with rc_context(STYLE):
        figure, (upper, lower) = _figure(2, 3.6)
        _band(upper, null_band(measured), NEUTRAL, "random directions")
        for arm, name, look in zip(measured["arms"], names, looks, strict=True):
            _band(upper, arm["auroc_ci95"], look["color"])
            _line(upper, arm["auroc"], look, name)
            _line(lower, arm["gap"], look, name)
        _layers(upper, marked, "AUROC", last=False)
        _layers(lower, marked, "gap (pooled SD)", last=True)
        _legend(figure, upper, len(names) + 1)
        settled(figure)
    title = "Held-out harmful against harmless instructions, by layer"
    caption = (
        "Above: the chance that a held-out harmful instruction lies further along the layer's own direction than a harmless one, "
        "with 95 % intervals. Below: the distance of the two means in pooled standard deviations. Grey: random directions"
    ) + (", the widest reach in any arm." if len(names) > 1 else ".")
    columns: list[tuple[str, list[Any]]] = []
    for arm, name in zip(measured["arms"], names, strict=True):
        columns += [(f"{name}: AUROC", _numbers(arm["auroc"])), (f"{name}: 95 %", _intervals(arm["auroc_ci95"]))]
        columns += [(f"{name}: random", _intervals(arm["null_auroc95"])), (f"{name}: gap", _numbers(arm["gap"]))]
    data = _table([name for name, _ in columns], [values for _, values in columns], len(measured["arms"][0]["auroc"]))
    spoken = "; ".join(f"AUROC of {name} {_ranges(arm['auroc'])}" for arm, name in zip(measured["arms"], names, strict=True))
    return Drawing("separation", title, caption, f"{title}. {spoken}.", data, figure)


def _norms(
    measured: Mapping[str, Any], names: Sequence[str], looks: Sequence[Mapping[str, Any]], marked: Sequence[int]
) -> Drawing:
    with rc_context(STYLE):
        figure, (upper, lower) = _figure(2, 3.4)
        for arm, name, look in zip(measured["arms"], names, looks, strict=True):
            _line(upper, [norm or None for norm in arm["raw_norm"]], look, name)
            _line(lower, [None if share is None else 100 * share for share in norm_shares(arm)], look, name)
        upper.set_yscale("log")
        upper.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # text is never read as mathematics
        lower.set_ylim(bottom=0)
        _layers(upper, marked, "norm of the direction", last=False)
        _layers(lower, marked, "share of the stream (%)", last=True)
        _legend(figure, upper, len(names))
        settled(figure)
    title = "How long the difference of means is, by layer"
    caption = (
        "Above: its norm, the raw norm that a coefficient counts. Below: as a share of the mean norm of the activations there."
    )
    columns: list[tuple[str, list[Any]]] = []
    for arm, name in zip(measured["arms"], names, strict=True):
        columns += [(f"{name}: norm", _numbers(arm["raw_norm"]))]
        columns += [(f"{name}: mean {side}", _numbers(arm["mean_norm"][side])) for side in ("harmful", "harmless")]
    data = _table([name for name, _ in columns], [values for _, values in columns], len(measured["arms"][0]["raw_norm"]))
    spoken = "; ".join(f"{name} {_ranges(arm['raw_norm'])}" for arm, name in zip(measured["arms"], names, strict=True))
    return Drawing("norms", title, caption, f"{title}. {spoken}.", data, figure)


def _projections(rows: Sequence[Row]) -> Drawing | None:
    if not rows:
        return None
    import pandas

    with rc_context(STYLE):
        figure, (axes,) = _figure(1, 0.7 + 0.75 * len(rows))
        named = set[str]()
        for index, row in enumerate(rows):
            for side, up in (("harmful", -0.22), ("harmless", 0.22)):
                points = [point for point in row.points if point.instructions == side and point.along is not None]
                looks = (
                    ("refused", "o", {"facecolors": SETS[side], "edgecolors": SETS[side]}),
                    ("not refused", "o", {"facecolors": "none", "edgecolors": SETS[side]}),
                    ("not answered yet", "x", {"color": SETS[side]}),
                )
                for verdict, marker, colours in looks:
                    chosen = [(place, point) for place, point in enumerate(points) if point.verdict == verdict]
                    if not chosen and verdict == "not answered yet":
                        continue
                    name = f"{side}, {verdict}"
                    axes.scatter(
                        [point.along for _, point in chosen],
                        [index + up + 0.3 * (scattered(place) - 0.5) for place, _ in chosen],
                        s=9,
                        linewidths=0.7,
                        marker=marker,
                        label=None if name in named else name,
                        **colours,
                    )
                    named.add(name)
        for at in (0, 1):
            axes.axvline(at, color=NEUTRAL, linewidth=0.7, linestyle=":", zorder=0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("along the direction: 0 the mean of harmless, 1 of harmful training instructions")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=7)
        settled(figure)
    title = "Single held-out instructions along each arm's own direction"
    caption = (
        "A point an instruction; filled where the checkpoint refuses it when left alone, a cross where it is not answered yet."
    )
    data = pandas.DataFrame(
        [
            {
                "arm": row.name,
                "instructions": point.instructions,
                "index": str(point.index),
                "along": point.along,
                "verdict": point.verdict,
            }
            for row in rows
            for point in row.points
            if point.along is not None
        ]
    )
    return Drawing("projections", title, caption, f"{title}. {_spoken(rows)}.", data, figure)


def _spoken(rows: Sequence[Row]) -> str:
    parts = []
    for row in rows:
        for side in ("harmful", "harmless"):
            values = sorted(point.along for point in row.points if point.instructions == side and point.along is not None)
            if values:
                parts.append(f"{row.name}, {side}: median {median(values):.2f}, from {values[0]:.2f} to {values[-1]:.2f}")
    return "; ".join(parts)
