"""The page of a run: one HTML file with all its styles, scripts, figures and completions. It loads nothing from a network.

The completions of a large run are in a file beside it; see `completions_file`.

Everything that comes from a study or a model is either escaped by the template, or stored as JSON that the page shows as plain
text. As a second protection, a content security policy allows only the page's own script and Plotly, by their hashes.
"""

import gzip
import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from pydantic import JsonValue

from demur.analysis.cell_phrases import named
from demur.analysis.diff.finding import Finding
from demur.analysis.summary import Summary
from demur.core import number_format
from demur.core.nested import flatten
from demur.core.number_format import tied
from demur.report import published_tables, result_tables
from demur.report.cell_view import Entry, LabelShares
from demur.report.draw_plotly import interactive
from demur.report.label_shares import label_names, labelled, readable_labels
from demur.report.large_runs.completions_file import StoredCompletions
from demur.report.outcomes.hypothesis_rows import hypotheses_left_out, hypothesis_rows
from demur.report.outcomes.refusal_likelihood import likelihoods_in_words
from demur.report.page_figures import Grid, Panel, panel
from demur.report.payload import script_json
from demur.report.plotly_base import DARK
from demur.report.sections.control_pools import Spread, folded, pool_shares
from demur.report.sections.section import MadeSection, ReportView

if TYPE_CHECKING:
    import pandas

_HERE = Path(__file__).parent
_ASSETS = _HERE / "assets"
_PLOTLY = _HERE / "vendor" / "plotly-cartesian-4.1.1.min.js.gz"
"""Plotly.js without 3D figures, as published, but compressed to a third of its size. This also hides the web addresses in it."""

_SCRIPTS = ("packed.js", "page.js", "address.js", "rows.js", "elements.js", "completions.js")
"""The page's own script, in this order."""

_PARTS = ("answer", "rates", "transfer", "where")
"""The parts that have a fixed place on the page. Sections can add further parts."""


_MOST_ROWS = 40
"""A table of kinds of answers with more rows is folded."""

_MOST_CLAIMS = 200
"""The page has the first claims of a run, which are those that are shown; `summary.json` has all."""


@dataclass(frozen=True)
class PagePart:
    """The figures and tables of the sections in one part of the page."""

    anchor: str
    title: str
    figures: tuple[Panel, ...]
    tables: tuple[Grid, ...]


def _template() -> Template:
    made = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["tied"] = tied
    return made.get_template("page.html.jinja")


