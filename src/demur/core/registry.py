"""Parts that can be added without changing demur: edit kinds, estimators, controls, judges, measurements, engines and more.

Each kind of part has a registry: a table from a name to a target. A target is an object, or a text `module:attribute` that is
imported when the part is first used. Names come from three places: what demur ships, the entry points of installed packages,
and `demur.register`. A target can also be named directly, as `module:attribute`, wherever a study names a part.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from demur.core.errors import InputError, nearest
from demur.core.part_kinds import KINDS, PartKind


class Registry:
    """The parts of one kind by name. Nothing is imported before a part is used."""

    def __init__(self, kind: PartKind) -> None:
        self.kind = kind
        # Any, because parts differ in type from kind to kind. The accessor of each kind, such as `edit_kind`, states the type.
        self._registered: dict[str, Any] = {}
        self._made: dict[str, Any] = {}

    def register(self, name: str, target: Any) -> None:
        """Add a part, or replace the one of that name.

        Args:
            name: the name under which studies and commands find the part.
            target: the part itself, a class that makes it without arguments, or a text `module:attribute`.

        Raises:
            InputError: for an empty name, or a text that is not `module:attribute`.
        """
        if not name or not name.strip():
            raise InputError(f"a {self.kind.noun} needs a name")
        if self.kind.names_module(target):
            _split(target, self.kind.noun)
        self.unregister(name)
        self._registered[name] = target

    def unregister(self, name: str) -> None:
        """Remove a registered part. Parts that demur or another package ships are not removed."""
        target = self._registered.pop(name, None)
        self._made.pop(target if self.kind.names_module(target) else name, None)

    def names(self) -> tuple[str, ...]:
        """The names of all parts, those that demur ships first. Imports none of them."""
        return tuple(dict.fromkeys((*self.kind.shipped, *self._announced(), *self._registered)))

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def get(self, name: str) -> Any:
        """The part with this name. It is imported on first use.

        Args:
            name: a registered name, or `module:attribute`; for kinds that can be described in a file, also a TOML file.

        Returns:
            The part. A target that is a class is called once without arguments, and every call returns that one object.

        Raises:
            InputError: for an unknown name, with the nearest known one; for a target that cannot be imported or made; for a part
                that does not follow the protocol of its kind.
        """
        if self.kind.from_file and name.endswith(".toml") and name not in self._registered:
            return _imported(self.kind.from_file, self.kind.noun)(name)
        target = self._target(name)
        # Two names for the same `module:attribute` give the same part.
        key = target if self.kind.names_module(target) else name
        if key not in self._made:
            self._made[key] = self._part(name, target)
        return self._made[key]

    def check(self, part: object, name: str) -> None:
        """Check that a part follows the protocol of its kind.

        Args:
            part: the part.
            name: the name under which it was asked for.

        Raises:
            InputError: if members are missing, if a value is not one of the choices, or if the part's name cannot be used in file
                names.
        """
        kind = self.kind
        if kind.text and isinstance(part, str):
            return
        missing = [member for member in kind.members if not hasattr(part, member)]
        missing += [" or ".join(group) for group in kind.one_of if not any(hasattr(part, member) for member in group)]
        if missing:
            raise InputError(f"the {kind.noun} {name!r} has no {', '.join(missing)}; give it what {kind.protocol} asks for")
        for member, allowed in kind.choices.items():
            if (value := getattr(part, member)) not in allowed:
                raise InputError(
                    f"the {kind.noun} {name!r} says {value!r} for {member!r}; expected one of {', '.join(map(str, allowed))}"
                )
        if "name" in kind.members and not is_short_name(part.name):  # type: ignore[attr-defined]
            raise InputError(
                f"the {kind.noun} {name!r} has the name {part.name!r}; "  # type: ignore[attr-defined]
                "expected letters, digits, - and _, because file names contain it"
            )

    def _target(self, name: str) -> Any:
        if name in self._registered:
            return self._registered[name]
        if name in self.kind.shipped:
            return self.kind.shipped[name]
        if name in (announced := self._announced()):
            return announced[name].value
        if ":" in name and not name.startswith(":"):
            return name
        raise InputError(f"there is no {self.kind.noun} {name!r}; {nearest(name, self.names())}")

    def _part(self, name: str, target: Any) -> Any:
        part = _imported(target, self.kind.noun) if self.kind.names_module(target) else target
        if isinstance(part, type):
            try:
                part = part()
            except Exception as error:  # the class may raise anything, and may need arguments
                raise InputError(f"the {self.kind.noun} {name!r} cannot be made: {reason_of(error)}") from error
        self.check(part, name)
        return part

    def _announced(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in _points(self.kind.group)}


@cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    # Cached, because reading entry points takes milliseconds and they do not change while a program runs.
    return tuple(entry_points(group=group))


def _split(target: str, noun: str) -> tuple[str, str]:
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"{target!r} does not name a {noun}; expected module:attribute, for example mypackage.parts:MyPart")
    return module, attribute


def _imported(target: str, noun: str) -> Any:
    module, attribute = _split(target, noun)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module may raise anything, and its name may be invalid
        raise InputError(f"the {noun} {target!r} cannot be imported: {reason_of(error)}") from error
    return found


def is_short_name(name: object) -> bool:
    """Whether a name can be used in file names: only letters, digits, `-` and `_`."""
    return isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum()


def reason_of(error: Exception) -> str:
    """The message of another package's error, on one line; the type of the error if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__


_REGISTRIES = {name: Registry(kind) for name, kind in KINDS.items()}


def registry(kind: str) -> Registry:
    """The registry of one kind of part.

    Args:
        kind: a key of `KINDS`, such as `judge`.

    Raises:
        InputError: for another kind, with the nearest known one.
    """
    if kind not in _REGISTRIES:
        raise InputError(f"there is no kind of part {kind!r}; {nearest(kind, _REGISTRIES)}")
    return _REGISTRIES[kind]


def registered_parts() -> dict[str, dict[str, object]]:
    """What was registered in this process, by kind and name, so that another process can register the same."""
    return {kind: dict(parts._registered) for kind, parts in _REGISTRIES.items() if parts._registered}


def register(kind: str, name: str, target: Any) -> None:
    """Add a part of your own for this Python process. A package announces its parts by entry points instead.

    Args:
        kind: `edit`, `estimator`, `control`, `judge`, `judge-kind`, `judge-format`, `measurement`, `engine`, `section`, `export`,
            `prompt` or `instructions`.
        name: the name under which studies and commands find the part.
        target: the part itself, a class that makes it without arguments, or a text `module:attribute`.

    Raises:
        InputError: for another kind, an empty name, or a text that is not `module:attribute`.

    Example:
        >>> import demur
        >>> from demur.core.registry import registry
        >>> demur.register("judge", "short-refusal", "mypackage.judges:ShortRefusal")  # imported when it is first used
        >>> "short-refusal" in registry("judge")
        True
        >>> registry("judge").unregister("short-refusal")
    """
    registry(kind).register(name, target)
