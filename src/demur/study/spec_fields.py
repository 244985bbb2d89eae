"""Shared by the tables of a study: types of values, and the mark on each key that says whether it affects results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from demur.inputs.instructions import registered

Label = Literal["harmful", "harmless"]
LABELS: tuple[Label, ...] = get_args(Label)

Facts = Mapping[str, JsonValue]
"""A table of a study as plain data."""


@dataclass(frozen=True)
class Decides:
    """The key affects results, so it is part of the study's digest.

    Attributes:
        form: turns a value that can be written in several ways into the form that is compared; None if there is only one way.
        when: whether the key affects results, given the other keys of its table; None for always.
    """

    form: Callable[[JsonValue], JsonValue] | None = None
    when: Callable[[Facts], bool] | None = None


@dataclass(frozen=True)
class DecidesNothing:
    """The key affects no result, so a run can be resumed when it changes.

    Attributes:
        reason: why it does not.
    """

    reason: str


@dataclass(frozen=True)
class KeysDecide:
    """The value is one table or several, which have marks on their own keys."""


Mark = Decides | DecidesNothing | KeysDecide


class Table(BaseModel):
    """One table of a study. Unknown keys are refused, and types are not converted: "8" is not a number, true is not a layer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def mark_of(model: type[BaseModel], key: str) -> Mark:
    """The mark on a key.

    Raises:
        TypeError: if the key has no mark. A test checks that every key has one.
    """
    marks = [mark for mark in model.model_fields[key].metadata if isinstance(mark, Mark)]
    if len(marks) != 1:
        raise TypeError(f"{model.__name__}.{key} has {len(marks)} marks; expected one of Decides, DecidesNothing, KeysDecide")
    return marks[0]


def unknown_key(key: str, known: Sequence[str]) -> PydanticCustomError:
    """The error for a key that a table does not have; `spec_errors` writes its sentence."""
    return PydanticCustomError("unknown_key", "unknown key", {"key": key, "known": known})


def listed(value: Any) -> Any:
    """A single text or number as a list of one; other values unchanged."""
    return [value] if isinstance(value, str | int) else value


SELECT: Literal["select"] = "select"
"""The value of a setting that the run chooses on validation instructions."""

Select = Literal["select"]


ALL: Literal["all"] = "all"
"""The value of `direction.layers` that stands for every layer that may have a direction."""


def _unless_select(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return value if value == SELECT else check(value)


def _unless_word(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return value if value in (SELECT, ALL) else check(value)


def _as_it_is(value: Any) -> Any:
    return value


def once(values: list[Any]) -> list[Any]:
    """Returns the same list. Raises `ValueError` if a value is in it twice."""
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is listed twice; list it once")
    return values


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{text[:40]!r} is empty or has characters that cannot be printed")
    return text


Plain = Annotated[str, AfterValidator(_printable)]
"""The name of a file, a model or a set: a text that can be printed."""

Names = Annotated[list[str], BeforeValidator(listed), AfterValidator(once)]
"""Different names; one name may be written without a list."""

SomeNames = Annotated[Names, Field(min_length=1)]
"""At least one name."""

Layers = Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(once), Field(min_length=1)]
"""At least one layer, each once."""

if TYPE_CHECKING:
    SelectableLayers = list[int] | Literal["select", "all"]
    SelectablePosition = int | Select
    SelectableDose = float | Select | None
else:
    # A union would put the names of its members into error messages.
    SelectableLayers = Annotated[Layers, BeforeValidator(listed), WrapValidator(_unless_word), PlainSerializer(_as_it_is)]
    SelectablePosition = Annotated[int, Field(le=-1), WrapValidator(_unless_select), PlainSerializer(_as_it_is)]
    SelectableDose = Annotated[float | None, WrapValidator(_unless_select), PlainSerializer(_as_it_is)]

Site = Literal["resid_pre", "resid_mid", "resid_post"]


def unordered(value: JsonValue) -> JsonValue:
    """Sorts a list and removes repetitions, for keys where neither affects results; returns other values unchanged."""
    if not isinstance(value, list):
        return value
    return sorted({str(item) if not isinstance(item, int) else item for item in value}, key=str)


def one_path(value: JsonValue) -> JsonValue:
    """Resolves the path of an existing file or folder, with or without `:column`; returns other names unchanged.

    So all spellings of a path become equal: relative ones, ones with `..` or `~`, and ones through a symbolic link.
    """
    if not isinstance(value, str) or value.startswith("demo:"):
        return value
    whole = _resolved(value)
    if whole is not None:
        return whole
    head, colon, column = value.rpartition(":")
    file = _resolved(head) if colon else None
    return value if file is None else f"{file}:{column}"


def one_source(value: JsonValue) -> JsonValue:
    """Like `one_path`, but the name of a registered instruction set is returned unchanged: it is looked up before any file."""
    return value if value in registered() else one_path(value)


def _resolved(text: str) -> str | None:
    for spelling in (_expanded(text), Path(text)):
        try:
            if text and spelling.exists():
                return str(spelling.resolve())
        except (OSError, ValueError):  # no file can have this name, or links form a circle
            continue
    return None


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the path begins with ~name, and there is no user of this name
        return Path(text)


def one_text(value: JsonValue) -> JsonValue:
    r"""The text of a prompt format with `\n` replaced by a new line, as demur reads it."""
    return value.replace("\\n", "\n") if isinstance(value, str) else value
