"""Harmfulness and refusal: what directions at two tokens separate, where instruction sets lie, and the question of harm."""

from collections.abc import Sequence
from typing import ClassVar

from demur.analysis.harm.harm_results import Area, HarmResult
from demur.core import number_format
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.section import ReportView

_TOKEN = {"instruction": "instruction's last token", "prompt": "prompt's last token"}


class HarmTables:
    """The tables `harmfulness`, `harm-by-set` and `harm-question`."""

    part: ClassVar[str] = "where"

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:  # noqa: ARG002
        """No figures."""
        return []

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """Three tables; none for a run that did not measure harmfulness."""
        results = view.summary.harmfulness
        return [_separations(results), _sets(results), _question(results)] if results else []


def _separations(results: Sequence[HarmResult]) -> TableSpec:
    import pandas

    data, readable = [], []
    for one in results:
        for each in one.separations:
            for layer, cosine in enumerate(one.cosine):
                row = {"arm": one.arm, "token": each.token, "layer": layer, "cosine of both": cosine, "split": one.split}
                row |= {**_numbers("harm", each.harm[layer]), **_numbers("refusal", each.refusal[layer])}
                data.append({**row, "refused": one.refused, "answered": one.answered})
            readable.append(
                {
                    "Arm": one.arm,
                    "Direction at": _TOKEN[each.token],
                    "Layer": str(one.layer),
                    "Harmful or harmless": _area(each.harm[one.layer]),
                    "Refused or answered": _area(each.refusal[one.layer]),
                    "n": f"{one.refused} and {one.answered}" + (" (by probability)" if one.split == "probability" else ""),
                    "Cosine": number_format.hundredths(one.cosine[one.layer]),
                }
            )
    caption = (
        "What the direction at each token separates: AUROC with its 95 % interval on held-out instructions, for harmful against "
        "harmless ones, and among harmful ones for those that this checkpoint refuses against those that it answers. If almost "
        "all or none are refused, the exact probability of a refusal above its median against the rest, where it was measured. "
        "Cosine: between the two directions. The CSV file has every layer."
    )
    numbers = frozenset({"Layer", "Harmful or harmless", "Refused or answered", "n", "Cosine"})
    return TableSpec("harmfulness", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _sets(results: Sequence[HarmResult]) -> TableSpec:
    import pandas

    data, readable = [], []
    for one in results:
        for each in one.sets:
            row: dict[str, object] = {"arm": one.arm, "instructions": each.instructions, "layer": one.layer, "n": each.n}
            shown = {"Arm": one.arm, "Instructions": each.instructions, "n": str(each.n)}
            shown["Refused"] = "" if each.refused is None else number_format.percent(each.refused, each.n)
            for token, place in each.place.items():
                area = each.against_harmless[token]
                row |= {f"{token} place": place, **_numbers(f"{token} against harmless", area)}
                shown |= {f"Place ({token})": number_format.hundredths(place), f"AUROC ({token})": _area(area)}
            data.append({**row, "refused": each.refused})
            readable.append(shown)
    caption = (
        "Where each instruction set lies along the direction at the last token of the instruction and of the prompt: 0 is the "
        "harmless training mean and 1 the harmful one. AUROC: this set against the harmless one."
    )
    numbers = frozenset(name for row in readable for name in row if name not in ("Arm", "Instructions"))
    return TableSpec("harm-by-set", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _question(results: Sequence[HarmResult]) -> TableSpec:
    import pandas

    data, readable = [], []
    for one in results:
        for name in dict.fromkeys(answer.instructions for answer in one.answers):
            mine = [answer for answer in one.answers if answer.instructions == name]
            data += [{"arm": one.arm, **answer.model_dump(exclude={"ci95"}), **_bounds(answer.ci95)} for answer in mine]
            words = {"none": "No edit", "ablate": "Ablated", "add": "Added"}
            shown = {"Arm": one.arm, "Instructions": name, "n": str(mine[0].n)}
            for answer in mine:
                action, _, token = answer.edit.partition(" ")
                shown[words[action] + (f", {token}" if token else "")] = number_format.percent(answer.yes, answer.n)
            readable.append({**shown, "Either answer": number_format.percent(mine[0].mass, mine[0].n)})
    caption = (
        "Asked after the instruction whether it could cause harm (Zhao et al. 2025), how likely the checkpoint is to answer "
        '"Certainly" rather than "No": without an edit, and with the direction at the last token of the instruction or of the '
        "prompt ablated from, or added to, the tokens before the question. Either answer: the probability of both together "
        "without an edit; where it is small, the checkpoint hardly answers the question."
    )
    numbers = frozenset(name for row in readable for name in row if name not in ("Arm", "Instructions"))
    return TableSpec("harm-question", caption, pandas.DataFrame(data), pandas.DataFrame(readable), numbers)


def _numbers(name: str, area: Area | None) -> dict[str, object]:
    if area is None:
        return {f"{name} auroc": None, f"{name} ci95 low": None, f"{name} ci95 high": None}
    return {f"{name} auroc": area.auroc, f"{name} ci95 low": area.ci95[0], f"{name} ci95 high": area.ci95[1]}


def _bounds(interval: tuple[float, float] | None) -> dict[str, object]:
    low, high = interval or (None, None)
    return {"ci95 low": low, "ci95 high": high}


def _area(area: Area | None) -> str:
    return "" if area is None else f"{area.auroc:.2f} [{area.ci95[0]:.2f}, {area.ci95[1]:.2f}]"
