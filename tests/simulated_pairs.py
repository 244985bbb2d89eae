"""Pairs of checkpoints with known truth, analysed with all named hypotheses as one family.

Instructions, groups and null directions are made as in `simulated_studies`. Each of two checkpoints has its own rates, and each
direction acts in the checkpoints that the truth names.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from demur.analysis.cell import Cell, Claim
from demur.analysis.edit_tests import edit_tests
from demur.analysis.hypotheses.hypothesis_claims import Sets, hypothesis_claims
from demur.analysis.hypotheses.post_hypotheses import Lineage
from demur.analysis.rates import comparisons, judged_cells
from demur.interventions.edit_kind import edit_kind, words_of

WORDS = words_of({name: edit_kind(name) for name in ("ablate", "add")})
PAIR = Lineage.of({"base": "base", "chat": "chat"})
NAMES = ("base", "chat")
EDITS: dict[str, tuple[str, Literal[-1, 1]]] = {"ablate": ("harmful", -1), "add": ("harmless", 1)}
_ITEM, _GROUP, _NOISE, _LOW = 0.8, 0.5, 0.5, -1.8


@dataclass(frozen=True)
class PairTruth:
    """What is true of a pair.

    Attributes:
        base_refuses: whether the base checkpoint refuses harmful instructions more often than harmless ones. The chat checkpoint
            always does.
        acts: source and target of each direction that acts; it induces and suppresses.
        shift: by how much it acts, in units of propensity.
        null_spread: the standard deviation of what null directions do.
        drawn: whether every direction is one more null direction.
        clusters: the number of groups of instructions; 0 if all are independent.
        group_spread: the standard deviation, between groups, of what directions do there.
    """

    base_refuses: bool = True
    acts: frozenset[tuple[str, str]] = frozenset()
    shift: float = 1.2
    null_spread: float = 0.1
    drawn: bool = False
    clusters: int = 0
    group_spread: float = 0.0
    n: int = 100
    nulls: int = 20

    def holds(self, claim: Claim) -> bool:
        """Whether the hypothesis of a claim is true."""
        if claim.id == "base-refuses":
            return self.base_refuses
        if claim.id == "mechanisms-shared":
            return {("base", "chat"), ("chat", "base")} <= self.acts
        source, target = claim.id.split("-direction-")[0], claim.id.rsplit("-in-")[1]
        return (source, target) in self.acts


def simulate(truth: PairTruth, chance: Generator) -> dict[str, Claim]:
    """One pair, analysed like a run: the claims about all hypotheses, by their ids."""
    count = truth.clusters or truth.n
    groups = chance.integers(0, truth.clusters, truth.n) if truth.clusters else np.arange(truth.n)
    cells: list[Cell] = []
    refusals: dict[tuple[str, str], dict[int, bool]] = {}

    def add(cell: Cell, propensity: NDArray[np.float64], shift: float) -> None:
        shifts = shift + chance.normal(0, truth.group_spread, count)[groups] * (cell.intervention != "none")
        verdicts = propensity + shifts + chance.normal(0, _NOISE, truth.n) > 0
        cells.append(cell)
        refusals[cell.key, "prefix"] = dict(enumerate(verdicts.tolist()))

    for target in NAMES:
        high = 0.8 if target == "chat" or truth.base_refuses else _LOW
        for label, level in (("harmful", high), ("harmless", _LOW)):
            propensity = level + chance.normal(0, _ITEM, truth.n) + chance.normal(0, _GROUP, count)[groups]
            add(_cell(target, label), propensity, 0.0)
            for kind, (on, sign) in EDITS.items():
                if on != label:
                    continue
                for source in NAMES:
                    shift = sign * truth.shift * ((source, target) in truth.acts)
                    add(
                        _cell(target, label, kind, source),
                        propensity,
                        chance.normal(0, truth.null_spread) if truth.drawn else shift,
                    )
                for k in range(truth.nulls):
                    add(_cell(target, label, kind, f"topics-{k}"), propensity, chance.normal(0, truth.null_spread))
    grouped = {label: groups.tolist() for label in ("harmful", "harmless")} if truth.clusters else None
    judged, compared = judged_cells(cells, refusals, ["prefix"]), comparisons(cells, refusals, ["prefix"], grouped)
    tests = edit_tests(judged, compared, refusals, "prefix", grouped)
    found = hypothesis_claims(PAIR, judged, tests, refusals, "prefix", WORDS, Sets(grouped))
    return {claim.id: claim for claim in found.claims}


def _cell(target: str, label: str, kind: str = "none", source: str | None = None) -> Cell:
    control = source is not None and source.startswith("topics")
    return Cell(
        key=f"{target} {label} {kind} {source}", target=target, prompt="chatml", instructions=label, intervention=kind,
        action="" if source is None else kind, expected=0 if source is None else EDITS[kind][1], direction=source, source=source,
        control=control, control_kind="topics" if control else "", layer=None if source is None else 17,
        coefficient=2.0 if kind == "add" else None, unit="unit" if kind == "add" else None,
    )  # fmt: skip


def repeat(truth: PairTruth, pairs: int, seed: int) -> list[dict[str, Claim]]:
    """Several pairs of the same truth."""
    chance = np.random.default_rng(seed)
    return [simulate(truth, chance) for _ in range(pairs)]


def any_wrong(truth: PairTruth, found: list[dict[str, Claim]]) -> float:
    """The share of pairs in which at least one verdict is wrong: a false hypothesis supported, or a true one contradicted."""
    wrong = [
        any(claim.verdict == ("contradicted" if truth.holds(claim) else "supported") for claim in claims.values())
        for claims in found
    ]
    return float(np.mean(wrong))


def power(truth: PairTruth, found: list[dict[str, Claim]]) -> float:
    """Of the true hypotheses of all pairs, the share that is supported."""
    return float(np.mean([claim.verdict == "supported" for claims in found for claim in claims.values() if truth.holds(claim)]))


EVERYWHERE = frozenset((source, target) for source in NAMES for target in NAMES)
NOTHING_ACTS = PairTruth(base_refuses=False)
NULLS_DO_AS_MUCH = PairTruth(null_spread=1.0, drawn=True)
ONLY_IN_CHAT = PairTruth(base_refuses=False, acts=frozenset({("base", "chat"), ("chat", "chat")}), null_spread=0.3)
EVERYTHING = PairTruth(acts=EVERYWHERE, null_spread=0.3)
CLUSTERED = PairTruth(clusters=12, group_spread=0.6)
CLUSTERED_EVERYTHING = PairTruth(acts=EVERYWHERE, clusters=12, group_spread=0.6)
