"""The files in `figures/`. A figure is drawn only if what it shows has changed, because drawing takes most of a report's time.

`figures/drawn.json` says what each file shows: a digest of the figure's content and of the code that drew it, and a digest of the
file. A file that is missing, that someone changed, or that shows something else is drawn again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path

from demur.core.atomic_files import replace_file
from demur.core.inner_files import inner_file
from demur.core.progress import Phases, no_phases
from demur.report import style
from demur.report.figure_spec import Sheet
from demur.report.large_runs.paused_collection import collection_paused

RECORD = "figures/drawn.json"
_MOST_BYTES = 1 << 26
"""No file that demur draws is larger. A sender of the folder may have put anything there."""

_ONLY_ON_THE_PAGE = {"tip", "notes", "detail", "instruction", "selects"}
"""Attributes of figure contents that `draw_static` does not draw. A change of these redraws nothing."""

_DRAWING_CODE = ("draw_static.py", "style.py", "figure_contents.py")


@dataclass(frozen=True)
class DrawnPicture:
    """What the files of one figure show.

    Attributes:
        shows: digest of the figure's content and of the code that drew it.
        files: digest of each file, by its ending.
    """

    shows: str
    files: Mapping[str, str] = field(default_factory=dict)


def picture_paths(folder: Path, names: Iterable[str]) -> list[Path]:
    """The files of figures in a run folder.

    Raises:
        InputError: if an entry of the folder leads out of it.
    """
    return [inner_file(folder, f"figures/{name}.{kind}") for name in names for kind in style.KINDS]


def out_of_date(folder: Path, sheets: Sequence[Sheet]) -> list[Sheet]:
    """The figures whose files are missing or show something else.

    Args:
        folder: the run folder.
        sheets: all figures of the report.

    Returns:
        Those that have to be drawn.

    Raises:
        InputError: if an entry of the folder leads out of it.
    """
    drawn, code = _record(folder), _code_digest()
    return [sheet for sheet in sheets if not _is_current(folder, sheet, drawn.get(sheet.name), code)]


def update_pictures(folder: Path, sheets: Sequence[Sheet], *, every: bool = False, phases: Phases = no_phases) -> None:
    """Draw the figures whose files are missing or out of date.

    Args:
        folder: the run folder.
        sheets: all figures of the report.
        every: whether to draw also those whose files show what they should.
        phases: shows progress.

    Raises:
        InputError: if an entry of the folder leads out of it, or cannot be written.
    """
    wanted = sheets if every else out_of_date(folder, sheets)
    if wanted:
        with phases("figures", len(wanted)) as progress:
            draw_pictures(folder, wanted, [sheet.name for sheet in sheets], progress)


def draw_pictures(
    folder: Path, sheets: Sequence[Sheet], keep: Iterable[str], progress: Callable[[int], object] = lambda _: None
) -> None:
    """Draw figures and write their files.

    Args:
        folder: the run folder.
        sheets: the figures to draw.
        keep: the names of all figures of the report, drawn now or earlier.
        progress: called with 1 after each figure.

    Raises:
        InputError: if an entry of the folder leads out of it, or cannot be written.
    """
    from demur.report.draw_static import draw

    if not sheets:
        return
    drawn, code = _record(folder), _code_digest()
    drawn = {name: drawn[name] for name in keep if name in drawn}
    try:
        for sheet in sheets:
            drawn.pop(sheet.name, None)
            with collection_paused():  # a figure consists of many objects, which live until it is written
                figure, files = draw(sheet.content), {}
                for path in picture_paths(folder, [sheet.name]):
                    content = style.save(figure, path.suffix[1:])
                    replace_file(path, content)
                    files[path.suffix[1:]] = hashlib.sha256(content).hexdigest()
            drawn[sheet.name] = DrawnPicture(_shown(sheet, code), files)
            progress(1)
    finally:
        pictures = {name: asdict(one) for name, one in sorted(drawn.items())}
        replace_file(inner_file(folder, RECORD), json.dumps({"pictures": pictures}, indent=1) + "\n")


def _is_current(folder: Path, sheet: Sheet, drawn: DrawnPicture | None, code: str) -> bool:
    paths = picture_paths(folder, [sheet.name])
    if drawn is None or drawn.shows != _shown(sheet, code):
        return False
    return all(path.is_file() and _file_digest(path) == drawn.files.get(path.suffix[1:]) for path in paths)


def _file_digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.stat().st_size <= _MOST_BYTES else None


def _record(folder: Path) -> dict[str, DrawnPicture]:
    """What the folder says about its figures; nothing if the record is missing or is not one that demur wrote."""
    path = inner_file(folder, RECORD)
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return {}
    try:
        pictures = json.loads(path.read_bytes())["pictures"]
        return {str(name): DrawnPicture(str(one["shows"]), dict(one["files"])) for name, one in pictures.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _shown(sheet: Sheet, code: str) -> str:
    """The digest of what a figure shows and of how it is drawn."""
    return hashlib.sha256(json.dumps([code, _plain(sheet.content)]).encode()).hexdigest()


def _plain(value: object) -> object:
    """A content as JSON that is the same in every process: records by the names of their attributes, sets in order."""
    if is_dataclass(value):
        shown = [one.name for one in fields(value) if one.name not in _ONLY_ON_THE_PAGE]
        return [type(value).__name__, {name: _plain(getattr(value, name)) for name in shown}]
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _code_digest() -> str:
    """The digest of the code that draws: other code may draw the same content in another way."""
    here = Path(__file__).parents[1]
    parts = [(here / name).read_bytes() for name in _DRAWING_CODE]
    return hashlib.sha256(b"\0".join([*parts, version("matplotlib").encode()])).hexdigest()
