"""Effects of edits and contrasts of a run, computed from its `run.sqlite` without demur: `recompute_claims.py` uses them."""

import json
import re
import sqlite3
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import plain_statistics as plain
from safetensors.numpy import load

SETTING = (
    "target", "prompt", "instructions", "intervention", "layer", "pairs_seed", "layers", "sites", "coefficient", "unit",
    "positions", "settings",
)  # fmt: skip

# Cells, claims and studies are JSON of any version, hence `Any`.
Facts = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """What the file of a run holds, as far as claims rest on it."""

    study: Facts
    cells: dict[str, Facts]
    directions: dict[str, Facts]
    verdicts: dict[str, dict[int, bool]]
    probabilities: dict[str, list[float]]
    texts: dict[str, dict[int, str]]
    sizes: dict[str, int]
    judge: str

    @classmethod
    def read(cls, file: Path, judge: str) -> "Stored":
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
            cells = {key: json.loads(facts) for key, facts in db.execute("SELECT key, facts FROM cells ORDER BY rowid")}
            sets = {key: facts["instructions"] for key, facts in cells.items()}
            # A resample of the training pairs, or a small edit of a prompt, has no claim of its own.
            cells = {key: each for key, each in cells.items() if not each.get("resample_of") and "~" not in each["prompt"]}
            directions = {name: json.loads(facts) for name, facts in db.execute("SELECT name, facts FROM directions")}
            verdicts: dict[str, dict[int, bool]] = {}
            wanted = "SELECT cell, position, refusal FROM verdicts WHERE judge = ? ORDER BY cell, position"
            for cell, position, refusal in db.execute(wanted, (judge,)):
                verdicts.setdefault(cell, {})[position] = bool(refusal)
            texts: dict[str, dict[int, str]] = {}
            for cell, position, text in db.execute("SELECT cell, position, instruction FROM completions"):
                texts.setdefault(sets[cell], {})[position] = text
            asked = {tuple(each) for each in meta.get("asked_measurements") or ()}
            likely: dict[str, list[float]] = {}
            for name, subject, settings, facts, arrays in db.execute(
                "SELECT name, subject, settings, facts, arrays FROM measurements ORDER BY rowid"
            ):
                chosen = json.loads(settings).get("judge", json.loads(facts).get("judge"))
                if name == "refusal-probability" and chosen == judge and (not asked or (name, settings) in asked):
                    likely[subject] = load(arrays)["probability"].tolist()
        sizes = {name: facts["n"] for name, facts in meta["instructions"].items()}
        return cls(meta["study_facts"], cells, directions, verdicts, likely, texts, sizes, judge)

    @cached_property
    def groups(self) -> dict[str, list[int]]:
        """Near-duplicates of each set: sets of words with a Jaccard index of 0.6 or more, and what connects them."""
        found = {}
        for name, texts in self.texts.items():
            words = [_words(texts.get(place, f"missing{place}")) for place in range(max(self.sizes[name], 1 + max(texts)))]
            group = list(range(len(words)))
            for i, one in enumerate(words):
                for j in range(i):
                    if len(one & words[j]) >= 0.6 * len(one | words[j]) - 1e-12:
                        old, new = group[i], group[j]
                        group = [new if each == old else each for each in group]
            found[name] = group
        return found


def _words(text: str) -> frozenset[str]:
    same = " ".join(unicodedata.normalize("NFC", text.casefold()).split())
    return frozenset(re.findall("[\\w'\u2019]+", same)) or frozenset((same,))


