"""The executor `ray`: actors of a Ray cluster, each of which holds checkpoints. Ray says where they run; the driver alone stores.

If `RAY_ADDRESS` is set, or a cluster runs on this machine, the actors run there. Otherwise a cluster of this machine alone is
started, and ended with the run.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, ClassVar

from demur.core.errors import InputError
from demur.models.device_placement import SPREAD
from demur.runs.executors.pooled_jobs import ATTEMPTS, PooledJobs
from demur.runs.executors.sent_parts import sent_parts
from demur.runs.executors.worker_messages import Task, TaskDone, TaskFailed, WorkerEnded, WorkerMessage, WorkerSetup
from demur.runs.job_inputs import JobInputs


class RayActors(PooledJobs):
    """Runs jobs in actors of a Ray cluster.

    An actor that dies, for example with its node, is started again where Ray finds room, and its job is done again. The nodes
    must have demur, and the files of checkpoints and judges at the same paths.
    """

    name: ClassVar[str] = "ray"

    def __init__(self, workers: int | None = None, *, tell: Callable[[str], object], attempts: int = ATTEMPTS) -> None:
        """Set up. No cluster is used before `run`.

        Args:
            workers: how many actors there are; None for one on each GPU of the cluster.
            tell: called with a sentence when an actor has died.
            attempts: how often a job is begun at most, if its actors die.

        Raises:
            InputError: if Ray is not installed.
        """
        # Ray itself finds out which actors are gone, and an actor may wait for a free node as long as it takes.
        super().__init__(_OnCluster(workers, _ray()), tell, attempts=attempts, patience=float("inf"))


# Any: Ray is not among the dependencies of demur, so its types are not known here.
def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("the executor ray needs the package ray, which is not installed; pip install 'demur[ray]'") from error
    return ray


class _OnCluster:
    """Prepares actors. It is a `PreparesWorkers`."""

    def __init__(self, workers: int | None, ray: Any) -> None:
        self._workers, self._ray, self._begun = workers, ray, False

    def workers(self, inputs: JobInputs) -> int:
        """The number of actors. Connects to the cluster, or starts one."""
        if not self._ray.is_initialized():
            self._ray.init(include_dashboard=False)
            self._begun = True
        gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if self._workers is None and not gpus:
            raise InputError("the Ray cluster has no GPU, so the number of actors is not known; give --workers N")
        return self._workers or (1 if inputs.device == SPREAD else gpus)

    def starting(self, inputs: JobInputs) -> "StartsActors":
        """What starts the actors."""
        return StartsActors(inputs, self.workers(inputs), self._ray)

    def end(self) -> None:
        """Leave the cluster, if this run has joined it."""
        if self._begun:
            self._ray.shutdown()


class StartsActors:
    """Starts actors. It is a `StartsWorkers`."""

    def __init__(self, inputs: JobInputs, count: int, ray: Any) -> None:
        """Take what actors need to know.

        Args:
            inputs: the inputs of the run's jobs.
            count: how many actors there are.
            ray: the package.
        """
        whole = ray.cluster_resources()
        gpus, cpus = int(whole.get("GPU", 0)), int(whole.get("CPU", 1))
        on_gpu = inputs.device != "cpu" and gpus > 0
        each = max(1, gpus // count) if inputs.device == SPREAD else 1
        # Ray sets OMP_NUM_THREADS to the number of CPUs of an actor.
        self._options = {"num_cpus": max(1, cpus // count), "num_gpus": each if on_gpu else 0, "max_restarts": 0}
        device = inputs.device if inputs.device == SPREAD else "cuda" if on_gpu else "cpu"
        nodes = max(1, sum(1 for node in ray.nodes() if node["Alive"]))
        sharing = 1 if on_gpu and device != SPREAD else -(-count // nodes)
        self._ray = ray
        # Sent once to each node, and not with every actor.
        self._setup = ray.put(WorkerSetup(inputs.ready, device, sharing, sent_parts()))

    def start(self, number: int, hear: Callable[[WorkerMessage], None]) -> "WorkerActor":
        """Start an actor."""
        made = self._ray.remote(**self._options)(RayWorker).remote(self._setup)
        return WorkerActor(made, self._ray, hear, name=f"worker {number + 1}")


class RayWorker:
    """What an actor does. It runs in a process of the cluster."""

    def __init__(self, setup: WorkerSetup) -> None:
        """Keep what the actor must know. Nothing is imported or loaded yet, so that an error is a message of `begin`."""
        self._setup, self._said = setup, SimpleQueue[WorkerMessage]()

    def begin(self) -> Iterator[WorkerMessage]:
        """Import torch, and say that the actor is ready."""
        from demur.runs.executors.task_runner import TaskRunner  # imports torch

        self._runner = TaskRunner(self._setup, self._said.put)
        yield self._said.get()

    def run(self, task: Task) -> Iterator[WorkerMessage]:
        """Run one task, and give its messages as they are made."""
        Thread(target=self._runner.run, args=(task,), daemon=True).start()
        while True:
            message = self._said.get()
            yield message
            if isinstance(message, TaskDone | TaskFailed):
                return


class WorkerActor:
    """An actor, as the driver sees it. A thread waits for what it says. It is a `Worker`."""

    def __init__(self, actor: Any, ray: Any, hear: Callable[[WorkerMessage], None], *, name: str) -> None:
        """Begin to listen.

        Args:
            actor: the actor's handle.
            ray: the package.
            hear: is called with each of its messages.
            name: the name of the thread.
        """
        self._actor, self._ray, self._hear = actor, ray, hear
        self._tasks = SimpleQueue[Task | None]()
        Thread(target=self._follow, name=name, daemon=True).start()

    def send(self, task: Task) -> None:
        """Give it a task."""
        self._tasks.put(task)

    def stop(self) -> None:
        """End it."""
        self._tasks.put(None)
        # The cluster may be gone already.
        with suppress(Exception):
            self._ray.kill(self._actor)

    def _follow(self) -> None:
        try:
            self._pass_on(self._actor.begin.options(num_returns="streaming").remote())
            while (task := self._tasks.get()) is not None:
                self._pass_on(self._actor.run.options(num_returns="streaming").remote(task))
        except self._ray.exceptions.RayError as error:
            # Of a message of many lines, the first one says what happened.
            self._hear(WorkerEnded(f"was lost ({str(error).strip().splitlines()[0]})"))

    def _pass_on(self, messages: Any) -> None:
        for reference in messages:
            self._hear(self._ray.get(reference))