def render(view: ReportView, made: Sequence[MadeSection], completions: StoredCompletions, files: Sequence[str]) -> str:
    """The whole page.

    Args:
        view: the run.
        made: the figures and tables of each section.
        completions: the completions as they are written.
        files: names of the figures and tables that the report writes, such as `figures/rates`. The page lists them, so that the
            next report can remove those that it does not write itself.

    Returns:
        The text of `report.html`.
    """
    summary = view.summary
    effects = [claim for claim in view.summary.claims if claim.about != "hypothesis"]
    script = Markup("\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS))
    template = _template()
    compressed = _PLOTLY.read_bytes()
    parts = _parts(made)
    return template.render(
        study=summary.study,
        created=_moment(summary.created),
        question=_question(summary),
        answers=summary.answers,
        likelihoods=likelihoods_in_words(summary),
        changed=_by_pair(summary.changed),
        hypotheses=hypothesis_rows(summary, view.entries),
        more_hypotheses=hypotheses_left_out(summary),
        claims=effects[:_MOST_CLAIMS],
        more_claims=len(effects[_MOST_CLAIMS:]),
        warnings=summary.warnings,
        judges=view.judges,
        style=Markup((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=script,
        script_hashes=[_hash(script.encode()), _hash(gzip.decompress(compressed))],
        plotly=b64encode(compressed).decode(),
        plotly_licence=(_PLOTLY.parent / "LICENSE-plotly.txt").read_text(encoding="utf-8"),
        checkpoints=_checkpoints(summary),
        **{name: parts[name] for name in _PARTS},
        further=[part for name, part in parts.items() if name not in _PARTS],
        by_layer=summary.by_layer,
        held_out=_held_out(summary),
        published=_published(summary),
        departing=list(dict.fromkeys(each.setting for each in published_tables.departures(summary))),
        works=list(dict.fromkeys(row.work for row in summary.published)),
        verdicts=published_tables.verdicts(summary),
        results=replace(
            _grid("Every cell under every judge", result_tables.readable_results(view.all_entries)),
            stacks=_stacks(view.all_entries),
        ),
        labels=_labels(view),
        most_rows=_MOST_ROWS,
        completions=completions,
        data=Markup(completions.inside),
        figures=Markup(script_json(_interactive(made))),
        files=files,
        method=_method(summary),
        version=(summary.versions or {}).get("demur", ""),
    )


def _parts(made: Sequence[MadeSection]) -> dict[str, PagePart]:
    """The parts of the page. Their figures are numbered from 1 across the whole page."""
    parts: dict[str, PagePart] = {}
    number = 0
    for name in dict.fromkeys((*_PARTS, *(section.part for section in made))):
        figures, tables = [], []
        for section in made:
            if section.part != name:
                continue
            for figure in section.figures:
                number += 1
                figures.append(panel(figure, number))
            tables += [Grid.of(table.caption, table.readable, table.numeric) for table in section.tables if table.on_page]
        if name in _PARTS or figures or tables:
            anchor = name if name in _PARTS else f"part-{len(parts)}-" + re.sub(r"\W+", "-", name).strip("-").lower()
            parts[name] = PagePart(anchor, name, tuple(figures), tuple(tables))
    return parts


def _interactive(made: Sequence[MadeSection]) -> dict[str, object]:
    figures = [asdict(interactive(figure)) for section in made for figure in section.figures]
    return {"dark": DARK, "figures": figures}


def _hash(script: bytes) -> str:
    return b64encode(hashlib.sha256(script).digest()).decode()


def _moment(written: str | None) -> str:
    """A moment in UTC as a reader writes it: `2026-11-30 04:55 UTC`. Anything else is left as it is."""
    utc = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):.*(Z|\+00:00)", written or "")
    return f"{utc[1]} {utc[2]} UTC" if utc else written or ""


def _question(summary: Summary) -> str:
    """The question of the study, computed from its edits, in the order of the study."""
    names = [named(name) for name in summary.checkpoints]
    said = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    ways = list(dict.fromkeys(summary.edits[cell.action].moved for cell in summary.cells if cell.edited))
    moved = f", and what does the refusal direction of each do when it is {' or '.join(ways)}" if ways else ""
    whom = (" each of them" if len(names) > 1 else " it") if ways else ""
    sets = " and ".join(
        f"{each.n} {label} instructions ({each.source}, {each.split} split)" for label, each in summary.instructions.items()
    )
    return f"How often do{'es' if len(names) == 1 else ''} {said} refuse{moved}{whom}? Measured with {sets}."


def _by_pair(found: Sequence[Finding]) -> dict[str, list[Finding]]:
    """The steps of the argument about each pair of checkpoints."""
    pairs: dict[str, list[Finding]] = {}
    for one in found:
        pairs.setdefault(one.subject, []).append(one)
    return pairs


def _held_out(summary: Summary) -> str:
    sets = summary.instructions
    parts = list(dict.fromkeys(each.split for each in sets.values()))
    counts = ", ".join(f"{each.n} {label}" for label, each in sets.items())
    return f"the {' and '.join(parts)} split ({counts})"


def _grid(caption: str, frame: "pandas.DataFrame") -> Grid:
    return Grid.of(caption, frame)


def _labels(view: ReportView) -> Grid | None:
    """The kinds of answers beside the refusal rate of each cell. The shares are stacked bars; the files have them as columns."""
    chosen = labelled(view.summary, view.all_entries)
    if not chosen:
        return None
    caption = f"Share of each label of the judge {', '.join(dict.fromkeys(entry.judge for entry in chosen))}"
    frame = readable_labels(view.summary, chosen).drop(columns=label_names(view.summary, chosen))
    rates, refused = {entry.key: entry for entry in view.entries}, f"Refused ({view.judge})"
    frame[refused] = [_refused([rates[entry.key] for entry in pool if entry.key in rates]) for pool in folded(chosen)]
    return replace(_grid(caption, frame), numeric=frozenset({"n", refused}), stacks=_stacks(chosen))


def _refused(pool: Sequence[Entry]) -> str:
    """The refusal rate of a row: with its interval, or for many controls the median and the range."""
    if len(pool) > 1:
        return str(Spread.of(pool))
    return number_format.estimate(pool[0].rate, pool[0].interval, pool[0].n) if pool else ""


def _stacks(found: Sequence[Entry]) -> tuple[LabelShares | None, ...]:
    """The kinds of answers of each row of a table of entries; nothing if no judge has more than two labels."""
    return tuple(map(pool_shares, folded(found))) if any(entry.shares for entry in found) else ()


def _published(summary: Summary) -> list[Grid]:
    """Published rates with measured ones, settings that differ, and settings in which the published text and code differ."""
    if not summary.published:
        return []
    grids = [
        _grid("Published and measured rates", published_tables.readable_published(summary)),
        _grid("Settings of this run that differ from the published ones", published_tables.readable_departures(summary)),
        _grid("Settings where the published text and code differ", published_tables.readable_text_and_code(summary)),
    ]
    return [grid for grid in grids if grid.rows]


def _plain(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Grid:
    return Grid(caption, tuple(columns), tuple(tuple("" if value is None else str(value) for value in row) for row in rows))


def _checkpoints(summary: Summary) -> Grid:
    rows = [
        (
            name,
            each.role,
            each.model,
            each.adapter,
            " and ".join(filter(None, (each.quantised, each.dtype))),
            each.device,
            each.fingerprint,
        )
        for name, each in summary.checkpoints.items()
    ]
    return _plain("Checkpoints", ("Name", "Role", "Model", "Adapter", "Precision", "Device", "Fingerprint"), rows)


def _method(summary: Summary) -> list[Grid]:
    """Settings and provenance as tables. A table without rows is left out."""
    sets = [
        (name, each.source, each.split, each.n, each.sha256, each.train_n, each.train_sha256)
        for name, each in summary.instructions.items()
    ]
    # A template or token is quoted, so that its line breaks and spaces can be seen.
    arms = [(arm.checkpoint, arm.prompt, _quoted(arm.template), _quoted(arm.token_read)) for arm in summary.arms]
    facts = {} if summary.environment is None else summary.environment.model_dump(mode="json")
    environment = [(name, value.strip('"')) for name, value in _settings(facts)]
    rules = [(f"rules of the judge {name}", f"version {version}") for name, version in summary.judges.items()]
    versions = [*(summary.versions or {}).items(), *rules, *environment]
    # Published rates affect no result, and have a separate section.
    settings = {name: value for name, value in summary.study.items() if name != "published"}
    grids = [
        _plain("Instruction sets", ("Set", "Source", "Split", "n", "Hash", "Training n", "Training hash"), sets),
        _plain(
            "Prompt formats, and the token at which activations are read",
            ("Checkpoint", "Format", "Template", "Token read"),
            arms,
        ),
        _grid("Directions", result_tables.readable_directions(summary)),
        _plain("Settings of the study, defaults included", ("Setting", "Value"), _settings(settings)),
        _plain("Versions and environment", ("Name", "Value"), versions),
    ]
    return [grid for grid in grids if grid.rows]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _settings(table: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    """Nested settings as dotted names and values, in the order of the file."""
    flat = flatten(table, index="[{}]", keep_empty=True)
    return [(name, "not set" if value is None else json.dumps(value, ensure_ascii=False)) for name, value in flat.items()]
