"""Published rates beside measured ones: which cell a published figure is about, and whether the rates differ.

Pure functions over a study's facts and its measured cells. A rate counts as measured under the published settings only where
every setting that its cell depends on was stated and is the same; every other one is named. Nothing is paired, because counts
were published and not verdicts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from demur.core.statistics import LEVEL, fisher, wilson
from demur.inputs.prompt_formats import format_name
from demur.study.published_spec import DIRECTION_KEYS, EDIT_KEYS, RUN_KEYS, Publication, PublishedRate, leaves

SAME, DEPARTS, UNSTATED = "as published", "depart", "not all stated"
"""What is to be said of the settings of a measured cell beside a published rate."""

EVERY_SITE = ["resid_pre", "resid_mid", "resid_post"]

Facts = Mapping[str, Any]


def published_rows(study: Facts, cells: Sequence[Facts], directions: Sequence[Facts]) -> list[dict[str, Any]]:
    """One row a published rate of `study`, in its order, with the measured cell that it is about.

    `study` and `directions` are facts as a run stores them, `cells` those of `summary.cell_rows`. A row has both rates with
    Wilson intervals, their difference and Fisher's exact test; `departures` (setting, published, here), `not_stated` settings,
    and `settings`, which sums these up. `measured` is None where no cell, or no single one, fits; `reason` says so, and why
    nothing was tested. `verdicts_changed_at_least` is how far apart the counts are where settings and n are the same: greedy
    decoding has no chance in it, so that many verdicts must differ.
    """
    read_under = {each["name"]: each["prompt"] for each in directions}
    rows = []
    for publication in map(Publication.model_validate, study.get("published", [])):
        for rate in publication.rates:
            rows.append(_row(publication, rate, study, cells, read_under))
    return rows


def text_and_code(study: Facts) -> list[dict[str, str]]:
    """Settings of which a publication's text says other than its code, or nothing: work, setting, text and code in words."""
    found = []
    for publication in map(Publication.model_validate, study.get("published", [])):
        settings = leaves(publication.settings)
        for key, text in leaves(publication.text).items():
            code = _doses(publication.rates) if key == "interventions.coefficient" else in_words(settings.get(key, "not stated"))
            found.append({"work": publication.work, "setting": key, "text": text, "code": code})
    return found


def in_words(value: Any) -> str:
    """A setting's value as `--set` would write it."""
    if value is None:
        return "not set"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(
    publication: Publication, rate: PublishedRate, study: Facts, cells: Sequence[Facts], read_under: Mapping[str, str | None]
) -> dict[str, Any]:
    stated = _stated(publication, rate)
    row: dict[str, Any] = {
        "work": publication.work,
        **rate.model_dump(include={"target", "prompt", "instructions", "intervention", "source", "coefficient", "note"}),
        "published": _figure(rate.refusals, rate.n, rate.rate),
        "key": None,
        "judge": None,
        "measured": None,
        "difference": None,
        "p_value": None,
        "differs": None,
        "verdicts_changed_at_least": None,
        "settings": None,
        "departures": [],
        "not_stated": [],
        "reason": "",
    }
    fits = _fitting(rate, stated, study, cells, read_under)
    if len(fits) != 1:
        tied = ", ".join(str(cell["key"]) for cell, _, _ in fits)
        return {**row, "reason": f"{len(fits)} cells fit equally: {tied}" if fits else "no such cell in this run"}
    cell, departures, not_stated = fits[0]
    measured = _figure(cell["refusals"], cell["n"], None)
    settings = DEPARTS if departures else UNSTATED if not_stated else SAME
    row |= {
        "key": cell["key"],
        "judge": cell["judge"],
        "prompt": cell["prompt"],
        "measured": measured,
        "difference": measured["rate"] - row["published"]["rate"],
        "settings": settings,
        "departures": departures,
        "not_stated": not_stated,
    }
    if rate.refusals is None or rate.n is None:
        return {**row, "reason": "published without n, so there is no interval and no test"}
    p = fisher(rate.refusals, rate.n, cell["refusals"], cell["n"])
    changed = abs(cell["refusals"] - rate.refusals) if settings == SAME and rate.n == cell["n"] else None
    return {**row, "p_value": p, "differs": p < LEVEL, "verdicts_changed_at_least": changed}


def _figure(refusals: int | None, n: int | None, rate: float | None) -> dict[str, Any]:
    if refusals is None or n is None:
        return {"n": None, "refusals": None, "rate": rate, "ci95": None}
    return {"n": n, "refusals": refusals, "rate": refusals / n, "ci95": list(wilson(refusals, n))}


_UNUSED = ("adapter", "revision", "quantise")
"""What a publication that does not name it did not use."""

Fit = tuple[Facts, list[dict[str, Any]], list[str]]


