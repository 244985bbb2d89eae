"""One thread at a time passes demur's rows through a model.

Edits are hooks, and packed weights are put in, for as long as a pass lasts: they are the model's, and a second thread's rows
would meet them too. Threads with models of their own do not wait for each other.
"""

from collections.abc import Callable
from functools import wraps
from threading import Lock, RLock
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

P = ParamSpec("P")
Model = TypeVar("Model", bound=nn.Module)
Result = TypeVar("Result")

_locks: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_guard = Lock()


def in_turn(work: Callable[Concatenate[Model, P], Result]) -> Callable[Concatenate[Model, P], Result]:
    """A function whose first argument is a model waits until no other thread is inside one with that model."""

    @wraps(work)
    def waiting(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with _guard:
            lock = _locks.setdefault(model, RLock())
        with lock:
            return work(model, *args, **kwargs)

    return waiting
