"""Warnings about directions and edits: massive coordinates, halves that disagree, and harm to harmless instructions."""

from pathlib import Path

import numpy
import pytest
import torch

import demur
from demur.analysis.arm_pairs import ArmPair
from demur.analysis.cautions.harmless_changes import harmless_changes
from demur.analysis.cautions.unsure_directions import unsure_directions
from demur.analysis.cell import JudgedCell
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import comparisons
from demur.runs.extracting.large_coordinates import large_coordinates, largest_share


class Kept:
    """Direction files in memory, as a store has them."""

    folder = Path("run")

    def __init__(self, **vectors):
        self.files = {name: demur.from_raw(vector, name=name, layer=1).to_bytes() for name, vector in vectors.items()}

    def direction_file(self, name):
        return self.files.get(name)


def test_three_huge_coordinates_are_told_of():
    generator = torch.Generator().manual_seed(1)
    even = torch.randn(64, generator=generator)
    huge = even.clone()
    huge[[3, 9, 40]] = torch.tensor([60.0, -50.0, 40.0])
    assert largest_share(numpy.array([3.0, 0, 4.0, 0, 12.0, 84.0])) == pytest.approx((16 + 144 + 84**2) / (9 + 16 + 144 + 84**2))
    store = Kept(base=even, chat=huge, null=huge)
    facts = [DirectionFacts(name="base"), DirectionFacts(name="chat"), DirectionFacts(name="null", control=True)]
    (said,) = large_coordinates(store, facts)
    share = float((huge[[3, 9, 40]] ** 2).sum() / (huge**2).sum())
    assert said.startswith(f"Three coordinates hold {100 * share:.0f} % of chat. Such massive activations")
    assert large_coordinates(store, facts[:1]) == []


def pair(halves):
    lists = dict.fromkeys(("cosine", "corrected", "null_mean", "p_above"), (None, 0.5))
    return ArmPair(arms=("a/x", "b/x"), corrected_ci95=(None, None), null95=(None, None), halves=halves, **lists)


def test_directions_that_depend_on_the_draw_are_told_of():
    told = unsure_directions([pair(((None, 0.31), (None, 0.9)))], [1], [])
    assert len(told) == 1
    assert told[0].startswith(
        "Two directions of a/x at layer 1, each from one half of its training instructions, have a mean cosine"
    )
    assert "0.31" in told[0]
    assert unsure_directions([pair(((None, 0.31), (None, 0.9)))], [0], []) == []
    resamples = [
        DirectionFacts(name=f"chat.resample{n}", resample_of="chat", cosine=cosine) for n, cosine in enumerate((0.2, 0.5))
    ]
    (said,) = unsure_directions([], [1], [DirectionFacts(name="chat"), *resamples])
    assert "a mean cosine of only 0.35 with chat" in said
    near = [one.model_copy(update={"cosine": 0.9}) for one in resamples]
    assert unsure_directions([], [1], near) == []


def cells(harmful, harmless, control=False, n=30):
    """The cells and comparisons of an edit with these numbers of refusals, without it 20 of harmful and 2 of harmless ones."""
    made, refusals = [], {}
    for instructions, before, after in (("harmful", 20, harmful), ("harmless", 2, harmless)):
        for edit, count in (("none", before), ("ablate chat", after)):
            key = f"chat/native|{instructions}|{edit}"
            facts = {"intervention": "none"}
            if edit != "none":
                facts = {"intervention": "ablate", "action": "ablate", "direction": "chat", "source": "chat", "control": control}
                facts["expected"] = -1 if instructions == "harmful" else 0
            refusals[key, "prefix"] = {place: place < count for place in range(n)}
            rates = {"n": n, "refusals": count, "rate": count / n, "ci95": (0.0, 1.0), "judge": "prefix"}
            made.append(JudgedCell(key=key, target="chat", prompt="native", instructions=instructions, **facts, **rates))
    return made, comparisons(made, refusals, ["prefix"])


def test_edits_that_change_harmless_instructions_more_are_told_of():
    (said,) = harmless_changes(*cells(15, 20), "prefix")
    assert said == (
        "In chat/native, an edit changes refusals of harmless instructions more than those of harmful ones: ablate chat "
        "(+60 points, and \N{MINUS SIGN}17 on harmful ones)."
    )
    assert harmless_changes(*cells(0, 8), "prefix") == []  # harmful ones change more
    assert harmless_changes(*cells(19, 4), "prefix") == []  # that may be chance
    assert harmless_changes(*cells(15, 20, control=True), "prefix") == []
