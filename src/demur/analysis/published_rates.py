"""Compares published rates with measured ones: finds the cell for each published rate and tests whether the rates differ.

A rate counts as measured under the published settings only if every setting that its cell depends on was published with the
same value. Settings that differ and settings that were not stated are listed. The tests are not paired, because counts were
published, not verdicts. Pure functions of typed records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from demur.analysis.cell import JudgedCell
from demur.analysis.manifest import DirectionFacts, Settings
from demur.analysis.study_facts import StudyFacts
from demur.analysis.summary import Departure, Figure, PublishedRow, TextAndCode
from demur.core.nested import flatten
from demur.core.statistics import LEVEL, fisher, wilson
from demur.inputs.format_names import earlier_name
from demur.study.published_spec import DIRECTION_KEYS, EDIT_KEYS, RUN_KEYS, Publication, PublishedRate

SAME, DEPARTS, UNSTATED = "as published", "depart", "not all stated"
"""How a table describes the settings of a measured cell, compared with those of the published rate."""

EVERY_SITE = ("resid_pre", "resid_mid", "resid_post")

_UNUSED = ("adapter", "revision", "quantise")
"""Keys of a checkpoint. A publication that does not name them did not use them."""

_DOSE = ("unit", "coefficient")
"""Keys of an edit that matter only for edits with a coefficient."""


def published_rows(study: Settings, cells: Sequence[JudgedCell], directions: Sequence[DirectionFacts]) -> list[PublishedRow]:
    """Find the measured cell for each published rate of a study.

    A row has both rates with Wilson intervals, their difference, and Fisher's exact test. It names the settings that differ from
    the published ones and those that were not stated. `measured` is None if no cell fits, or if several fit equally well;
    `reason` says which. If settings and n are the same, `verdicts_changed_at_least` is the difference of the counts: greedy
    decoding has no randomness, so at least that many verdicts differ.

    Args:
        study: the study as plain data.
        cells: the judged cells of a run.
        directions: the directions of the run.

    Returns:
        One row for each published rate, in the study's order; none if the study has no publications.
    """
    facts = StudyFacts.of(study)
    read_under = {each.name: each.prompt for each in directions}
    return [_row(publication, rate, facts, cells, read_under) for publication in facts.published for rate in publication.rates]


def text_and_code(study: Settings) -> list[TextAndCode]:
    """The settings where a publication's text and code differ, or where the text says nothing, in words.

    Args:
        study: the study as plain data.

    Returns:
        One entry for each setting, in the order of the publications.
    """
    found = []
    for publication in StudyFacts.of(study).published:
        settings = flatten(publication.settings)
        for key, text in flatten(publication.text).items():
            code = _doses(publication.rates) if key == "interventions.coefficient" else in_words(settings.get(key, "not stated"))
            found.append(TextAndCode(work=publication.work, setting=key, text=str(text), code=code))
    return found


def in_words(value: JsonValue) -> str:
    """A setting's value as `--set` would write it."""
    if value is None:
        return "not set"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _Fit:
    """A measured cell that may correspond to a published rate, with the settings that differ and those that were not stated."""

    cell: JudgedCell
    departures: tuple[Departure, ...]
    not_stated: tuple[str, ...]

    @property
    def settings(self) -> str:
        return DEPARTS if self.departures else UNSTATED if self.not_stated else SAME


def _row(
    publication: Publication,
    rate: PublishedRate,
    study: StudyFacts,
    cells: Sequence[JudgedCell],
    read_under: Mapping[str, str | None],
) -> PublishedRow:
    row = PublishedRow(
        work=publication.work,
        target=rate.target,
        prompt=rate.prompt,
        instructions=rate.instructions,
        intervention=rate.intervention,
        source=rate.source,
        coefficient=rate.coefficient,
        note=rate.note,
        published=_figure(rate.refusals, rate.n, rate.rate),
    )
    fits = _fitting(rate, _stated(publication, rate), study, cells, read_under)
    if len(fits) != 1:
        tied = ", ".join(fit.cell.key for fit in fits)
        return _with(row, reason=f"{len(fits)} cells fit equally: {tied}" if fits else "no such cell in this run")
    return _measured(row, rate, fits[0])


def _measured(row: PublishedRow, rate: PublishedRate, fit: _Fit) -> PublishedRow:
    """A row with its measured cell, and with a test if n was published."""
    cell = fit.cell
    found = _with(
        row,
        key=cell.key,
        judge=cell.judge,
        prompt=cell.prompt,
        measured=_figure(cell.refusals, cell.n, None),
        difference=None if row.published.rate is None else cell.refusals / cell.n - row.published.rate,
        settings=fit.settings,
        departures=fit.departures,
        not_stated=fit.not_stated,
    )
    if rate.refusals is None or rate.n is None:
        return _with(found, reason="published without n, so there is no interval and no test")
    p = fisher(rate.refusals, rate.n, cell.refusals, cell.n)
    alike = fit.settings == SAME and rate.n == cell.n
    changed = abs(cell.refusals - rate.refusals) if alike else None
    return _with(found, p_value=p, differs=p < LEVEL, verdicts_changed_at_least=changed)


def _with(row: PublishedRow, **changes: object) -> PublishedRow:
    return row.model_copy(update=changes)


def _figure(refusals: int | None, n: int | None, rate: float | None) -> Figure:
    if refusals is None or n is None:
        return Figure(rate=rate)
    return Figure(n=n, refusals=refusals, rate=refusals / n, ci95=wilson(refusals, n))


