"""Latents of sparse autoencoders: a figure of refusals with clamped latents, and tables of the latents and of the runs."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.diff.feature_results import ClampChange, ClampResult, FeatureResult, LatentResult
from demur.analysis.diff.latent_cosines import LatentCosine
from demur.core import number_format
from demur.report.figure_contents import Bar, BarBlock, BarRow, Bars, RateBand, Tip
from demur.report.figure_spec import FigureSpec, Sheet, TableSpec
from demur.report.sections.diff.what_changed import PART
from demur.report.sections.section import ReportView

_KINDS = {
    "spliced": "reconstruction in the place of the stream",
    "nearest": "nearest latents",
    "attributed": "attributed latents",
}
_TITLE = "Refusals with latents of sparse autoencoders clamped"


class FeatureTables:
    """The figure `features`, and the tables `features`, `feature-runs` and `feature-cosines`."""

    part: ClassVar[str] = PART

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """One figure of all arms that were run; none if none was."""
        import pandas

        results = [one for one in view.summary.diff_details.features if one.runs]
        if not results:
            return []
        caption = (
            "Mean exact probability of a refusal as it is, with the autoencoder's reconstruction in the place of the stream, and "
            "with chosen latents set to a value. Nearest: their decoder rows point most along the "
            "direction. Attributed: they carry most of what ablating the direction does to the log-odds of a refusal. Pale "
            "bands: from the least to the greatest of sets of as many random latents, about alike in frequency and decoder norm."
        )
        blocks = tuple(BarBlock(one.subject, tuple(_rows(one))) for one in results)
        said = "; ".join(f"{one.subject}, {_name(run)}: {100 * run.harmful.rate:.0f} %" for one in results for run in one.runs)
        frame = pandas.DataFrame([row for one in results for row in _run_numbers(one)])
        content = Bars(("refusals of harmful instructions (%)", "refusals of harmless ones (%)"), blocks)
        return [FigureSpec.of(Sheet("features", _TITLE, caption, f"{_TITLE}. {said}.", frame, content))]

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """The latents and the runs; and if several checkpoints were measured, how alike their latents are."""
        details = view.summary.diff_details
        if not details.features:
            return []
        found = [_latent_table(details.features)]
        if any(one.runs for one in details.features):
            found.append(_run_table(details.features))
        return [*found, *([_cosine_table(details.latent_cosines)] if details.latent_cosines else [])]


def _name(run: ClampResult) -> str:
    words = _KINDS.get(run.kind, run.kind)
    return words if run.value is None else f"{words} set to {run.value:g}"


def _rows(one: FeatureResult) -> list[BarRow]:
    rates, n = one.rates or (0.0, 0.0), one.n or (0, 0)
    rows = [BarRow("as it is", tuple(_bar("as it is", rate, count, None) for rate, count in zip(rates, n, strict=True)))]
    for run in one.runs:
        changes = zip((run.harmful, run.harmless), rates, n, strict=True)
        rows.append(
            BarRow(_name(run), tuple(_bar(_name(run), each.rate, count, _band(run, each, rate)) for each, rate, count in changes))
        )
    return rows


def _bar(label: str, rate: float, n: int, band: RateBand | None) -> Bar:
    value = 100 * rate
    tip = Tip(label, (f"{number_format.percent(rate, n)} on {n} instructions",))
    return Bar(value, value, value, f"{value:.0f} %", tip, bands=() if band is None else (band,))


def _band(run: ClampResult, change: ClampChange, rate: float) -> RateBand | None:
    if change.null is None:
        return None
    low, high = (100 * (rate + each) for each in change.null)
    text = f"they give {low:.1f} to {high:.1f} %"
    return RateBand(low, (low + high) / 2, high, Tip(f"{run.nulls} sets of random latents", (text,)))


def _latent_table(results: Sequence[FeatureResult]) -> TableSpec:
    import pandas

    data = [{"arm": one.subject, "file": one.file, **_latent_numbers(each)} for one in results for each in one.latents]
    readable = [
        {**({"Arm": one.subject} if len(results) > 1 else {}), **_readable(each)} for one in results for each in one.latents
    ]
    places = "; ".join(
        f"{one.subject}: {one.total} latents of {one.file} at {one.place}, direction of layer {one.direction_layer}, 95 % of "
        f"random directions below {one.null95:.2f} and of shuffled labels below {one.shuffled95:.2f}, {_unexplained(one)}"
        for one in results
    )
    caption = (
        "Latents whose decoder rows point most along the direction or against it, and those with the strongest attribution. p: "
        "the share of random directions, and of directions for shuffled labels, with an absolute cosine as high with any latent. "
        "Frequency and mean activation: at token positions of harmful / harmless instructions, without the first. Attribution: "
        "the change of the log-odds that the first token begins a refusal, in nats, by way of this latent if the direction is "
        f"ablated. {places}."
    )
    numeric = frozenset({"Latent", "Cosine", "p, random", "p, shuffled", "Norm", "Frequency", "Mean", "Attribution"})
    return TableSpec("features", caption, pandas.DataFrame(data), pandas.DataFrame(readable).fillna(""), numeric)


def _unexplained(one: FeatureResult) -> str:
    said = [f"not clamped, because {one.off_stream}"] if one.off_stream else []
    if one.unexplained is not None:
        harmful, harmless = (f"{100 * each:.0f} %" for each in one.unexplained)
        said.append(f"variance not reconstructed {harmful} on harmful and {harmless} on harmless instructions")
    return ", ".join(said)


def _latent_numbers(each: LatentResult) -> dict[str, object]:
    row: dict[str, object] = {"latent": each.latent, "cosine": each.cosine, "norm": each.norm}
    row |= {"p random": each.p, "p shuffled": each.shuffled_p}
    for name, values in (("frequency", each.frequency), ("mean", each.mean)):
        row |= {f"{name} {label}": None if values is None else values[at] for at, label in enumerate(("harmful", "harmless"))}
    return {**row, "attribution": each.attribution, "chosen": " ".join(each.chosen)}


def _readable(each: LatentResult) -> dict[str, str]:
    frequency = "" if each.frequency is None else " / ".join(f"{100 * one:.2g} %" for one in each.frequency)
    return {
        "Latent": str(each.latent),
        "Cosine": number_format.hundredths(each.cosine),
        "p, random": number_format.p_value(each.p),
        "p, shuffled": number_format.p_value(each.shuffled_p),
        "Norm": number_format.hundredths(each.norm),
        "Frequency": frequency,
        "Mean": "" if each.mean is None else " / ".join(f"{one:.2g}" for one in each.mean),
        "Attribution": number_format.hundredths(each.attribution),
        "Clamped as": ", ".join(each.chosen),
    }


def _run_numbers(one: FeatureResult) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for run in one.runs:
        row: dict[str, object] = {"arm": one.subject, "kind": run.kind, "value": run.value, "nulls": run.nulls}
        for label, change in (("harmful", run.harmful), ("harmless", run.harmless)):
            low, high = change.ci95 or (None, None)
            least, most = change.null or (None, None)
            row |= {f"rate {label}": change.rate, f"change {label}": change.change, f"p {label}": change.p}
            row |= {f"ci95 low {label}": low, f"ci95 high {label}": high, f"null low {label}": least, f"null high {label}": most}
        for name, values in (("frequency", run.frequency), ("norm", run.norm)):
            own, null = values or (None, None)
            row |= {name: own, f"{name} of nulls": null}
        rows.append({**row, "broken more": run.broken_more})
    return rows


def _run_table(results: Sequence[FeatureResult]) -> TableSpec:
    import pandas

    readable = []
    for one in results:
        for run in one.runs:
            row = {**({"Arm": one.subject} if len(results) > 1 else {}), "Run": _name(run)}
            for label, change in (("harmful", run.harmful), ("harmless", run.harmless)):
                row[f"Change, {label}"] = _change(change)
                row[f"Random, {label}"] = "" if change.null is None else number_format.interval(change.null)
                row[f"p, {label}"] = "" if change.p is None else number_format.p_value(change.p)
            row["Broken"] = "" if run.broken_more is None else number_format.points(run.broken_more, 0)
            readable.append(row)
    caption = (
        "The change of the mean exact probability of a refusal in points, with 95 % intervals over instructions. Random: the "
        "least and the greatest change with random latents of about the same frequency and decoder norm. p: random sets with an "
        "absolute change as large. Broken: by how many points more of the completions only repeat themselves or mean nothing."
    )
    data = pandas.DataFrame([row for one in results for row in _run_numbers(one)])
    numeric = frozenset(name for name in readable[0] if name not in ("Arm", "Run"))
    return TableSpec("feature-runs", caption, data, pandas.DataFrame(readable), numeric)


def _change(change: ClampChange) -> str:
    bounds = "" if change.ci95 is None else f" {number_format.interval(change.ci95, 0)}"
    return f"{number_format.points(change.change, 0)}{bounds}"


def _cosine_table(found: Sequence[LatentCosine]) -> TableSpec:
    import pandas

    readable = [
        {
            "Checkpoint": one.second,
            "Clamped as": one.chosen,
            "Latent": str(one.latent),
            "Other checkpoint": one.first,
            "Nearest latent": str(one.nearest),
            "Cosine": number_format.hundredths(one.cosine),
        }
        for one in found
    ]
    caption = (
        "For each clamped latent of a later checkpoint, the clamped latent of an earlier one whose decoder row is most like its "
        "own. Both are of different autoencoders."
    )
    data = pandas.DataFrame([one.model_dump() for one in found])
    numeric = frozenset({"Latent", "Nearest latent", "Cosine"})
    return TableSpec("feature-cosines", caption, data, pandas.DataFrame(readable), numeric, on_page=False)
