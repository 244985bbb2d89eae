"""Chooses a place and doses from measured effects. Pure arithmetic: `effect_selection` measures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from demur.analysis.selection_record import SelectedPlace, TriedDose
from demur.core.errors import WorkError
from demur.measurements.selection.candidates import Place
from demur.measurements.selection.effect import PlaceEffect
from demur.measurements.selection.trial_outcomes import Outcome
from demur.study.selected_settings import deciding_label, doses_of
from demur.study.spec import Label, Study
from demur.study.spec_fields import SELECT

BROKEN_MORE = 0.1
"""The largest allowed rise of the share of broken completions."""

LEAST_CHANGE = 0.1
"""A place must change the refusal rate by at least this much."""

ENOUGH = 0.8
"""The smallest dose is chosen that reaches this share of the largest change without damage."""

FLAT = 0.05
"""Places whose changes of the refusal rate differ by less do the same, as far as validation instructions can tell."""

EARLY = 0.15
"""A layer in this first share of the layers is called very early."""


@dataclass(frozen=True)
class Tried:
    """The completions of one arm: without an edit by kind of instructions, and by (place, intervention, coefficient)."""

    before: Mapping[Label, Outcome]
    edited: Mapping[tuple[Place, int, float], Outcome]


def joint_effects(effects: Sequence[Mapping[Place, PlaceEffect]], kl_most: float) -> list[SelectedPlace]:
    """Places that all arms have, best first: the mean of their shares, and the largest damage.

    Args:
        effects: the effects of each deciding arm.
        kl_most: the largest allowed change of next tokens after harmless instructions, in nats.

    Raises:
        WorkError: if the arms have no place in common.
    """
    found = []
    for place in (place for place in effects[0] if all(place in arm for arm in effects)):
        each = [arm[place] for arm in effects]
        kl, why = max(one.kl for one in each), ""
        if kl > kl_most:
            why = f"the edit changes next tokens after harmless instructions by {kl:.2f} nats, more than {kl_most:g}"
        share, n = sum(one.share for one in each) / len(each), min(one.n for one in each)
        found.append(SelectedPlace(position=place[0], layer=place[1], share=share, n=n, kl=kl, dropped=why))
    if not found:
        raise WorkError("the arms that decide have no position and layer in common; give direction.layers")
    # A place that was measured on more instructions has survived more rounds, so it comes first.
    return sorted(found, key=lambda one: (-one.n, -one.share))


def chosen_place(
    study: Study, joint: Sequence[SelectedPlace], finalists: Sequence[Place], tried: Sequence[Tried]
) -> list[SelectedPlace]:
    """All places, the chosen one first: among the finalists without damage, the one with the largest change of refusals."""
    places = []
    for one in joint:
        if one.place not in finalists:
            places.append(one.model_copy(update={"dropped": one.dropped or "others have a larger effect on the log-odds"}))
            continue
        change, broken = _place_change(study, one.place, tried)
        why = ""
        if broken > BROKEN_MORE:
            why = f"{100 * broken:.0f} points more completions are broken"
        elif change < LEAST_CHANGE:
            why = f"refusals change by {100 * change:.0f} points, fewer than {100 * LEAST_CHANGE:.0f}"
        places.append(one.model_copy(update={"change": change, "broken": broken, "dropped": why}))
    return sorted(places, key=lambda place: (bool(place.dropped), -(place.change or 0.0) if not place.dropped else 0.0))


def _place_change(study: Study, place: Place, tried: Sequence[Tried]) -> tuple[float, float]:
    """Mean change of refusals over the interventions at the best dose that was tried there, and the most further broken texts."""
    changes, rises = [], []
    for number in range(len(study.interventions)):
        if deciding_label(study, number) is not None:
            best = _best_dose(_doses_at(study, number, place, tried))
            changes.append(best.change)
            rises.append(best.broken)
    return sum(changes) / len(changes), max(rises)


def chosen_doses(study: Study, place: Place, tried: Sequence[Tried]) -> tuple[list[TriedDose], dict[int, float]]:
    """Every dose that was tried at the place, and the chosen coefficient of each intervention whose coefficient was open."""
    doses: list[TriedDose] = []
    coefficients: dict[int, float] = {}
    for number, spec in enumerate(study.interventions):
        if spec.coefficient != SELECT:
            continue
        if deciding_label(study, number) is None:
            coefficients[number] = doses_of(study, number)[0]
            continue
        found = _doses_at(study, number, place, tried)
        best = _best_dose(found)
        unbroken = [one for one in found if one.broken <= BROKEN_MORE] or [best]
        enough = [one for one in unbroken if one.change >= ENOUGH * best.change]
        coefficients[number] = min(enough, key=lambda one: one.coefficient).coefficient if best.change > 0 else best.coefficient
        doses += found
    return doses, coefficients


def _best_dose(found: Sequence[TriedDose]) -> TriedDose:
    """The dose with the largest change among those that break no text; if all do, the one that breaks the least."""
    unbroken = [one for one in found if one.broken <= BROKEN_MORE]
    if unbroken:
        return max(unbroken, key=lambda one: one.change)
    return min(found, key=lambda one: one.broken)


def _doses_at(study: Study, number: int, place: Place, tried: Sequence[Tried]) -> list[TriedDose]:
    """What is known of an intervention at a place, for each dose that was tried there."""
    known = [dose for dose in doses_of(study, number) if all((place, number, dose) in arm.edited for arm in tried)]
    return [_dose(study, number, dose, place, tried) for dose in known]


def _dose(study: Study, number: int, coefficient: float, place: Place, tried: Sequence[Tried]) -> TriedDose:
    decides = deciding_label(study, number)
    assert decides is not None
    label, sign = decides
    edited = [arm.edited[place, number, coefficient] for arm in tried]
    changes = [sign * (one.refusals - arm.before[label].refusals) for one, arm in zip(edited, tried, strict=True)]
    rises = [one.broken - arm.before[label].broken for one, arm in zip(edited, tried, strict=True)]
    spec = study.interventions[number]
    return TriedDose(
        intervention=number,
        kind=spec.kind,
        unit=spec.unit,
        coefficient=coefficient,
        change=sum(changes) / len(changes),
        broken=max(rises),
        n=min(one.n for one in edited),
    )


def notes_on(
    study: Study,
    places: Sequence[SelectedPlace],
    doses: Sequence[TriedDose],
    coefficients: Mapping[int, float],
    n_layers: int,
) -> Iterator[str]:
    """What a reader should know of a selection, in sentences."""
    best, rest = places[0], [place for place in places[1:] if place.change is not None and not place.dropped]
    if best.layer < EARLY * n_layers and study.direction.layers == SELECT:
        yield (
            f"The selected layer {best.layer} of {n_layers} is very early, where a direction often stands for words of the "
            "instructions and not for refusal."
        )
    near = [place for place in rest if (best.change or 0.0) - (place.change or 0.0) < FLAT]
    if near:
        names = " and ".join(str(place.layer) for place in near)
        yield (
            f"The selection is flat: layer {names} changes refusals as much as layer {best.layer}, within "
            f"{100 * FLAT:.0f} points."
        )
    for number, chosen in coefficients.items():
        found = next((one for one in doses if one.intervention == number and one.coefficient == chosen), None)
        if found is not None and found.change < LEAST_CHANGE:
            yield (
                f"No dose of {found.kind} that was tried changes refusals by {100 * LEAST_CHANGE:.0f} points on validation "
                f"instructions without breaking the text; the run uses {chosen:g} {found.unit}."
            )
