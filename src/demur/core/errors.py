"""The three ways demur says no. Each carries one sentence: what was found, what was expected, what to do.

The command line turns `InputError` into exit status 2 and `WorkError` into exit status 1; nothing else is caught there,
so a traceback always means a defect of demur itself.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class DemurError(Exception):
    """Anything demur refuses to do."""


class InputError(DemurError, ValueError):
    """The request cannot be carried out as written: a missing file, an unknown name, a value out of range."""


class WorkError(DemurError, RuntimeError):
    """The request was fine but the work failed: an edit that did not act, weights that hold NaN, no memory."""


class NotFinite(WorkError):
    """Activations or logits that hold NaN or infinity. The parts know row and layer; the library's verbs put the names in."""

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
        whose = f"row {row}" if text is None else f"the instruction {_short(text)!r}"
        where = "" if layer is None else f" at layer {layer}"
        owner = "" if checkpoint is None else f" in checkpoint {checkpoint!r}"
        wide = str(dtype) in ("torch.float32", "torch.float64")
        advice = "check the weights for NaN" if wide else "load the weights with dtype float32"
        super().__init__(f"{what} of {whose}{where}{owner} are not finite in {dtype}; {advice}, or use a smaller coefficient")

    def of_row(self, row: int) -> "NotFinite":
        """The same, counted among all rows."""
        return NotFinite(self.what, row, self.dtype, self.layer)

    def named(self, checkpoint: str, text: str) -> "NotFinite":
        """The same, with the names that a user knows."""
        return NotFinite(self.what, self.row, self.dtype, self.layer, checkpoint=checkpoint, text=text)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names the closest known word, or lists all of them: for the end of an error's sentence."""
    choices = sorted(known)
    close = get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(choices)}"
