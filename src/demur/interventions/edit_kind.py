"""The protocol of a kind of edit. To add one, write a class and register it as a part of kind `edit`.

demur imports the module of a kind when it reads a study, before it needs torch. So import torch inside `operation`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, JsonValue

from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.core.registry import registry

if TYPE_CHECKING:
    from demur.interventions.operation import Operation
    from demur.models.layouts import Point

Fact = Literal["residual norm", "harmless means", "harmful means", "spread"]
"""What an edit may have to know of the arm that it edits; `target_facts.py` says what each fact is."""

MEANS: Mapping[str, tuple[Fact, ...]] = {"zero": (), "harmless": ("harmless means",), "harmful": ("harmful means",)}
"""What an edit has to know that sets components to zero or to those of a mean: the `target_facts` of such a kind."""


Span = Literal["estimators", "layers", "parts"]
"""Which directions of one arm a study puts together for an edit that takes several: those of several estimators at one layer,
those of one estimator at several layers, or the several that one estimator gives at one layer."""


def expected_of(instructions: str, *, raises: bool) -> Literal[-1, 0, 1]:
    """The change that would confirm an edit, for most kinds: the `expected` of a kind.

    Args:
        instructions: the instruction set, or the one that it is like.
        raises: whether the edit moves the stream to refusals, not away from them.

    Returns:
        1 on harmless instructions for an edit that raises refusals, -1 on harmful ones for one that lowers them, else 0.
    """
    if raises:
        return 1 if instructions == "harmless" else 0
    return -1 if instructions == "harmful" else 0


@runtime_checkable
class EditKind(Protocol):
    """A kind of edit.

    Besides the members below, a kind has one of two methods for its arithmetic, and one of two for the name of its action:

    - `operation` (`SameAtEachPoint`), or `operation_at` (`DiffersByPoint`) if its arithmetic depends on the point;
    - `action` (`ActsByCoefficient`), or `action_of` (`ActsBySettings`) if the name depends on the kind's settings.

    A kind that has to know something of its target also has `target_facts` (`NeedsFacts`). A kind that takes several directions,
    but only those of several layers, has `span` (`SpansOne`).

    Attributes:
        name: its name in studies, cells and tables.
        artefact: what it needs: a `direction`, a `subspace`, or `none`.
        takes_dose: whether a study has to give a coefficient, whose unit is `unit`, `raw` or `residual`.
        own_layer: whether it acts at the direction's own layer and site if a study names none; if False, at every layer and site.
        repeats: whether it acts twice if two named sites are the same point of the stream. `resid_post` of one layer and
            `resid_pre` of the next are the same point. A vector that is added at both is added twice; a component that is removed
            at both is removed once.
        default_on: the instruction sets on which a study tries it if it names none.
        settings: a frozen pydantic model of the further keys that a study may set, each with a default; None if there are none.
        words: the words for each of its actions.
    """

    name: ClassVar[str]
    artefact: ClassVar[Literal["direction", "subspace", "none"]]
    takes_dose: ClassVar[bool]
    own_layer: ClassVar[bool]
    repeats: ClassVar[bool]
    default_on: ClassVar[tuple[str, ...]]
    settings: ClassVar[type[BaseModel] | None]
    words: ClassVar[tuple[EditWords, ...]]

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """The sign of the change in refusals that is expected of such an edit on an instruction set; 0 if none is expected."""
        ...


@runtime_checkable
class SameAtEachPoint(Protocol):
    """A kind of edit with the same arithmetic at each of its points."""

    def operation(self, edit: Any) -> "Operation":
        """The arithmetic of one edit.

        `edit` is an `Intervention`. The annotation is `Any`, because the module of that class imports this one.
        """
        ...


@runtime_checkable
class DiffersByPoint(Protocol):
    """A kind of edit whose arithmetic depends on the point of the stream."""

    def operation_at(self, edit: Any, where: "Point") -> "Operation":
        """The arithmetic of one edit, an `Intervention`, at one of its points."""
        ...


@runtime_checkable
class ActsByCoefficient(Protocol):
    """A kind of edit whose action has a name that depends on the coefficient at most."""

    def action(self, coefficient: float | None) -> str:
        """The name of the action for this coefficient. It is the `action` of one of `words`."""
        ...


@runtime_checkable
class ActsBySettings(Protocol):
    """A kind of edit whose action has a name that depends on its settings."""

    def action_of(self, coefficient: float | None, settings: Any) -> str:
        """The name of the action for this coefficient and these settings, an instance of the kind's `settings`."""
        ...


