"""The page of a run: one HTML file with its styles, scripts, figures and completions inside, that asks nothing of any network.

Everything that comes from a study or a model is escaped by the template, or travels as inert JSON and is shown as text only.
A content security policy allows the page's own script and Plotly by their hashes and no other, should an escape be forgotten.
"""

import gzip
import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from demur.core.number_format import tied
from demur.report import published_tables, tables
from demur.report.cell_view import Entry
from demur.report.figures import Drawing
from demur.report.label_shares import label_names, labelled, readable_labels
from demur.report.page_figures import Grid, panels
from demur.report.payload import script_json
from demur.report.plotly_base import DARK, Interactive
from demur.report.transfer_matrix import Matrix

if TYPE_CHECKING:
    import pandas

_HERE = Path(__file__).parent
_ASSETS = _HERE / "assets"


_PLOTLY = _HERE / "vendor" / "plotly-cartesian-4.1.1.min.js.gz"
"""Plotly.js for flat figures, as published and packed: a third of its size, and no address stands in the page to be followed."""
_SECTIONS = {
    "rates": ("rates", "added", "ablated"),
    "transfer": ("transfer",),
    "where": ("cosines-by-layer", "separation", "norms", "projections", "cosines"),
}


def render(
    summary: Mapping[str, Any],
    found: Sequence[Entry],
    judges: Sequence[str],
    drawings: Sequence[tuple[Drawing, bytes]],
    live: Sequence[Interactive],
    matrices: Sequence[Matrix],
    data: Mapping[str, Any],
) -> str:
    """The whole page.

    `found` are the entries of all judges, `drawings` come with their SVGs, `live` are the same for Plotly, `data` is the payload.
    """
    script = Markup("\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in ("page.js", "rows.js", "completions.js")))
    study = summary["study"]
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["tied"] = tied
    packed = _PLOTLY.read_bytes()
    shown = panels(_SECTIONS, summary, drawings, live, matrices, judges[0])
    return environment.get_template("page.html.jinja").render(
        study=study,
        created=summary["created"],
        question=_question(summary),
        answers=summary.get("answers", []),
        claims=summary.get("claims", []),
        warnings=summary.get("warnings", []),
        judges=judges,
        style=Markup((_ASSETS / "page.css").read_text(encoding="utf-8")),
        script=script,
        script_hashes=[_hash(script.encode()), _hash(gzip.decompress(packed))],
        plotly=b64encode(packed).decode(),
        plotly_licence=(_PLOTLY.parent / "LICENSE-plotly.txt").read_text(encoding="utf-8"),
        checkpoints=_checkpoints(summary),
        **shown,
        by_layer=summary.get("by_layer"),
        held_out=_held_out(summary),
        published=_published(summary),
        departing=list(dict.fromkeys(each.setting for each in published_tables.departures(summary))),
        works=list(dict.fromkeys(row["work"] for row in summary.get("published", []))),
        verdicts=published_tables.verdicts(summary),
        results=_grid("Every cell under every judge", tables.readable_results(found)),
        labels=_labels(found),
        data=Markup(script_json(data)),
        figures=Markup(script_json({"dark": DARK, "figures": [asdict(one) for one in live]})),
        n_completions=sum(len(cell["rows"]["text"]) for cell in data["cells"]),
        method=_method(summary),
        version=summary.get("versions", {}).get("demur", ""),
    )


def _hash(script: bytes) -> str:
    return b64encode(hashlib.sha256(script).digest()).decode()


def _question(summary: Mapping[str, Any]) -> str:
    """What the study asks, from what it does."""
    names = list(summary["checkpoints"])
    said = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    done = {cell["intervention"] for cell in summary["cells"]}
    ways = [way for kind, way in (("ablate", "ablated from"), ("add", "added to")) if kind in done]
    moved = f", and what does the refusal direction of each do when it is {' or '.join(ways)}" if ways else ""
    whom = (" each of them" if len(names) > 1 else " it") if ways else ""
    sets = " and ".join(
        f"{each.get('n')} {label} instructions ({each.get('source')}, {each.get('split')} split)"
        for label, each in summary["instructions"].items()
    )
    return f"How often do{'es' if len(names) == 1 else ''} {said} refuse{moved}{whom}? Asked with {sets}."


def _held_out(summary: Mapping[str, Any]) -> str:
    sets = summary["instructions"]
    parts = list(dict.fromkeys(str(each.get("split")) for each in sets.values()))
    counts = ", ".join(f"{each.get('n')} {label}" for label, each in sets.items())
    return f"the {' and '.join(parts)} split ({counts})"


def _grid(caption: str, frame: "pandas.DataFrame") -> Grid:
    return Grid.of(caption, frame)


def _labels(found: Sequence[Entry]) -> Grid | None:
    chosen = labelled(found)
    if not chosen:
        return None
    caption = f"Share of each label of the judge {', '.join(dict.fromkeys(entry.judge for entry in chosen))}"
    grid = _grid(caption, readable_labels(chosen))
    return replace(grid, numeric=frozenset({"n", *label_names(chosen)}))


def _published(summary: Mapping[str, Any]) -> list[Grid]:
    """Published rates beside measured ones, where the run departs, and where the published text and code part."""
    if not summary.get("published"):
        return []
    grids = [
        _grid("Published beside measured", published_tables.readable_published(summary)),
        _grid("Settings in which this run departs from the published ones", published_tables.readable_departures(summary)),
        _grid("Settings in which the published text and code part", published_tables.readable_text_and_code(summary)),
    ]
    return [grid for grid in grids if grid.rows]


def _plain(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Grid:
    return Grid(caption, tuple(columns), tuple(tuple("" if value is None else str(value) for value in row) for row in rows))


def _checkpoints(summary: Mapping[str, Any]) -> Grid:
    rows = [
        (
            name,
            each.get("role"),
            each.get("model"),
            each.get("adapter"),
            " and ".join(filter(None, (each.get("quantised"), each.get("dtype")))),
            each.get("device"),
            each.get("fingerprint"),
        )
        for name, each in summary["checkpoints"].items()
    ]
    return _plain("Checkpoints", ("Name", "Role", "Model", "Adapter", "Precision", "Device", "Fingerprint"), rows)


def _method(summary: Mapping[str, Any]) -> list[Grid]:
    """Settings and provenance as tables. What a summary does not hold is left out."""
    sets = [
        (name, *_of(each, "source", "split", "n", "sha256", "train_n", "train_sha256"))
        for name, each in summary["instructions"].items()
    ]
    arms = [_of(arm, "checkpoint", "prompt", "template", "token_read") for arm in summary.get("arms", [])]
    environment = [(name, value.strip('"')) for name, value in _flat(summary.get("environment", {}))]
    rules = [(f"rules of the judge {name}", f"version {version}") for name, version in summary.get("judges", {}).items()]
    versions = [*summary.get("versions", {}).items(), *rules, *environment]
    # Published figures decide about nothing, and have a section of their own.
    settings = {name: value for name, value in summary["study"].items() if name != "published"}
    grids = [
        _plain("Instruction sets", ("Set", "Source", "Split", "n", "Hash", "n to train", "Hash of these"), sets),
        _plain(
            "Prompt formats, and the token at which activations are read",
            ("Checkpoint", "Format", "Template", "Token read"),
            arms,
        ),
        _grid("Directions", tables.readable_directions(summary)),
        _plain("Settings of the study, defaults included", ("Setting", "Value"), _flat(settings)),
        _plain("Versions and environment", ("Name", "Value"), versions),
    ]
    return [grid for grid in grids if grid.rows]


def _of(each: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    """Some values of a record; a template or token is quoted, so that its line breaks and spaces can be seen."""
    return tuple(
        json.dumps(each[name], ensure_ascii=False)
        if name in ("template", "token_read") and each.get(name) is not None
        else each.get(name)
        for name in names
    )


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and values, in the order of the file."""
    if isinstance(value, Mapping) and value:
        return [line for key, inner in value.items() for line in _flat(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        return [line for index, inner in enumerate(value) for line in _flat(inner, f"{path}[{index}]")]
    return [(path, "not set" if value is None else json.dumps(value, ensure_ascii=False, default=str))]