@dataclass(frozen=True)
class Effect:
    """One edited cell on which a change is expected, with everything that was computed of it."""

    cell: Facts
    baseline: Facts
    change: plain.Change
    rates: tuple[float, float]
    n: int
    nulls: dict[str, plain.Drawn]
    family: str
    least_p: float
    verdicts: tuple[list[bool], list[bool], list[int]]

    @property
    def least_detectable(self) -> float | None:
        before, after, group = self.verdicts
        return plain.least_detectable(before, after, self.sign, group)

    @property
    def sign(self) -> int:
        return -1 if self.cell["expected"] < 0 else 1

    @property
    def deciding(self) -> plain.Drawn | None:
        enough = [null for null in self.nulls.values() if null.p is not None]
        few = [null for null in self.nulls.values() if null.p is None and (null.place or not enough)]
        return max((*enough, *few), key=_p_of, default=None)

    @property
    def p(self) -> float:
        if self.change.size * self.sign <= 0:
            return 1.0
        return max(self.change.p, 1.0 if self.deciding is None else _p_of(self.deciding))

    @property
    def attainable(self) -> bool:
        return self.least_p < plain.LEVEL and any(null.p is not None for null in self.nulls.values())

    @property
    def p_opposite(self) -> float:
        return self.change.p if self.change.size * self.sign < 0 else 1.0

    @property
    def p_absent(self) -> float:
        room = self.rates[0] if self.sign < 0 else 1 - self.rates[0]
        return self.change.p_no_effect if room >= plain.DELTA else 1.0


@dataclass(frozen=True)
class Contrast:
    """One arm on harmful against harmless instructions."""

    change: plain.Change
    rates: tuple[float, float]
    n: int
    attainable: bool

    @property
    def p(self) -> float:
        return self.change.p if self.change.size > 0 else 1.0

    @property
    def p_opposite(self) -> float:
        return self.change.p if self.change.size < 0 else 1.0

    @property
    def p_absent(self) -> float:
        return self.change.p_no_effect if 1 - self.rates[0] >= plain.DELTA else 1.0


def _p_of(null: plain.Drawn) -> float:
    return null.p_rank if null.p is None else null.p


def effects_of(stored: Stored) -> dict[str, Effect]:
    """Every edited cell on which a change is expected, but for null directions."""
    baselines = {(c["target"], c["prompt"], c["instructions"]): c for c in stored.cells.values() if c["intervention"] == "none"}
    tried = [c for c in stored.cells.values() if c["intervention"] != "none" and c["expected"] and not c["control"]]
    families = _families(stored.study, tried)
    found = {}
    for cell in tried:
        baseline = baselines.get((cell["target"], cell["prompt"], cell["instructions"]))
        first, second = (stored.verdicts.get(each["key"], {}) if each else {} for each in (baseline, cell))
        common = [place for place in first if place in second]
        if baseline is None or not common:
            continue
        group = [stored.groups[cell["instructions"]][place] for place in common]
        before, after = [first[place] for place in common], [second[place] for place in common]
        sign = -1 if cell["expected"] < 0 else 1
        found[cell["key"]] = Effect(
            cell,
            baseline,
            plain.paired(before, after, group),
            (sum(before) / len(common), sum(after) / len(common)),
            len(common),
            _nulls(stored, cell, sign),
            families[cell["key"]],
            plain.paired(before, [sign > 0] * len(before), group).p,
            (before, after, group),
        )
    return found


def _families(study: Facts, tried: Sequence[Facts]) -> dict[str, str]:
    """Confirmatory cells are those that the study names, or else those on which a hypothesis rests."""
    declared = study.get("claims")
    if declared is not None:
        wanted = (("kind", "intervention"), ("source", "source"), ("target", "target"), ("on", "instructions"))
        chosen = {cell["key"] for cell in tried for one in declared if all(one.get(a) in (None, cell[b]) for a, b in wanted)}
    else:
        chosen = {cell["key"] for cells in transfers(tried).values() for cell in cells}
        chosen = chosen or {c["key"] for c in tried if c["source"] != c["target"]} or {c["key"] for c in tried}
    return {cell["key"]: "confirmatory" if cell["key"] in chosen else "exploratory" for cell in tried}


def transfers(cells: Sequence[Facts]) -> dict[tuple[str, str, str], list[Facts]]:
    """Source, target and effect -> the cells that decide: affine before ablation to zero, and the first training pairs."""
    found: dict[tuple[str, str, str], list[Facts]] = {}
    for cell in cells:
        effect = {("add", "harmless"): "induces", ("affine", "harmful"): "suppresses", ("ablate", "harmful"): "suppresses"}
        kind = effect.get((cell["action"], cell["instructions"]))
        if kind and cell["source"] is not None:
            found.setdefault((cell["source"], cell["target"], kind), []).append(cell)
    for key, mine in found.items():
        action = "affine" if any(cell["action"] == "affine" for cell in mine) else mine[0]["action"]
        mine = [cell for cell in mine if cell["action"] == action]
        found[key] = [cell for cell in mine if cell["pairs_seed"] == mine[0]["pairs_seed"]]
    return found