def _fitting(
    rate: PublishedRate, stated: Facts, study: Facts, cells: Sequence[Facts], read_under: Mapping[str, str | None]
) -> list[Fit]:
    """The cells of the same target, instructions, edit and source that depart in the fewest settings; one, unless several tie."""
    judge = _same(stated.get("judges"))
    judges = {cell["judge"] for cell in cells}
    wanted = judge[0] if judge and judge[0] in judges else study["judges"][0]
    fits: list[Fit] = []
    for cell in cells:
        about = (cell["target"], cell["instructions"], cell["intervention"], cell["source"], cell["judge"])
        if about != (rate.target, rate.instructions, rate.intervention, rate.source, wanted) or cell["control"]:
            continue
        here = _settings(study, cell, read_under)
        if rate.prompt is not None and here[f"checkpoints.{rate.target}.prompts"][0] != rate.prompt:
            continue
        # A prompt's own text, where none is stated, is that of the built-in format.
        known = {key: stated.get(key) for key in here if key in stated or key.startswith("prompts.")}
        departures = [
            {"setting": key, "published": known[key], "here": here[key]} for key in known if _same(known[key]) != _same(here[key])
        ]
        fits.append((cell, departures, [key for key in here if key not in known]))
    fewest = min((len(departures) for _, departures, _ in fits), default=0)
    return [fit for fit in fits if len(fit[1]) == fewest]


def _stated(publication: Publication, rate: PublishedRate) -> dict[str, Any]:
    """The settings behind one published rate, by the study's keys."""
    found = leaves(publication.settings)
    for name in publication.settings.get("checkpoints", {}):
        found = {**dict.fromkeys(f"checkpoints.{name}.{key}" for key in _UNUSED), **found}
    found = {"interventions.layers": None, **found}
    own = {
        f"checkpoints.{rate.target}.prompts": rate.prompt,
        f"instructions.{rate.instructions}.test": rate.n,
        "interventions.coefficient": rate.coefficient,
    }
    return found | {key: value for key, value in own.items() if value is not None}


def _settings(study: Facts, cell: Facts, read_under: Mapping[str, str | None]) -> dict[str, Any]:
    """Every setting that a measured cell depends on, by the study's keys, with the one value that holds for this cell."""
    edit, label = cell["intervention"], cell["instructions"]
    checkpoints = {cell["target"]: [_spec(study, cell["target"], cell["prompt"])]}
    if edit != "none":
        prompt = _spec(study, cell["source"], read_under[cell["direction"]])
        checkpoints.setdefault(cell["source"], []).append(prompt)
    found: dict[str, Any] = {}
    for name, prompts in checkpoints.items():
        # Studies of earlier versions name no quantisation, for there was none.
        found |= {f"checkpoints.{name}.{key}": study["checkpoints"][name].get(key) for key in ("model", *_UNUSED)}
        found[f"checkpoints.{name}.prompts"] = list(dict.fromkeys(prompts))
        found |= {f"prompts.{each}": study["prompts"][each] for each in prompts if each in study["prompts"]}
    labels = (label,) if edit == "none" else ("harmful", "harmless")
    found |= {f"instructions.{each}.source": study["instructions"][each]["source"] for each in labels}
    found[f"instructions.{label}.test"] = cell["n"]
    if edit != "none":
        found |= {f"direction.{key}": study["direction"][key] for key in DIRECTION_KEYS}
        found["direction.layers"] = cell["layer"]
        dose = ("unit", "coefficient")
        found |= {f"interventions.{key}": cell.get(key) for key in EDIT_KEYS if edit == "add" or key not in dose}
        if found["interventions.sites"] == ["all"]:
            found["interventions.sites"] = EVERY_SITE
    return found | {key: study[key] for key in RUN_KEYS} | {"judges": cell["judge"]}


def _spec(study: Facts, checkpoint: str, name: str | None) -> str:
    """A prompt format as the study wrote it, from its short name."""
    specs = study["checkpoints"][checkpoint]["prompts"]
    return next(str(spec) for spec in specs if (spec if spec in study["prompts"] else format_name(spec)) == name)


def _same(value: Any) -> list[Any]:
    """A value and a list of it are the same setting, and the order of a list does not matter."""
    return sorted(value) if isinstance(value, list) else [value]


def _doses(rates: Sequence[PublishedRate]) -> str:
    """The coefficients of a publication; where they differ, with whose direction and on which instructions."""
    added = [rate for rate in rates if rate.coefficient is not None]
    if len({rate.coefficient for rate in added}) == 1:
        return in_words(added[0].coefficient)
    groups: dict[tuple[float | None, str | None], list[str]] = {}
    for rate in added:
        groups.setdefault((rate.coefficient, rate.source), []).append(rate.instructions)
    return "; ".join(f"{in_words(dose)} ({source}, {' and '.join(sets)})" for (dose, source), sets in groups.items())