@runtime_checkable
class NeedsFacts(Protocol):
    """A kind of edit that has to know something of the arm that it edits."""

    def target_facts(self, settings: Any) -> tuple[Fact, ...]:
        """The facts that an edit with these settings needs. The norm for the unit `residual` is not listed."""
        ...


@runtime_checkable
class SpansOne(Protocol):
    """A kind of edit that takes several directions, and only in one way.

    Attributes:
        span: which directions these are.
    """

    span: ClassVar[Span]


def operation_of(kind: EditKind, edit: object, where: "Point") -> "Operation":
    """The arithmetic of an edit of this kind at one of its points."""
    if isinstance(kind, DiffersByPoint):
        return kind.operation_at(edit, where)
    assert isinstance(kind, SameAtEachPoint), "the registry has checked that a kind has one of the two methods"
    return kind.operation(edit)


def differs_by_point(kind: EditKind) -> bool:
    """Whether the arithmetic of this kind depends on the point of the stream."""
    return isinstance(kind, DiffersByPoint)


def action_of(kind: EditKind, coefficient: float | None, settings: Mapping[str, JsonValue]) -> str:
    """The name of the action of an edit of this kind.

    Args:
        kind: the kind.
        coefficient: the dose; None for a kind that takes none.
        settings: the settings of the kind as plain data.
    """
    if isinstance(kind, ActsBySettings):
        return kind.action_of(coefficient, typed_settings(kind, settings))
    assert isinstance(kind, ActsByCoefficient), "the registry has checked that a kind has one of the two methods"
    return kind.action(coefficient)


def needed_facts(kind: EditKind, unit: str, settings: BaseModel | None) -> tuple[Fact, ...]:
    """What an edit has to know of the arm that it edits.

    Args:
        kind: its kind.
        unit: the unit of its coefficient.
        settings: its settings.
    """
    own = kind.target_facts(settings) if isinstance(kind, NeedsFacts) else ()
    return ("residual norm", *own) if kind.takes_dose and unit == "residual" else own


def typed_settings(kind: EditKind, settings: Mapping[str, JsonValue]) -> BaseModel | None:
    """The settings of a kind as its own model; None for a kind without settings."""
    return None if kind.settings is None else kind.settings.model_validate(dict(settings))


def edit_kind(name: str) -> EditKind:
    """The kind of edit with this name, or at `module:Class`.

    Raises:
        InputError: for an unknown name, with the nearest known one; for a part that does not follow `EditKind`.
    """
    found: EditKind = registry("edit").get(name)
    return found


def check_settings(name: str, settings: BaseModel | None) -> None:
    """Check that the settings of an edit can be hashed: rows with equal edits share work, so edits are keys of dicts.

    Args:
        name: the name of the kind of edit, for the error.
        settings: its settings; None if it has none.

    Raises:
        InputError: if the model is not frozen, or if a value can change, as a list can.
    """
    try:
        hash(settings)
    except TypeError as error:
        raise InputError(
            f"the settings of an edit of kind {name!r} can change ({error}); make {type(settings).__name__} a frozen model, "
            "and use tuples in place of lists and dicts"
        ) from error


def words_of(kinds: Mapping[str, EditKind]) -> dict[str, EditWords]:
    """The words of every action of these kinds, by action."""
    return {words.action: words for kind in kinds.values() for words in kind.words}
