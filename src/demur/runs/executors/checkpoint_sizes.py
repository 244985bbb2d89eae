"""The sizes of a run's checkpoints in memory, by which an executor decides which of them are held at the same time."""

from collections.abc import Iterable

from demur.models.model_size import size_of
from demur.runs.job_inputs import JobInputs


def checkpoint_sizes(names: Iterable[str], inputs: JobInputs) -> dict[str, int | None]:
    """Bytes of the weights of each checkpoint as the study loads them; None if not known.

    Args:
        names: names of checkpoints of the study.
        inputs: the inputs of the run's jobs.
    """
    return {name: _size(name, inputs) for name in names}


def _size(name: str, inputs: JobInputs) -> int | None:
    size = size_of(inputs.ready.sources[name])
    return None if size is None else size.bytes(inputs.study.dtype, inputs.study.checkpoints[name].quantise)
