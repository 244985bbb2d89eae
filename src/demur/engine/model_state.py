"""The state that demur keeps with a model: a lock for threads, and data of open contexts.

Only one thread at a time runs demur's rows through a model. During a forward pass, edits are hooks of the model, and prepacked
weights replace methods of its modules. Both would affect the rows of a second thread too. Threads with different models do not
wait for each other.

`demur.steer` may be nested on the same model, so the state has to be found from the model alone. It is a private attribute of
the model and not an entry of a process-wide table, so it is freed with the model and no two models share it.
"""

from collections.abc import Callable
from functools import wraps
from threading import Lock, RLock
from typing import Concatenate, ParamSpec, TypeVar

from torch import Tensor, nn

P = ParamSpec("P")
Model = TypeVar("Model", bound=nn.Module)
Result = TypeVar("Result")

_ATTRIBUTE = "_demur_state"
_creating = Lock()


class ModelState:
    """The state of one model.

    Attributes:
        lock: held by the thread that runs rows through the model.
        block_inputs: for each open context of hooks, the block inputs that it still needs, by layer.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.block_inputs: dict[int, dict[int, Tensor]] = {}

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copied or saved model has None here: a lock cannot be copied, contexts are open only on the original, and a file
        # of the model should load without demur.
        return type(None), ()


def state_of(model: nn.Module) -> ModelState:
    """The state of a model; it is created on first use."""
    with _creating:
        found = vars(model).get(_ATTRIBUTE)
        if not isinstance(found, ModelState):
            found = ModelState()
            setattr(model, _ATTRIBUTE, found)
        return found


def one_thread_at_a_time(work: Callable[Concatenate[Model, P], Result]) -> Callable[Concatenate[Model, P], Result]:
    """Make a function, whose first argument is a model, wait while another thread is in such a function with that model."""

    @wraps(work)
    def waiting(model: Model, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with state_of(model).lock:
            return work(model, *args, **kwargs)

    return waiting
