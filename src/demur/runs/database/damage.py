"""What is stored in a run may be damaged, or made by someone else. Reading it then ends in one sentence."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from demur.core.errors import DemurError, InputError

FILE = "run.sqlite"
"""Name of the SQLite file in a run folder."""

P = ParamSpec("P")
Given = TypeVar("Given")


class _InFolder(Protocol):
    folder: Path


Reader = TypeVar("Reader", bound=_InFolder)


def damaged(file: Path, why: str) -> InputError:
    """The error for a file that is no whole run.

    Args:
        file: the SQLite file.
        why: what was found.
    """
    return InputError(
        f"{str(file)!r} is damaged or not a run of demur ({' '.join(why.split())[:300]}); restore a copy with its -wal file, "
        "or start over with --fresh"
    )


def read_from_rows(method: "Callable[Concatenate[Reader, P], Given]") -> "Callable[Concatenate[Reader, P], Given]":
    """A method of a store that makes values from rows. If a row holds something else, the file is called damaged."""

    @wraps(method)
    def guarded(store: Reader, /, *args: P.args, **kwargs: P.kwargs) -> Given:
        try:
            return method(store, *args, **kwargs)
        except DemurError:
            raise
        except Exception as error:  # the parsers of JSON, records and arrays raise errors of many kinds
            raise damaged(store.folder / FILE, f"{method.__name__}: {type(error).__name__}: {error}") from error

    return guarded
