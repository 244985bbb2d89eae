"""The page of a run: one HTML file with its styles, script, figures and completions inside, that asks nothing of any network.

Everything that comes from a study or a model is escaped by the template, or travels as inert JSON and is shown as text only.
A content security policy allows the page's own script by its hash and no other, should an escape ever be forgotten.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from demur.report import beside, tables, words
from demur.report.entries import BASELINE, Entry, direction_labels
from demur.report.figures import Drawing
from demur.report.labels import label_names, labelled, readable_labels
from demur.report.payload import payload, script_json
from demur.report.style import diverging, shade
from demur.report.transfer import Matrix

if TYPE_CHECKING:
    import pandas

_HERE = Path(__file__).parent
_NUMERIC = frozenset({"n", "refusals", "rate", "layer", "coefficient"})


@dataclass(frozen=True)
class Grid:
    """A table of the page: texts row by row, the first column as row headers, with the names of columns that are numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tile:
    """A cell of a coloured matrix: what stands in it, in small print below, and its colour."""

    text: str
    detail: str
    fill: str


@dataclass(frozen=True)
class Figure:
    """A drawing with its SVG ready to stand inside the page."""

    drawing: Drawing
    svg: Markup
    data: Grid
    width: float


def render(
    summary: Mapping[str, Any],
    found: Sequence[Entry],
    judges: Sequence[str],
    drawings: Sequence[tuple[Drawing, bytes]],
    matrices: Sequence[Matrix],
    completions: "pandas.DataFrame",
) -> str:
    """The whole page. `found` are the entries of all judges, `drawings` come with their SVG files."""
    first = [entry for entry in found if entry.judge == judges[0]]
    script = Markup((_HERE / "page.js").read_text(encoding="utf-8"))
    study = summary["study"]
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja").render(
        study=study,
        created=summary["created"],
        claims=summary.get("claims", []),
        warnings=summary.get("warnings", []),
        judges=judges,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        checkpoints=_checkpoints(summary),
        figures=[_figure(drawing, svg) for drawing, svg in drawings],
        matrices=[_tiles(matrix) for matrix in matrices],
        cosines=_cosine_tiles(summary),
        published=_published(summary),
        departing=list(dict.fromkeys(each.setting for each in beside.departures(summary))),
        works=list(dict.fromkeys(row["work"] for row in summary.get("published", []))),
        verdicts=beside.verdicts(summary),
        results=_grid("Every cell under every judge", tables.readable_results(found)),
        labels=_labels(found),
        data=Markup(script_json(payload(str(study["name"]), first, judges, completions))),
        n_completions=len(completions),
        method=_method(summary),
        version=summary.get("versions", {}).get("demur", ""),
    )


def _grid(caption: str, frame: "pandas.DataFrame") -> Grid:
    rows = tuple(tuple(str(value) for value in row) for row in frame.itertuples(index=False, name=None))
    return Grid(caption, tuple(str(name) for name in frame.columns), rows, tables.NUMERIC | _NUMERIC)


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
        _grid("Published beside measured", beside.readable_published(summary)),
        _grid("Settings in which this run departs from the published ones", beside.readable_departures(summary)),
        _grid("Settings in which the published text and code part", beside.readable_text_and_code(summary)),
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
            each.get("dtype"),
            each.get("device"),
            each.get("fingerprint"),
        )
        for name, each in summary["checkpoints"].items()
    ]
    return _plain("Checkpoints", ("Name", "Role", "Model", "Adapter", "Precision", "Device", "Fingerprint"), rows)


def _figure(drawing: Drawing, svg: bytes) -> Figure:
    """Ids get the figure's name in front, so that several figures can share a document; what only a file needs is cut off."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", drawing.name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'<svg\b(.*?)\swidth="([\d.]+)pt"', r"<svg\1", text, count=1, flags=re.DOTALL)
    text = re.sub(
        r'<svg\b(.*?)\sheight="([\d.]+)pt"', r'<svg aria-hidden="true" focusable="false"\1', text, count=1, flags=re.DOTALL
    )
    data = _grid(f"Numbers of: {drawing.title}", _readable_data(drawing))
    return Figure(drawing, Markup(text), data, float(drawing.figure.get_size_inches()[0]))


def _readable_data(drawing: Drawing) -> "pandas.DataFrame":
    frame = drawing.data
    if "rate" not in frame.columns:
        return frame.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value)
    shown = frame[["target", "instructions", "intervention", "source", "layer", "coefficient", "n", "refusals"]].astype(object)
    shown = shown.where(shown.notna(), "")
    shown["source"] = shown["source"].where(shown["intervention"] != "none", BASELINE)
    shown["coefficient"] = [f"{value:g}" if value != "" else "" for value in shown["coefficient"]]
    shown["rate"] = [f"{100 * rate:.1f} %" for rate in frame["rate"]]
    shown["95 % interval"] = [words.interval(bounds) for bounds in zip(frame["ci_low"], frame["ci_high"], strict=True)]
    if "published" in frame.columns:
        shown["published"] = frame["published"]
    return shown


def _tiles(matrix: Matrix) -> dict[str, Any]:
    def tile(entry: Entry | None) -> Tile | None:
        if entry is None:
            return None
        return Tile(words.percent(entry.rate, entry.n), f"{words.interval(entry.interval, 0)}, n = {entry.n}", shade(entry.rate))

    rows = [
        (row, row in matrix.controls, [tile(matrix.cells.get((row, column))) for column in matrix.columns]) for row in matrix.rows
    ]
    return {"title": matrix.title, "corner": "Direction from", "columns": matrix.columns, "rows": rows}


def _cosine_tiles(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    names = summary.get("cosines", {}).get("names", [])
    if not 1 < len(names) <= 24:
        return None
    labels = direction_labels(summary)
    shown = [labels.get(name, name) for name in names]

    def tile(value: float) -> Tile:
        return Tile(f"{value:.2f}".replace("-", words.MINUS), "", diverging(value))

    rows = [
        (name, False, [tile(float(value)) for value in row])
        for name, row in zip(shown, summary["cosines"]["matrix"], strict=True)
    ]
    return {"title": "Cosines between the directions", "corner": "Direction", "columns": shown, "rows": rows}


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
