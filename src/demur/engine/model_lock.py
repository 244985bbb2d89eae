"""One thread at a time runs demur's rows through a model.

Edits are hooks, and prepacked weights replace methods, for as long as a forward pass lasts. Both belong to the model, so the rows
of a second thread would meet them too. Threads with models of their own do not wait for each other.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from torch import nn

from demur.engine.model_state import state_of

P = ParamSpec("P")
Model = TypeVar("Model", bound=nn.Module)
Result = TypeVar("Result")


def one_thread_at_a_time(work: Callable[Concatenate[Model, P], Result]) -> Callable[Concatenate[Model, P], Result]:
    """A function whose first argument is a model waits until no other thread is inside such a function with that model."""

    @wraps(work)
    def waiting(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with state_of(model).lock:
            return work(model, *args, **kwargs)

    return waiting
