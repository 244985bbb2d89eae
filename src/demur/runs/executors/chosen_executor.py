"""Which executor runs a study: the one that was asked for, or the one that suits the machine."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from demur.core.errors import InputError, nearest

if TYPE_CHECKING:
    from demur.runs.executors.executor import Executor

EXECUTORS = ("local", "processes", "ray")
"""The executors by name."""


def check_asked(executor: "Executor | str | None", workers: int | None, *, free_disk: bool = False) -> None:
    """Check an executor and a number of workers before anything heavy is imported.

    Args:
        executor: the executor, its name, or None.
        workers: how many workers were asked for, or None.
        free_disk: whether weights are to be deleted from the disk after their last job.

    Raises:
        InputError: for an unknown name, and for a number of workers that does not fit.
    """
    if isinstance(executor, str) and executor not in EXECUTORS:
        raise InputError(f"there is no executor {executor!r}; {nearest(executor, EXECUTORS)}")
    if free_disk and (executor not in (None, "local") or workers is not None):
        raise InputError(
            "--free-disk is for one process, which knows what is no longer needed; leave out --executor and --workers"
        )
    if workers is None:
        return
    if workers < 1:
        raise InputError(f"{workers} workers were asked for; ask for at least 1")
    if executor == "local" and workers > 1:
        raise InputError("the executor local has one worker; give --executor processes or ray with --workers")
    if executor is not None and not isinstance(executor, str):
        raise InputError("workers and an executor object are both given; give the number of workers to the executor itself")


def chosen_executor(
    asked: "Executor | str | None", workers: int | None, device: str, tell: Callable[[str], object], *, free_disk: bool = False
) -> "Executor":
    """The executor for a run.

    Args:
        asked: the executor, its name, or None. None is `processes` if several workers were asked for or if this process sees
            several GPUs and `device` is `auto`; else it is `local`.
        workers: how many workers there are; None for one on each GPU.
        device: the device as it was asked for.
        tell: called with a sentence when a worker has died.
        free_disk: whether weights are deleted from the disk after their last job, which only `local` does.

    Raises:
        InputError: as `check_asked`; and for `ray` if it is not installed.
    """
    check_asked(asked, workers, free_disk=free_disk)
    if asked is not None and not isinstance(asked, str):
        return asked
    if asked == "ray":
        from demur.runs.executors.ray_actors import RayActors

        return RayActors(workers, tell=tell)
    if asked == "processes" or (asked is None and not free_disk and (workers is not None or _several_gpus(device))):
        from demur.runs.executors.processes import Processes

        return Processes(workers, tell=tell)
    from demur.runs.executors.in_process import InProcess

    return InProcess(free_disk=free_disk)


def _several_gpus(device: str) -> bool:
    import torch

    return device == "auto" and torch.cuda.device_count() > 1
