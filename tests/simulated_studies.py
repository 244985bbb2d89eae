"""Studies with known truth: verdicts that a made-up checkpoint would get, instruction by instruction.

Each instruction has a propensity to be refused, and instructions of one group share a part of it. An edit shifts propensities.
So do null directions, each by its own amount, because directions that mean nothing for refusal still do something.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy.stats import norm

from demur.analysis.cell import Cell, Claim
from demur.analysis.claims import claims
from demur.analysis.edit_tests import edit_tests
from demur.analysis.rates import Refusals, comparisons, judged_cells
from demur.core.edit_words import EditWords

WORDS = EditWords(
    action="ablate",
    kind="ablate",
    doing="ablating",
    into="in",
    done="ablated",
    moved="ablated from",
    figure="ablated",
    title="Ablated",
)


@dataclass(frozen=True)
class Truth:
    """What is true of a study.

    Attributes:
        shift: what the edit does to every propensity, in units of the noise of a verdict.
        null_spread: the standard deviation of what null directions do.
        clusters: the number of groups of instructions; 0 if all are independent.
        group_spread: the standard deviation, between groups, of what the edit and the null directions do there.
        n: the number of instructions.
        nulls: the number of null directions.
        level: the mean propensity.
        drawn: whether the edit is one more null direction, so that it does what null directions do.
    """

    shift: float = 0.0
    null_spread: float = 0.0
    clusters: int = 0
    group_spread: float = 0.0
    n: int = 100
    nulls: int = 20
    level: float = 0.8
    drawn: bool = False


@dataclass(frozen=True)
class Simulated:
    """One study: the claim about its edit, and the true change of the rate."""

    claim: Claim
    true_change: float


_ITEM, _GROUP, _NOISE = 0.8, 0.5, 0.5
"""Standard deviations: of propensities within groups, between groups, and of single verdicts."""


def simulate(truth: Truth, chance: Generator) -> Simulated:
    """One study, analysed like a run: rates, comparisons, tests, claim."""
    groups = chance.integers(0, truth.clusters, truth.n) if truth.clusters else np.arange(truth.n)
    count = truth.clusters or truth.n
    propensity = truth.level + chance.normal(0, _ITEM, truth.n) + chance.normal(0, _GROUP, count)[groups]

    def verdicts(shift: float) -> dict[int, bool]:
        shifts = shift + chance.normal(0, truth.group_spread, count)[groups]
        return dict(enumerate((propensity + shifts + chance.normal(0, _NOISE, truth.n) > 0).tolist()))

    shift = chance.normal(0, truth.null_spread) if truth.drawn else truth.shift
    refusals: Refusals = {
        ("none", "prefix"): dict(enumerate((propensity + chance.normal(0, _NOISE, truth.n) > 0).tolist())),
        ("edit", "prefix"): verdicts(shift),
        **{(f"null {k}", "prefix"): verdicts(chance.normal(0, truth.null_spread)) for k in range(truth.nulls)},
    }
    cells = [_cell("none"), _cell("edit", source="other")] + [_cell(f"null {k}", f"topics-{k}") for k in range(truth.nulls)]
    grouped = {"harmful": groups.tolist()} if truth.clusters else None
    judged, compared = judged_cells(cells, refusals, ["prefix"]), comparisons(cells, refusals, ["prefix"], grouped)
    tests = edit_tests(judged, compared, refusals, "prefix", grouped)
    (claim,) = [each for each in claims(judged, tests, "prefix", {"ablate": WORDS}) if each.effect is not None]
    spread = np.sqrt(_ITEM**2 + _GROUP**2 + _NOISE**2)
    after = norm.cdf((truth.level + shift) / np.sqrt(spread**2 + truth.group_spread**2))
    return Simulated(claim, float(after - norm.cdf(truth.level / spread)))


def _cell(key: str, source: str | None = None) -> Cell:
    edited, control = source is not None, source is not None and source.startswith("topics")
    return Cell(
        key=key, target="chat", prompt="chatml", instructions="harmful", intervention="ablate" if edited else "none",
        action="ablate" if edited else "", expected=-1 if edited else 0, direction=source, source=source, control=control,
        control_kind="topics" if control else "", layer=17 if edited else None,
    )  # fmt: skip


def repeat(truth: Truth, studies: int, seed: int) -> list[Simulated]:
    """Several studies of the same truth."""
    chance = np.random.default_rng(seed)
    return [simulate(truth, chance) for _ in range(studies)]


def share(found: list[Simulated], *verdicts: str) -> float:
    """The share of studies whose claim has one of these verdicts."""
    return float(np.mean([one.claim.verdict in verdicts for one in found]))


def coverage(found: list[Simulated]) -> float:
    """The share of studies whose interval contains the true change."""
    covered = []
    for one in found:
        assert one.claim.ci95 is not None
        covered.append(one.claim.ci95[0] <= one.true_change <= one.claim.ci95[1])
    return float(np.mean(covered))


NO_EFFECT = Truth(null_spread=0.1)
SHARED = Truth(null_spread=1.0, drawn=True)
TRUE_EFFECT = Truth(shift=-1.5, null_spread=0.3)
CLUSTERED = Truth(clusters=12, group_spread=0.6, null_spread=0.1)
CLUSTERED_EFFECT = replace(CLUSTERED, shift=-1.8)
FEW_GROUPS = replace(CLUSTERED, clusters=7)
TWO_NULLS = replace(TRUE_EFFECT, nulls=2)
