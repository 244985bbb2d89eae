"""Recomputes every number in the claims of a run from its `run.sqlite`, with code that shares nothing with demur.

Run it as `python scripts/recompute_claims.py runs/demo`. It prints a table and stops with exit code 1 if a number differs by more
than 1e-9 from that in `summary.json`. Bounds of intervals may differ by 1e-7, because demur and this script search for them in
different ways. The least detectable change may differ by 0.02: with few instructions, two searches may stop at different
places. Whether a text is broken is not computed again: it is no number.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import plain_statistics as plain
from plain_effects import Contrast, Effect, Facts, Stored, contrasts_of, effects_of, transfers

TOLERANCE, OF_BOUNDS, OF_SEARCHES = 1e-9, 1e-7, 0.02

BROKEN = "broken text"

Number = float | int | str | None
Trials = Sequence[Effect | Contrast]


class Line(NamedTuple):
    """One number of one claim: as `summary.json` has it, and as it was computed here."""

    claim: str
    number: str
    theirs: Number
    ours: Number

    @property
    def differs(self) -> bool:
        if isinstance(self.theirs, str) or isinstance(self.ours, str) or self.theirs is None or self.ours is None:
            return self.theirs != self.ours
        searched = "least_detectable" in self.number
        bound = any(word in self.number for word in ("ci95", "band"))
        return not abs(self.theirs - self.ours) <= (OF_SEARCHES if searched else OF_BOUNDS if bound else TOLERANCE)


class Family(NamedTuple):
    """The corrected p values of hypotheses and effects, by id."""

    p: dict[str, float]
    p_opposite: dict[str, float]
    p_absent: dict[str, float]
    p_of_cell: dict[str, float]


def roles_of(study: Facts) -> tuple[str | None, str | None]:
    """The base and the chat checkpoint: by their roles, or else the first and the last one."""
    names = list(study["checkpoints"])
    said = {name: str(study["checkpoints"][name].get("role") or "").strip().lower() for name in names}
    base = next((name for name in names if said[name] == "base"), None)
    chat = next((name for name in reversed(names) if said[name] == "chat"), None)
    base = base or next((name for name in names if name != chat), None)
    chat = chat or next((name for name in reversed(names) if name != base), None)
    return base, chat


def hypotheses_of(stored: Stored, effects: Mapping[str, Effect]) -> dict[str, Trials]:
    """The trials of every hypothesis that was tested, by its id."""
    base, chat = roles_of(stored.study)
    contrasts = contrasts_of(stored)
    found: dict[str, Trials] = {"base-refuses": contrasts[base]} if base in contrasts else {}
    for (source, target, effect), cells in transfers([each.cell for each in effects.values()]).items():
        words = [_word(name, base, chat) for name in (source, target)]
        mine = [effects[cell["key"]] for cell in cells]
        named = [each for each in mine if each.family == "confirmatory"]
        found[f"{words[0]}-direction-{effect}-in-{words[1]}"] = named or mine
    return found


def _word(name: str, base: str | None, chat: str | None) -> str:
    if name in (base, chat):
        return "base" if name == base else "chat"
    return f"checkpoint-{name}" if name in ("base", "chat") else name


def corrected(hypotheses: Mapping[str, Trials], effects: Mapping[str, Effect]) -> Family:
    """Holm's correction within the confirmatory and within the exploratory family, which hypotheses and lone effects make up."""
    result = Family({}, {}, {}, {})
    taken = {each.cell["key"] for trials in hypotheses.values() for each in trials if isinstance(each, Effect)}
    for family in ("confirmatory", "exploratory"):
        members: dict[str, Trials] = {name: trials for name, trials in hypotheses.items() if family_of(trials) == family}
        members |= {key: [each] for key, each in effects.items() if key not in taken and each.family == family}
        alone = {name: min(1.0, len(trials) * min(each.p for each in trials)) for name, trials in members.items()}
        tested = [name for name, trials in members.items() if any(each.attainable for each in trials)]
        result.p.update(alone | dict(zip(tested, plain.holm([alone[name] for name in tested]), strict=True)))
        for into, p_values in (
            (result.p_opposite, {name: max(each.p_opposite for each in trials) for name, trials in members.items()}),
            (result.p_absent, {name: max(each.p_absent for each in trials) for name, trials in members.items()}),
        ):
            into.update(zip(p_values, plain.holm(list(p_values.values())), strict=True))
        order = sorted(tested, key=alone.__getitem__)
        for name, trials in members.items():
            steps = len(tested) - order.index(name) if name in tested else 1
            for each in trials:
                if isinstance(each, Effect):
                    p = min(1.0, steps * len(trials) * each.p)
                    result.p_of_cell[each.cell["key"]] = max(result.p[name], p)
    return result


def family_of(trials: Trials) -> str:
    first = trials[0]
    return first.family if isinstance(first, Effect) else "confirmatory"


def changes_corrected(effects: Mapping[str, Effect]) -> dict[str, float]:
    """The p value of each change alone, after Holm's correction within its family."""
    found: dict[str, float] = {}
    for family in ("confirmatory", "exploratory"):
        keys = [key for key, each in effects.items() if each.family == family]
        found |= dict(zip(keys, plain.holm([effects[key].change.p for key in keys]), strict=True))
    return found


