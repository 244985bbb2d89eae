"""The protocol of a kind of edit. To add one, write a class and register it as a part of kind `edit`.

demur imports the module of a kind when it reads a study, before it needs torch. So import torch inside `operation`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel

from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.core.registry import registry

if TYPE_CHECKING:
    from demur.interventions.operation import Operation


@runtime_checkable
class EditKind(Protocol):
    """A kind of edit.

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

    def action(self, coefficient: float | None) -> str:
        """The name of the action for this coefficient. It is the `action` of one of `words`."""
        ...

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        """The sign of the change in refusals that is expected of such an edit on an instruction set; 0 if none is expected."""
        ...

    def operation(self, edit: Any) -> "Operation":
        """The arithmetic of one edit, the same at each of its points.

        `edit` is an `Intervention`. The annotation is `Any`, because the module of that class imports this one.
        """
        ...


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