def _fitting(
    rate: PublishedRate,
    stated: Mapping[str, JsonValue],
    study: StudyFacts,
    cells: Sequence[JudgedCell],
    read_under: Mapping[str, str | None],
) -> list[_Fit]:
    """The cells of the same target, instructions, edit and source that differ in the fewest settings: several if they tie."""
    named = [judge for judge in _listed(stated.get("judges"))[:1] if judge in {cell.judge for cell in cells}]
    wanted = named[0] if named else study.judges[0]
    fits = []
    for cell in cells:
        about = (cell.target, cell.instructions, cell.intervention, cell.source, cell.judge)
        if about != (rate.target, rate.instructions, rate.intervention, rate.source, wanted) or cell.control:
            continue
        here = _settings(study, cell, read_under)
        if rate.prompt is not None and _prompt_specs(study, cell, read_under)[rate.target][0] != rate.prompt:
            continue
        # A publication that does not state the text of a prompt used the built-in format.
        known = {key: stated.get(key) for key in here if key in stated or key.startswith("prompts.")}
        departures = tuple(
            Departure(setting=key, published=value, here=here[key])
            for key, value in known.items()
            if _listed(value) != _listed(here[key])
        )
        fits.append(_Fit(cell, departures, tuple(key for key in here if key not in known)))
    fewest = min((len(fit.departures) for fit in fits), default=0)
    return [fit for fit in fits if len(fit.departures) == fewest]


def _stated(publication: Publication, rate: PublishedRate) -> dict[str, JsonValue]:
    """The settings of one published rate, by the study's keys."""
    found = flatten(publication.settings)
    checkpoints = publication.settings.get("checkpoints", {})
    for name in checkpoints if isinstance(checkpoints, dict) else ():
        found = {**dict.fromkeys(f"checkpoints.{name}.{key}" for key in _UNUSED), **found}
    found = {"interventions.layers": None, **found}
    own: dict[str, JsonValue] = {
        f"checkpoints.{rate.target}.prompts": rate.prompt,
        f"instructions.{rate.instructions}.test": rate.n,
        "interventions.coefficient": rate.coefficient,
    }
    return found | {key: value for key, value in own.items() if value is not None}


def _settings(study: StudyFacts, cell: JudgedCell, read_under: Mapping[str, str | None]) -> dict[str, JsonValue]:
    """Every setting that a measured cell depends on, by the study's keys, with its value for this cell."""
    found: dict[str, JsonValue] = {}
    for name, prompts in _prompt_specs(study, cell, read_under).items():
        facts = study.checkpoints[name].model_dump(mode="json")
        found |= {f"checkpoints.{name}.{key}": facts[key] for key in ("model", *_UNUSED)}
        found[f"checkpoints.{name}.prompts"] = list(prompts)
        found |= {f"prompts.{each}": study.prompts[each] for each in prompts if each in study.prompts}
    # A direction was read from instructions of both kinds.
    labels = dict.fromkeys((cell.instructions, *(() if cell.direction is None else ("harmful", "harmless"))))
    found |= {f"instructions.{each}.source": study.instructions[each].source for each in labels}
    found[f"instructions.{cell.instructions}.test"] = cell.n
    if cell.direction is not None:
        read = study.direction.model_dump(mode="json")
        found |= {f"direction.{key}": read[key] for key in DIRECTION_KEYS}
        found["direction.layers"] = cell.layer
    if cell.edited:
        found |= _edit_settings(cell)
    return found | {key: study.setting(key) for key in RUN_KEYS} | {"judges": cell.judge}


def _edit_settings(cell: JudgedCell) -> dict[str, JsonValue]:
    """The settings of a cell's edit, those of its kind included, by the study's keys."""
    sites = EVERY_SITE if cell.sites == ("all",) else cell.sites
    facts = {**cell.model_dump(mode="json"), "sites": None if sites is None else list(sites)}
    keys = [key for key in EDIT_KEYS if cell.coefficient is not None or key not in _DOSE]
    own = {f"interventions.{key}": value for key, value in cell.settings.items()}
    return {f"interventions.{key}": facts[key] for key in keys} | own


def _prompt_specs(study: StudyFacts, cell: JudgedCell, read_under: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
    """The prompt formats of the checkpoints that a cell depends on: the target, and where its direction was read."""
    found: dict[str, tuple[str, ...]] = {cell.target: (_spec(study, cell.target, cell.prompt),)}
    if cell.source is not None:
        prompt = _spec(study, cell.source, read_under[str(cell.direction)])
        found[cell.source] = tuple(dict.fromkeys((*found.get(cell.source, ()), prompt)))
    return found


def _spec(study: StudyFacts, checkpoint: str, name: str | None) -> str:
    """A prompt format as the study wrote it, from its short name."""
    specs = study.checkpoints[checkpoint].prompts
    # A text that is still in the list was stored by an earlier version; now every text has a name in `prompts`.
    return next(spec for spec in specs if (spec if spec in study.prompts else earlier_name(spec)) == name)


def _listed(value: JsonValue) -> list[JsonValue]:
    """A value as a sorted list: a value and a list of it are the same setting, and the order of a list does not matter."""
    return sorted(value, key=str) if isinstance(value, list) else [value]


def _doses(rates: Sequence[PublishedRate]) -> str:
    """The coefficients of a publication. If they differ, each has the source of its direction and its instructions."""
    added = [rate for rate in rates if rate.coefficient is not None]
    if len({rate.coefficient for rate in added}) == 1:
        return in_words(added[0].coefficient)
    groups: dict[tuple[float | None, str | None], list[str]] = {}
    for rate in added:
        groups.setdefault((rate.coefficient, rate.source), []).append(rate.instructions)
    return "; ".join(f"{in_words(dose)} ({source}, {' and '.join(sets)})" for (dose, source), sets in groups.items())
