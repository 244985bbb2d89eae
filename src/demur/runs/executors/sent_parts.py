"""The parts that were registered in this process, as they are sent to workers."""

from demur.core.errors import InputError
from demur.core.registry import registered_parts

_NOT_FOR_JOBS = ("section", "export")
"""Kinds of parts that only the driver uses."""


def sent_parts() -> dict[str, dict[str, object]]:
    """What workers must register, by kind and name.

    Raises:
        InputError: for a part that is defined in the user's script or notebook, where no other process finds it.
    """
    found = {kind: parts for kind, parts in registered_parts().items() if kind not in _NOT_FOR_JOBS}
    for kind, parts in found.items():
        for name, part in parts.items():
            home = getattr(part if isinstance(part, type) or callable(part) else type(part), "__module__", None)
            if not isinstance(part, str) and home == "__main__":
                raise InputError(
                    f"the {kind} {name!r} is defined in this script, where worker processes cannot find it; put it into a module "
                    "of its own, or use the executor local"
                )
    return found
