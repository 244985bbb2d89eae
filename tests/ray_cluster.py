"""A Ray cluster of two local nodes, of which one is lost while a study is carried out. Needs the extra `ray`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from demur.runs.executors.executor import Executor
from demur.runs.executors.ray_actors import StartsActors, WorkerActor
from demur.runs.executors.worker_messages import Task, TaskDone, TaskFailed, WorkerEnded, WorkerMessage, WorkerReady
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import Job
from demur.runs.records import CompletionsMade, JobRecord

CHECKS = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""A node that does not answer for three seconds is lost; by default this takes half a minute."""

STARTS = 3
"""How often a node is started at most. On a busy machine, Ray's own processes may be too late for each other."""


class TwoNodes:
    """A cluster of two nodes with one CPU each. This process is connected to the first one."""

    # Any: Ray is not among the dependencies of demur, so its types are not known here.
    def __init__(self, cluster: Any) -> None:
        """Take a cluster that has its first node.

        Args:
            cluster: Ray's own cluster of nodes on one machine.
        """
        self._cluster = cluster
        self._other: Any = None

    @property
    def whole(self) -> bool:
        """Whether the second node is there."""
        return self._other is not None

    def complete(self) -> None:
        """Start the second node, unless it is there."""
        for left in reversed(range(STARTS)):
            if self._other is not None:
                return
            try:
                self._other = self._cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
            # Ray says with a bare Exception that a node has not started in time.
            except Exception:
                if not left:
                    raise

    def lose(self) -> None:
        """Kill the second node with all that runs on it."""
        self._cluster.remove_node(self._other, allow_graceful=False)
        self._other = None


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster of two nodes. It ends with the context."""
    import ray
    from ray._private import services
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 1, "include_dashboard": False, "_system_config": CHECKS, "node_ip_address": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        # Ray writes the machine's own address in place of 127.0.0.1. Where that address cannot be reached, it waits for ever.
        patch.setattr(services, "get_node_ip_address", lambda address=None: "127.0.0.1")
        patch.setattr(services, "resolve_ip_for_localhost", lambda host: host)
        patch.setattr(ray.util, "get_node_ip_address", lambda address=None: "127.0.0.1")
        cluster = Cluster(initialize_head=True, head_node_args=settings)
        try:
            made = TwoNodes(cluster)
            made.complete()
            ray.init(address=cluster.address, include_dashboard=False)
            yield made
        finally:
            ray.shutdown()
            cluster.shutdown()


class WatchedActors:
    """Counts the actors that are ready and the tasks that they have, without a word of theirs being lost or late."""

    def __init__(self) -> None:
        self.ready = 0
        self.at_work = set[int]()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watches every actor that is started inside the block."""
        start = StartsActors.start

        def started(starts: StartsActors, number: int, hear: Callable[[WorkerMessage], None]) -> WorkerActor:
            def heard(message: WorkerMessage) -> None:
                if isinstance(message, WorkerReady):
                    self.ready += 1
                elif isinstance(message, TaskDone | TaskFailed | WorkerEnded):
                    self.at_work.discard(number)
                hear(message)

            actor = start(starts, number, heard)
            send = actor.send

            def sent(task: Task) -> None:
                self.at_work.add(number)
                send(task)

            actor.send = sent  # type: ignore[method-assign]
            return actor

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StartsActors, "start", started)
            yield


class LosingNode:
    """An executor in whose cluster the second node is lost while both actors are at work. It is an `Executor`."""

    name: ClassVar[str] = "ray"

    def __init__(self, inner: Executor, lose: Callable[[], None], after: int) -> None:
        """Set up.

        Args:
            inner: carries out the jobs, on two actors.
            lose: loses the node. It is called once.
            after: after how many completions at the earliest; 0 for at the first record of any kind.
        """
        self._inner, self._lose, self._after = inner, lose, after
        self.lost = False

    def run(self, jobs: Sequence[Job], inputs: JobInputs) -> Iterator[JobRecord]:
        """Run jobs, and lose the node meanwhile."""
        completions, actors = 0, WatchedActors()
        with actors.watching():
            for record in self._inner.run(jobs, inputs):
                yield record
                # On a busy machine, one actor could do everything before the other has imported torch.
                until(lambda: actors.ready >= 2)
                completions += len(record.rows) if isinstance(record, CompletionsMade) else 0
                if not self.lost and completions >= self._after and len(actors.at_work) == 2:
                    self._lose()
                    self.lost = True


def until(there: Callable[[], bool], seconds: float = 120.0) -> None:
    """Waits for something.

    Raises:
        TimeoutError: if it does not come in time.
    """
    ends = time.monotonic() + seconds
    while not there():
        if time.monotonic() > ends:
            raise TimeoutError(f"waited {seconds:.0f} s in vain")
        time.sleep(0.05)