def _nulls(stored: Stored, cell: Facts, sign: int) -> dict[str, plain.Drawn]:
    """The null directions of each kind. A cell of a null direction has the key of the real one, but for the direction's name."""
    keys: dict[str, list[str]] = {}
    for name, facts in stored.directions.items():
        if not facts.get("control") or any(facts.get(each) != cell.get(each) for each in ("layer", "pairs_seed")):
            continue
        own = facts["stands_beside"] in (cell["direction"], cell["source"])
        if own or (cell["unit"] != "raw" and not facts["control_kind"].endswith("-orthogonal")):
            key = cell["key"].replace(f" {cell['direction']}|", f" {name}|")
            other = stored.cells.get(key)
            if other is not None and any(other[each] != cell[each] for each in SETTING):
                continue
            keys.setdefault(facts["control_kind"], []).append(key)
    found = {}
    for kind, every in keys.items():
        judged = [key for key in every if key in stored.verdicts]
        measured = [key for key in every if key in stored.probabilities] if cell["key"] in stored.probabilities else []
        likely = bool(measured) and len(measured) >= len(judged)
        outcomes: list[Mapping[int, float]] = [stored.verdicts[key] for key in (cell["key"], *judged)]
        if likely:
            outcomes = [dict(enumerate(stored.probabilities[key])) for key in (cell["key"], *measured)]
        common = [place for place in outcomes[0] if all(place in each for each in outcomes)]
        if len(outcomes) > 1 and common:
            edit, *null = ([float(each[place]) for place in common] for each in outcomes)
            group = [stored.groups[cell["instructions"]][place] for place in common]
            found[kind] = plain.against(edit, null, sign, verdicts=not likely, groups=group)
    return found


def contrasts_of(stored: Stored) -> dict[str, list[Contrast]]:
    """Harmful against harmless instructions in every arm, by checkpoint."""
    sources = [stored.study["instructions"].get(label, {}).get("source") for label in ("harmful", "harmless")]
    twins = sources == ["contrast-harmful", "contrast-harmless"]
    found: dict[str, list[Contrast]] = {}
    unedited = [c for c in stored.cells.values() if c["intervention"] == "none" and c["key"] in stored.verdicts]
    for harmful in (c for c in unedited if c["instructions"] == "harmful"):
        for harmless in (c for c in unedited if c["instructions"] == "harmless"):
            if (harmful["target"], harmful["prompt"]) == (harmless["target"], harmless["prompt"]):
                sides = [stored.verdicts[harmless["key"]], stored.verdicts[harmful["key"]]]
                found.setdefault(harmful["target"], []).append(_contrast(stored, *sides, twins=twins))
    return found


def _contrast(stored: Stored, harmless: dict[int, bool], harmful: dict[int, bool], *, twins: bool) -> Contrast:
    rates = sum(harmless.values()) / len(harmless), sum(harmful.values()) / len(harmful)
    common = [place for place in harmless if place in harmful]
    of = stored.groups
    if twins and common:
        first, second = [harmless[place] for place in common], [harmful[place] for place in common]
        group = [of["harmful"][place] for place in common]
        least = plain.paired(first, [True] * len(first), group).p
        return Contrast(plain.paired(first, second, group), rates, len(common), least < plain.LEVEL)
    group_of = [of["harmless"][place] for place in harmless], [of["harmful"][place] for place in harmful]
    change = plain.independent(list(harmless.values()), list(harmful.values()), group_of)
    least = plain.fisher(len(harmful), len(harmful), 0, len(harmless))
    repeated = any(len(set(each)) < len(each) for each in group_of)
    few = repeated and min(len(set(each)) for each in group_of) < 10
    return Contrast(change, rates, min(len(harmless), len(harmful)), least < plain.LEVEL and not few)
