"""Chooses the place (position and layer) of a direction from a table of scores, with published filters and criteria.

Pure arithmetic: `sweep.py` makes the table. Only places that pass all filters can be chosen, so a selection may be empty. It says
for every dropped place why it was dropped.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from demur.core.errors import InputError
from demur.core.html_repr import rows_table

KL_MOST = 0.1
"""The largest allowed change, in nats, of what follows harmless instructions under ablation (Arditi et al. 2024, appendix C)."""
INDUCE_LEAST = 0.0
"""Log-odds of refusal that adding a candidate must reach on harmless instructions (same appendix)."""
LAST_LAYERS = 0.2
"""Candidates in this share of the layers, from the end, are dropped: they act on the output tokens directly (same appendix)."""


@dataclass(frozen=True)
class Scored:
    """One place with its score (higher is better) and the measures that the score comes from.

    `dropped` says why the place cannot be chosen. A dropped place has the score NaN. `second` breaks ties; larger is better.
    """

    position: int
    layer: int
    score: float
    measures: Mapping[str, float]
    dropped: str = ""
    second: float = 0.0

    @property
    def place(self) -> tuple[int, int]:
        """(position, layer)."""
        return self.position, self.layer


@dataclass(frozen=True)
class Selection:
    """All places of one checkpoint, or of several together, under one criterion."""

    criterion: str
    places: tuple[Scored, ...]

    def __repr__(self) -> str:
        best = "none" if self.best is None else f"position {self.best.position} layer {self.best.layer}"
        return f"Selection({self.criterion!r}, best: {best}, {len(self.kept)} of {len(self.places)} places valid)"

    def _repr_html_(self) -> str:
        kept = self.kept
        names = list(kept[0].measures) if kept else []
        rows = [(one.position, one.layer, *(f"{one.measures[name]:.3f}" for name in names)) for one in kept[:5]]
        title = f"Selection by {self.criterion}: the best of {len(kept)} valid places of {len(self.places)}"
        return rows_table(title, ("position", "layer", *names), rows)

    @property
    def kept(self) -> tuple[Scored, ...]:
        """The places that passed all filters, best first. Places with equal scores stay in the order given."""
        return tuple(sorted((place for place in self.places if not place.dropped), key=lambda one: (-one.score, -one.second)))

    @property
    def best(self) -> Scored | None:
        """The chosen place; None if no place is valid."""
        kept = self.kept
        return kept[0] if kept else None

    def reasons(self) -> dict[str, int]:
        """The reasons why places were dropped, with counts."""
        counts: dict[str, int] = {}
        for place in self.places:
            if place.dropped:
                counts[place.dropped] = counts.get(place.dropped, 0) + 1
        return counts


def by_refusal(
    scores: Sequence[Mapping[str, float | int]],
    n_layers: int,
    *,
    kl_most: float | int | None = KL_MOST,
    induce_least: float | int | None = INDUCE_LEAST,
    last_layers: float | int | None = LAST_LAYERS,
) -> Selection:
    """Arditi et al.'s choice: the lowest refusal score under ablation among the places that pass three filters.

    Each entry needs `position` and `layer`. It also needs `kl` (or `kl_at_least`, a lower bound), `induce` and `bypass`, unless
    an earlier filter drops it. A filter that is None is not applied. See section 2.3 and appendix C of the paper. As in the
    paper's code (pipeline/submodules/select_direction.py), a place exactly at a bound passes.
    """

    def dropped(entry: Mapping[str, float | int]) -> str:
        return (
            late(int(entry["layer"]), n_layers, last_layers)
            or _not_numbers(entry)
            or _damages(entry, kl_most)
            or _induces_nothing(entry, induce_least)
        )

    return Selection("arditi", _scored(scores, lambda entry: -entry["bypass"], dropped))


def by_cosine(
    scores: Sequence[Mapping[str, float | int]],
    n_layers: int,
    *,
    kl_most: float | int | None = KL_MOST,
    last_layers: float | int | None = LAST_LAYERS,
) -> Selection:
    """COSMIC's choice: the largest sum of `comply` and `refuse`.

    Each is the cosine between edited states of one kind of instruction and unedited states of the other kind. See Siu
    et al. 2025 (arXiv 2506.00085), section 3. The filters on `kl` and layer are those of Arditi et al.
    """

    def dropped(entry: Mapping[str, float | int]) -> str:
        return late(int(entry["layer"]), n_layers, last_layers) or _not_numbers(entry) or _damages(entry, kl_most)

    return Selection("cosmic", _scored(scores, lambda entry: entry["comply"] + entry["refuse"], dropped))


def by_separation(
    scores: Sequence[Mapping[str, float | int]], n_layers: int, *, last_layers: float | int | None = LAST_LAYERS
) -> Selection:
    """The largest `auroc` of held-out activations along the direction; among equals the largest `gap`.

    This needs no outputs of the model. It shows where harmful and harmless instructions can be separated, but the model need not
    use this: a list of words can separate them too. Ties at an AUROC of 1 are common; the gap, in pooled standard deviations,
    breaks them.
    """

    def dropped(entry: Mapping[str, float | int]) -> str:
        return late(int(entry["layer"]), n_layers, last_layers) or _not_numbers(entry)

    places = _scored(scores, lambda entry: entry["auroc"], dropped)
    return Selection("separation", tuple(replace(one, second=one.measures.get("gap", 0.0)) for one in places))


def jointly(selections: Sequence[Selection]) -> Selection:
    """Choose one place for several checkpoints.

    The score of a place is the lowest that any checkpoint gives it, and the place with the highest score is chosen. A place that
    any checkpoint dropped is dropped, for the first such reason.

    Args:
        selections: one for each checkpoint.

    Returns:
        The places that all checkpoints have, with their lowest scores.

    Raises:
        InputError: if the selections use different criteria, or have no place in common.

    Example:
        >>> import demur
        >>> from demur.measurements.selection.ranking import by_separation
        >>> scores = [{"position": -1, "layer": layer, "auroc": auroc, "gap": 1.0} for layer, auroc in ((1, 0.9), (2, 0.8))]
        >>> one, other = by_separation(scores, 10), by_separation([{**entry, "auroc": 0.85} for entry in scores], 10)
        >>> demur.jointly([one, other]).best.place
        (-1, 1)
    """
    if len({selection.criterion for selection in selections}) != 1:
        raise InputError("selections can be joined only if all of them use one criterion")
    tables = [{place.place: place for place in selection.places} for selection in selections]
    common = [place for place in tables[0] if all(place in table for table in tables)]
    if not common:
        raise InputError(
            "the checkpoints have no position and layer in common; give prompt formats whose ends have a position in common"
        )
    joined = []
    for place in common:
        entries = [table[place] for table in tables]
        refused = [entry for entry in entries if entry.dropped]
        joined.append(refused[0] if refused else min(entries, key=lambda entry: (entry.score, entry.second)))
    return Selection(selections[0].criterion, tuple(joined))


def late(layer: int, n_layers: int, last_layers: float | int | None = LAST_LAYERS) -> str:
    """Why a layer is too late to be chosen; empty if it is not."""
    if last_layers is None or layer < int(n_layers * (1 - last_layers)):
        return ""
    return f"in the last {100 * last_layers:g} % of the layers"


def _not_numbers(entry: Mapping[str, float | int]) -> str:
    return "a score is not a number" if any(math.isnan(value) for value in entry.values()) else ""


def _damages(entry: Mapping[str, float | int], most: float | int | None) -> str:
    # If the lower bound is above the limit, the mean is not needed.
    bad = most is not None and entry["kl_at_least" if "kl_at_least" in entry else "kl"] > most
    return f"ablation changes next tokens after harmless instructions by more than {most:g} nats" if bad else ""


def _induces_nothing(entry: Mapping[str, float | int], least: float | int | None) -> str:
    bad = least is not None and entry["induce"] < least
    return f"adding it does not raise the log-odds of refusal to {least:g}" if bad else ""


def _scored(
    scores: Sequence[Mapping[str, float | int]],
    score: Callable[[Mapping[str, float | int]], float],
    dropped: Callable[[Mapping[str, float | int]], str],
) -> tuple[Scored, ...]:
    places = []
    for entry in scores:
        measures = {key: float(value) for key, value in entry.items() if key not in ("position", "layer")}
        reason = dropped(entry)
        places.append(Scored(int(entry["position"]), int(entry["layer"]), math.nan if reason else score(entry), measures, reason))
    return tuple(places)
