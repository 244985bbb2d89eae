"""Where zero lies between an arm's mean activations, along each direction: what ablation to zero does to harmless prompts.

Along a direction, the mean over harmless instructions counts as 0 and the mean over harmful ones as 1. If zero, to which ablation
sets the component, lies near the harmless mean, ablation makes harmful prompts like harmless ones. If it lies near the harmful
mean or beyond, ablation makes harmless prompts like harmful ones.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.analysis.cell import Cell
from demur.analysis.manifest import DirectionFacts
from demur.core.number_format import number
from demur.directions.stored_vectors import stored_vector
from demur.runs.database.damage import FILE
from demur.runs.rows import StoredMeans

if TYPE_CHECKING:
    from demur.runs.store import Store

MIDDLE = 0.5
"""Beyond this, zero is nearer to the harmful mean than to the harmless one."""

NAMED = 6
"""A warning names up to this many directions."""


def with_zero_points(store: "Store", directions: Sequence[DirectionFacts]) -> list[DirectionFacts]:
    """Directions with the place of zero in every arm whose means are stored. Controls have none.

    Args:
        store: the run.
        directions: the stored directions.
    """
    means: dict[str, dict[str, StoredMeans]] = defaultdict(dict)
    for label in ("harmless", "harmful"):
        for one in store.means(label=label):
            means[one.arm][label] = one
    return [
        each if each.control else each.model_copy(update={"zero_at": _zero_in_arms(store, each, means)}) for each in directions
    ]


def _zero_in_arms(store: "Store", facts: DirectionFacts, means: dict[str, dict[str, StoredMeans]]) -> dict[str, float]:
    content = store.direction_file(facts.name)
    if content is None or facts.layer is None or facts.site is None:
        return {}
    vector = stored_vector(content, f"direction {facts.name} in {store.folder / FILE}")
    found = {}
    for arm, by_label in means.items():
        harmless, harmful = (
            None if (one := by_label.get(label)) is None else one.mean_at(facts.layer, facts.site)
            for label in ("harmless", "harmful")
        )
        if harmless is not None and harmful is not None and len(harmless) == len(vector):
            start, gap = float(harmless @ vector), float((harmful - harmless) @ vector)
            if gap:
                found[arm] = -start / gap
    return found


def zero_warnings(cells: Sequence[Cell], directions: Sequence[DirectionFacts]) -> list[str]:
    """One warning for each arm in which ablation to zero moves harmless prompts towards the harmful side.

    Args:
        cells: the cells of the run.
        directions: its directions with their zero points.
    """
    by_name = {each.name: each for each in directions}
    far: dict[str, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        facts = by_name.get(cell.direction or "")
        if cell.intervention != "ablate" or facts is None:
            continue
        arm = f"{cell.target}/{cell.prompt}"
        if facts.zero_at.get(arm, 0.0) > MIDDLE:
            far[arm][facts.name] = facts.zero_at[arm]
    return [_warning(arm, found) for arm, found in far.items()]


def _warning(arm: str, found: dict[str, float]) -> str:
    named = [f"{number(value)} along {name}" for name, value in list(found.items())[:NAMED]]
    more = f", and so along {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"In {arm}, zero is nearer to the harmful mean than to the harmless one ({', '.join(named)}{more}; 0 is the harmless "
        "mean and 1 the harmful mean), so ablation to zero moves harmless prompts towards the harmful side; the kind affine sets "
        "the component to the harmless mean instead."
    )
