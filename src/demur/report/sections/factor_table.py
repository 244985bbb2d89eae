"""What changing the weights does and what changing the prompt format does, where checkpoints share several formats."""

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

from demur.analysis.arm_pairs import arm_pairs
from demur.analysis.factor_effect import FactorEffect
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.cosine_nulls import DIFFER
from demur.report.sections.layer_view import study_layers
from demur.report.sections.section import ReportView


class FactorTable:
    """The tables `weights-and-prompt` and `cosines-by-factor`."""

    part: ClassVar[str] = "rates"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """The effects on refusals under the judge of the figures, and mean cosines; none if formats are not shared."""
        effects = [one for one in view.summary.factors if one.judge == view.judge]
        return [table for table in (_effect_table(effects), _cosine_table(view.summary)) if table is not None]


def _effect_table(effects: Sequence[FactorEffect]) -> TableSpec | None:
    import pandas

    if not effects:
        return None
    data = [
        {
            "factor": one.factor,
            "from": _ends(one)[0],
            "to": _ends(one)[1],
            "instructions": one.instructions,
            "n": one.n,
            "effect": one.effect,
            "ci95 low": one.ci95[0],
            "ci95 high": one.ci95[1],
        }
        for one in effects
    ]
    readable = [
        {
            "Factor": one.factor,
            "Change": " to ".join(_ends(one)),
            "Set": one.instructions,
            "Refusals": number_format.points(one.effect, number_format.decimals(one.n)),
            "95 %": number_format.interval(one.ci95, number_format.decimals(one.n)),
        }
        for one in effects
    ]
    caption = (
        "Change of the refusal rate without an edit, in points. Weights: the last checkpoint against the first, mean over both "
        "formats. Prompt: one format against the other, mean over both checkpoints. Interaction: the change of the weights under "
        "the second format minus that under the first. Every difference is within one instruction."
    )
    numbers = frozenset({"Refusals", "95 %"})
    return TableSpec("weights-and-prompt", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _ends(effect: FactorEffect) -> tuple[str, str]:
    if effect.factor == "interaction":
        return " and ".join(effect.checkpoints), " and ".join(effect.prompts)
    return effect.checkpoints if effect.factor == "weights" else effect.prompts


def _cosine_table(summary: Summary) -> TableSpec | None:
    """Mean cosines of pairs that differ in the weights, in the prompt format, or in both."""
    import pandas

    pairs, rows, data = arm_pairs(summary.measurements), [], []
    if len({pair.differ_in for pair in pairs}) < 2:
        return None
    for layer in study_layers(summary):
        for kind, words in DIFFER.items():
            mine = [pair for pair in pairs if pair.differ_in == kind]
            values = [value for pair in mine if (value := pair.cosine[layer]) is not None]
            nulls = [value for pair in mine if (value := pair.null_mean[layer]) is not None]
            if values and nulls:
                data.append(
                    {
                        "differ in": words,
                        "layer": layer,
                        "pairs": len(values),
                        "cosine": fmean(values),
                        "lowest": min(values),
                        "highest": max(values),
                        "null": fmean(nulls),
                    }
                )
                numbers = (fmean(values), min(values), max(values), fmean(nulls))
                shown = dict(
                    zip(("Cosine", "Lowest", "Highest", "Shuffled labels"), (f"{one:.2f}" for one in numbers), strict=True)
                )
                rows.append({"Differ in": words, "Layer": str(layer), "Pairs": str(len(values)), **shown})
    caption = (
        "Mean cosine between the directions of two arms, by what the arms do not share. Shuffled labels: the mean cosine of the "
        "same pairs for shuffled labels."
    )
    numeric = frozenset({"Layer", "Pairs", "Cosine", "Lowest", "Highest", "Shuffled labels"})
    return TableSpec("cosines-by-factor", caption, pandas.DataFrame(data), pandas.DataFrame(rows), numeric) if rows else None
