"""The errors of demur. Each message is one sentence: what was found, what was expected, what to do.

The command line turns `InputError` into exit status 2 and `WorkError` into exit status 1. It catches nothing else, so a traceback
always means a defect in demur itself or in a part that was added to it.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class DemurError(Exception):
    """The base class of demur's errors.

    Example:
        >>> import demur
        >>> try:
        ...     demur.judge(["I cannot"], "prefx")
        ... except demur.DemurError as error:
        ...     print(error)
        there is no judge 'prefx'; did you mean 'prefix'?
    """


class InputError(DemurError, ValueError):
    """The request cannot be carried out as written: a missing file, an unknown name, a value out of range.

    It is also a `ValueError`. The command line ends with exit status 2.

    Example:
        >>> import demur
        >>> issubclass(demur.InputError, ValueError)
        True
    """


class WorkError(DemurError, RuntimeError):
    """The request was right, but the work failed: an edit that did not act, weights with NaN, too little memory.

    It is also a `RuntimeError`. The command line ends with exit status 1.

    Example:
        >>> import demur
        >>> issubclass(demur.WorkError, RuntimeError)
        True
    """


class NotFinite(WorkError):
    """Activations or logits with NaN or infinity.

    The code that computes them knows only the row and the layer. `named` adds the checkpoint and the instruction.
    """

    def __init__(
        self,
        what: str,
        row: int,
        dtype: object,
        layer: int | None = None,
        *,
        checkpoint: str | None = None,
        text: str | None = None,
    ) -> None:
        self.what, self.row, self.dtype, self.layer = what, row, dtype, layer
        whose = f"row {row}" if text is None else f"the instruction {short(text)!r}"
        where = "" if layer is None else f" at layer {layer}"
        owner = "" if checkpoint is None else f" in checkpoint {checkpoint!r}"
        wide = str(dtype) in ("torch.float32", "torch.float64")
        advice = "check the weights for NaN" if wide else "load the weights with dtype float32"
        super().__init__(f"{what} of {whose}{where}{owner} are not finite in {dtype}; {advice}, or use a smaller coefficient")

    def of_row(self, row: int) -> "NotFinite":
        """The same error with the row's index among all rows, in place of its index in one batch."""
        return NotFinite(self.what, row, self.dtype, self.layer)

    def named(self, checkpoint: str, text: str) -> "NotFinite":
        """The same error with the checkpoint's name and the instruction's text."""
        return NotFinite(self.what, self.row, self.dtype, self.layer, checkpoint=checkpoint, text=text)


def short(text: str, most: int = 60) -> str:
    """A text as a message quotes it: cut after so many characters, with three dots at its end."""
    return text if len(text) <= most else text[: most - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """The last part of a message about an unknown name: the most similar known name, or all known names if none is similar.

    Example:
        >>> nearest("prefx", ["prefix", "substring"])
        "did you mean 'prefix'?"
        >>> nearest("x", ["prefix", "substring"])
        'known: prefix, substring'
    """
    choices = sorted(known)
    close = get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(choices)}"


def sentence(reason: str) -> str:
    """The reason, with a full stop added if it does not end like a sentence."""
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."
