"""What demur keeps with a model while it works with it: the lock that threads wait for, and what open contexts need.

`demur.steer` may be nested on the same raw model, so the state has to be found from the model alone. It is a private attribute
of the module rather than an entry of a process-wide table, so that it goes when the model goes and no two models share it.
"""

from threading import Lock, RLock

from torch import Tensor, nn

_ATTRIBUTE = "_demur_state"
_creating = Lock()


class ModelState:
    """The state of one model.

    Attributes:
        lock: held by the thread that runs rows through the model.
        block_inputs: for each open context of hooks, the inputs of blocks that it still needs, by layer.
    """

    def __init__(self) -> None:
        self.lock = RLock()
        self.block_inputs: dict[int, dict[int, Tensor]] = {}

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copied or saved model has None here: a lock cannot be copied, contexts are open on the original only, and a file
        # should not need demur to be read.
        return type(None), ()


def state_of(model: nn.Module) -> ModelState:
    """The state of a model, made when it is first asked for."""
    with _creating:
        found = vars(model).get(_ATTRIBUTE)
        if not isinstance(found, ModelState):
            found = ModelState()
            setattr(model, _ATTRIBUTE, found)
        return found
