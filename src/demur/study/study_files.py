"""Reads studies: presets that ship, TOML files, and changes of single keys.

Text becomes plain data here; `spec` checks it and makes a `Study` from it.
"""

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from demur.core.atomic_files import is_file
from demur.core.errors import InputError, nearest
from demur.study.shorthand.written_lists import edit_numbers
from demur.study.spec import Study, make_study


def preset_names() -> tuple[str, ...]:
    """Names of the studies that ship with demur."""
    folder = files("demur.study") / "presets"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def load_study(spec: str | Path, settings: Sequence[str] = ()) -> Study:
    """Load a study. The checkpoints and instructions that it names are not loaded.

    Args:
        spec: the name of a preset, or a TOML file.
        settings: changes of single keys, each KEY=VALUE with dots in KEY; VALUE is read as TOML, or as text where it is not TOML.
            A part of KEY that itself contains a dot is written in quotes, as in TOML: `controls."my.module:Control"=2`.

    Returns:
        The study, with every default written out.

    Raises:
        InputError: for an unknown preset, a missing file, an unknown key, or a value out of range.

    Example:
        >>> import demur
        >>> study = demur.load_study("demo", ["direction.pairs=64", "max_new_tokens=8"])
        >>> study.direction.pairs, study.max_new_tokens
        (64, 8)
        >>> list(study.checkpoints)
        ['before', 'after']
    """
    return make_study(*_data(spec, settings))


def intervention_numbers(spec: str | Path, settings: Sequence[str] = ()) -> tuple[int, ...]:
    """Where each intervention of a loaded study stands in its file; an entry with a list of coefficients gives several.

    Args:
        spec: the name of a preset, or a TOML file.
        settings: changes of single keys, as for `load_study`.

    Returns:
        For each intervention of the study that `load_study` gives, the number of its entry in the file, from 0.

    Raises:
        InputError: as `load_study`.
    """
    return edit_numbers(_data(spec, settings)[0])


def _data(spec: str | Path, settings: Sequence[str]) -> tuple[dict[str, object], str]:
    """The tables of a study as they are written, with changes; and what an error calls the study."""
    if str(spec) in preset_names():
        text, where = (files("demur.study") / "presets" / f"{spec}.toml").read_text(encoding="utf-8"), f"preset {str(spec)!r}"
    else:
        path = Path(spec)
        if not is_file(path):
            hint = f"there is no file {str(spec)!r}" if path.suffix == ".toml" else nearest(str(spec), preset_names())
            raise InputError(f"{str(spec)!r} is neither a preset nor a study file; {hint}")
        try:
            text, where = path.read_text(encoding="utf-8"), f"study {path.name!r}"
        except UnicodeDecodeError as error:
            raise InputError(f"{str(spec)!r} is not UTF-8 text: {error}") from error
    data = _parsed(text, where)
    for setting in settings:
        _set(data, setting)
    return data, where


def as_study(study: Study | str | Path) -> Study:
    """The study that was given, or the one that a preset's name or a TOML file stands for.

    Raises:
        InputError: as `load_study`, and for anything else.
    """
    if isinstance(study, Study):
        return study
    if not isinstance(study, str | Path):
        raise InputError(f"the study is a {type(study).__name__}; expected demur.load_study(...), a preset's name or a TOML file")
    return load_study(study)


def _parsed(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # a number of too many digits is not a TOMLDecodeError
        raise InputError(f"{where} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{where} is not valid TOML: it is nested too deeply") from error


def _set(data: dict[str, object], setting: str) -> None:
    """Change one key, and create missing tables on the way to it."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise InputError(f"{setting!r} is not a setting; expected KEY=VALUE, for example direction.pairs=64")
    value = _value(key, text)
    *path, last = _parts(key, setting)
    here: object = data
    for part in path:
        if isinstance(here, list):
            here = here[_index(part, here, setting)]
        elif isinstance(here, dict):
            here = here.setdefault(part, {})
        if not isinstance(here, dict | list):
            raise InputError(f"{setting!r} sets a key of {part!r}, which is a value and not a table")
    if isinstance(here, list):
        here[_index(last, here, setting)] = value
    elif isinstance(here, dict):
        here[last] = value


def _parts(key: str, setting: str) -> list[str]:
    """The parts of a dotted key. A part in quotes may contain dots."""
    if '"' not in key and "'" not in key:
        parts = key.split(".")
    else:
        try:
            here: object = tomllib.loads(f"{key} = 0")
        except ValueError as error:
            raise InputError(f"the key of {setting!r} cannot be read: {error}; expected quotes as in a.'b.c:D'=2") from error
        parts = []
        while isinstance(here, dict):
            ((part, here),) = here.items()
            parts.append(part)
    if not all(parts):
        raise InputError(f"the key of {setting!r} has an empty part; expected KEY=VALUE, for example direction.pairs=64")
    return parts


def _value(key: str, text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text
    except RecursionError as error:
        raise InputError(f"the value of {key!r} is nested too deeply") from error


def _index(part: str, items: list[object], setting: str) -> int:
    if not items:
        raise InputError(f"{setting!r} changes an entry of a list that is empty")
    if not part.isdigit() or int(part) >= len(items):
        raise InputError(f"{setting!r} needs a number from 0 to {len(items) - 1} in place of {part!r}")
    return int(part)