def lines_of(claim: Facts, effects: Mapping[str, Effect], family: Family, hypotheses: Mapping[str, Trials]) -> Iterator[Line]:
    """Every number of one claim."""
    if claim["about"] == "rate" or (claim["verdict"] == "not tested" and claim["id"] not in hypotheses):
        return
    if claim["about"] == "effect":
        each = effects[claim["id"].removeprefix("effect: ")]
        p_change = changes_corrected(effects)[each.cell["key"]]
        expected = each.change.size * each.sign > 0
        p = family.p_of_cell[each.cell["key"]] if expected else p_change
        supported = expected and p < plain.LEVEL and claim["reason"] != BROKEN
        contradicted = each.change.size * each.sign < 0 and p_change < plain.LEVEL
        yield Line(claim["id"], "verdict", claim["verdict"], _verdict(supported, contradicted))
        yield from _of_effect(claim, each, p, p_change, why=not supported and not contradicted)
        return
    name = claim["id"]
    trials = hypotheses[name]
    strongest = min(trials, key=lambda each: each.p)
    supported = family.p[name] < plain.LEVEL and claim["reason"] != BROKEN
    contradicted = family.p[name] >= plain.LEVEL and min(family.p_opposite[name], family.p_absent[name]) < plain.LEVEL
    p = family.p[name]
    if contradicted:
        p = family.p_opposite[name] if family.p_opposite[name] < plain.LEVEL else family.p_absent[name]
    yield Line(name, "verdict", claim["verdict"], _verdict(supported, contradicted))
    yield Line(name, "settings", claim["settings"], len(trials))
    if isinstance(strongest, Effect):
        yield from _of_effect(claim, strongest, p, changes_corrected(effects)[strongest.cell["key"]], why=not supported)
    else:
        yield from _of_change(claim, strongest, p, strongest.change.p, why=not supported)


def _verdict(supported: bool, contradicted: bool) -> str:
    return "supported" if supported else "contradicted" if contradicted else "not shown"


def _of_change(claim: Facts, each: Effect | Contrast, p: float, p_change: float, *, why: bool) -> Iterator[Line]:
    name = claim["id"]
    yield Line(name, "effect", claim["effect"], each.change.size)
    yield Line(name, "n", claim["n"], each.n)
    for number in (0, 1):
        yield Line(name, f"rates[{number}]", claim["rates"][number], each.rates[number])
        yield Line(name, f"ci95[{number}]", claim["ci95"][number], each.change.interval[number])
    yield Line(name, "p", claim["p"], p)
    yield Line(name, "p_change", claim["p_change"], p_change)
    yield Line(name, "p_no_effect", claim["p_no_effect"], each.change.p_no_effect if why else None)


def _of_effect(claim: Facts, each: Effect, p: float, p_change: float, *, why: bool) -> Iterator[Line]:
    name, deciding = claim["id"], each.deciding
    yield from _of_change(claim, each, p, p_change, why=why)
    yield Line(name, "least_p", claim["least_p"], each.least_p if why else None)
    least = each.least_detectable if why else None
    yield Line(name, "least_detectable", claim["least_detectable"], least)
    yield Line(name, "kinds of nulls", " ".join(sorted(null["kind"] for null in claim["nulls"])), " ".join(sorted(each.nulls)))
    yield from _of_null(name, "null", claim["null"], deciding)
    for null in claim["nulls"]:
        yield from _of_null(name, null["kind"], null, each.nulls.get(null["kind"]))


def _of_null(name: str, what: str, theirs: Facts | None, ours: plain.Drawn | None) -> Iterator[Line]:
    if theirs is None or ours is None:
        yield Line(name, what, "a null" if theirs else None, "a null" if ours else None)
        return
    for number in ("n", "place", "p", "p_rank", "value"):
        yield Line(name, f"{what}.{number}", theirs[number], getattr(ours, number))
    for number in ("band", "reach"):
        for place in (0, 1):
            pair, other = theirs[number], getattr(ours, number)
            yield Line(name, f"{what}.{number}[{place}]", pair and pair[place], other and other[place])


def of_parts(claim: Facts, claims: Mapping[str, Facts]) -> Iterator[Line]:
    """A claim that holds if all its parts hold: its numbers are those of the part that decides."""
    parts = [claims[part] for part in claim["parts"]]
    if claim["verdict"] == "not tested":
        return
    refuted = [part for part in parts if part["verdict"] == "contradicted"]
    all_hold = all(part["verdict"] == "supported" for part in parts)
    yield Line(claim["id"], "verdict", claim["verdict"], _verdict(all_hold, bool(refuted)))
    missing = [part for part in parts if part["verdict"] != "supported"]
    p = min(part["p"] for part in refuted) if refuted else max(part["p"] for part in missing or parts)
    yield Line(claim["id"], "p", claim["p"], p)
    decides = next(part for part in parts if part["cells"] == claim["cells"])
    for number in ("effect", "n", "p"):
        yield Line(claim["id"], number, claim[number], decides[number])


def recomputed(folder: Path) -> list[Line]:
    """Every number of every claim of a run, as it is in `summary.json` and as it was computed here."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    stored = Stored.read(folder / "run.sqlite", next(iter(summary["judges"])))
    effects = effects_of(stored)
    hypotheses = hypotheses_of(stored, effects)
    family = corrected(hypotheses, effects)
    claims = {claim["id"]: claim for claim in summary["claims"]}
    lines = []
    for claim in claims.values():
        shared = claim["id"].startswith("mechanisms-shared")
        lines += list(of_parts(claim, claims) if shared else lines_of(claim, effects, family, hypotheses))
    told = {name for name, claim in claims.items() if claim["verdict"] != "not tested"}
    for name in [*hypotheses, *(f"effect: {key}" for key in effects)]:
        if name not in told:
            lines.append(Line(name, "claim", None, "missing in summary.json"))
    return lines


def main() -> None:
    lines = recomputed(Path(sys.argv[1]))
    for line in lines:
        print(f"{'DIFFERS  ' if line.differs else ''}{line.claim}  {line.number}  {line.theirs}  {line.ours}")
    wrong = sum(line.differs for line in lines)
    print(f"{len(lines)} numbers of {len({line.claim for line in lines})} claims recomputed, {wrong} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
