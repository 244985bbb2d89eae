"""Judges in TOML files: `name`, `kind`, and what that kind needs.

    name = "gpt-labels"
    kind = "openai"
    model = "gpt-4o-mini"
    api_key_env = "OPENAI_API_KEY"
    rubric = "refusal-labels"

A run stores the whole spec, with the text of its rubric, so it can be judged again where the file is not. A spec holds no
secret: it names the environment variable that holds one.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, JsonValue, ValidationError

from demur.core.errors import InputError, nearest
from demur.core.registry import is_short_name, registry
from demur.judges.asked.rubric import Rubric, shipped_rubrics
from demur.judges.judge import Judge

Spec = Mapping[str, JsonValue]


class JudgeKind(Protocol):
    """A kind of judge that a TOML file can describe.

    Attributes:
        name: the value of `kind` in the file.
        settings: the model of the other keys.
    """

    name: str
    settings: type[BaseModel]

    # Any model of settings, because each kind has its own.
    def make(self, name: str, settings: BaseModel) -> Judge:
        """The judge. Nothing is loaded and no server is asked.

        Args:
            name: the judge's name.
            settings: the other keys, checked.
        """
        ...


def read_judge(file: str | Path) -> Judge:
    """The judge that a TOML file describes.

    Args:
        file: the file. Paths in it are relative to its folder.

    Returns:
        The judge; the same object each time while the file does not change. Its `spec` describes it without the file.

    Raises:
        InputError: for a missing file, an unknown key, a value out of range, or a name that another judge has.
    """
    path = Path(file)
    table = _parsed(path, "judge")
    rubric = table.get("rubric")
    if isinstance(rubric, str):
        table["rubric"] = _rubric(rubric, path)
    return _made(json.dumps(table, sort_keys=True), repr(str(file)))


def judge_of_spec(spec: Spec) -> Judge:
    """The judge that a stored spec describes.

    Raises:
        InputError: as `read_judge`.
    """
    return _made(json.dumps(spec, sort_keys=True), "the stored judge")


def spec_of(judge: Judge) -> dict[str, JsonValue] | None:
    """The spec of a judge that a file describes; None for any other judge."""
    found = getattr(judge, "spec", None)
    return dict(found) if isinstance(found, Mapping) else None


def version_of(kind: str, settings: BaseModel, undecided: frozenset[str], *more: JsonValue) -> str:
    """A digest of the settings that affect labels. A setting at its default is left out, so a later key changes no version.

    Args:
        kind: the kind of judge.
        settings: its settings.
        undecided: names of settings that affect no label, such as time limits.
        *more: what else affects labels, such as the version of a format.
    """
    decided = settings.model_dump(mode="json", exclude_defaults=True, exclude=set(undecided))
    return hashlib.sha256(json.dumps([kind, decided, *more], sort_keys=True).encode()).hexdigest()[:12]


@cache
def _made(text: str, where: str) -> Judge:
    table: dict[str, JsonValue] = json.loads(text)
    name, kind = table.pop("name", None), table.pop("kind", None)
    if not is_short_name(name):
        raise InputError(f"{where} has the name {name!r}; expected letters, digits, - and _, because file names contain it")
    if name in registry("judge"):
        raise InputError(f"{where} has the name {name!r}, which another judge has; give it another name")
    if not isinstance(kind, str):
        raise InputError(f"{where} has no kind; expected one of {', '.join(registry('judge-kind').names())}")
    found: JudgeKind = registry("judge-kind").get(kind)
    judge = found.make(str(name), _settings(found.settings, table, where))
    judge.spec = json.loads(text)  # type: ignore[attr-defined]
    registry("judge").check(judge, str(name))
    return judge


def _settings(model: type[BaseModel], table: Spec, where: str) -> BaseModel:
    for key in table:
        if key not in model.model_fields:
            raise InputError(f"{where} has the key {key!r}, which its kind does not have; {nearest(key, model.model_fields)}")
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """The first fault, with its key. The value is left out, because somebody may have put a secret there."""
    first = error.errors(include_input=False)[0]
    place, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{place!r}: {said[0].lower()}{said[1:]}" if place else said


def _rubric(name: str, beside: Path) -> JsonValue:
    shipped = shipped_rubrics()
    if name in shipped:
        table: dict[str, JsonValue] = tomllib.loads(shipped[name])
    elif name.endswith(".toml"):
        table = _parsed(beside.parent / name, "rubric")
    else:
        raise InputError(f"{str(beside)!r} has the rubric {name!r}, neither shipped nor a .toml file; {nearest(name, shipped)}")
    try:
        found: JsonValue = Rubric.model_validate(table).model_dump(mode="json")
    except ValidationError as error:
        raise InputError(f"the rubric {name!r}: {_first(error)}") from error
    return found


def _parsed(path: Path, what: str) -> dict[str, JsonValue]:
    try:
        # Through JSON, because TOML also has dates, which no spec has.
        found: dict[str, JsonValue] = json.loads(json.dumps(tomllib.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise InputError(f"the {what} file {str(path)!r} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:  # not UTF-8, not TOML, or with a date
        raise InputError(f"the {what} file {str(path)!r} is not valid TOML text: {error}") from error
    return found
