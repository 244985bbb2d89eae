"""The executor `ray` without Ray: a stand-in for the package whose actors are threads of this process.

`tests/soak/test_ray_cluster.py` does the same on a real cluster.
"""

import sys
from threading import Event

import pytest

import demur
from demur.core.errors import InputError
from demur.models import memory_budget
from demur.runs.executors import task_runner
from demur.runs.executors.chosen_executor import chosen_executor
from demur.runs.executors.executor import Executor
from demur.runs.records import CompletionsMade
from tests.tiny_study import contents, make_study


class RayError(Exception):
    pass


class Method:
    def __init__(self, actor, function):
        self.actor, self.function = actor, function

    def options(self, **settings):
        assert settings == {"num_returns": "streaming"}
        return self

    def remote(self, *values):
        for message in self.function(*values):
            if self.actor.killed.is_set():
                break
            yield message
        if self.actor.killed.is_set():
            raise RayError("The actor died because its node has died.\nNode ID: 1")


class Actor:
    def __init__(self, worker):
        self.killed = Event()
        self.begin, self.run = Method(self, worker.begin), Method(self, worker.run)


class StandIn:
    """What demur uses of the package ray."""

    class exceptions:
        RayError = RayError

    def __init__(self, **resources):
        self.resources, self.actors, self.options, self.up = resources, [], [], False

    def is_initialized(self):
        return self.up

    def init(self, **settings):
        assert settings == {"include_dashboard": False}
        self.up = True

    def shutdown(self):
        self.up = False

    def cluster_resources(self):
        return self.resources

    def nodes(self):
        return [{"Alive": True}, {"Alive": True}, {"Alive": False}]

    def put(self, value):
        return value

    def get(self, value):
        return value

    def kill(self, actor):
        actor.killed.set()

    def remote(self, **options):
        self.options.append(options)

        def made(worker):
            class Remote:
                @staticmethod
                def remote(*values):
                    self.actors.append(Actor(worker(*values)))
                    return self.actors[-1]

            return Remote

        return made


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return demur.load_study(make_study(tmp_path_factory.mktemp("files"), batch_tokens=40))


@pytest.fixture
def ray(monkeypatch):
    stand_in = StandIn(CPU=4.0)
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    # The actors are in this process, whose memory tests of other files use too.
    monkeypatch.setattr(memory_budget, "share", lambda processes: None)
    return stand_in


def test_actors_give_the_rows_of_one_process_and_a_lost_one_is_replaced(study, ray, tmp_path, monkeypatch):
    demur.run(study, tmp_path / "whole").close()
    real, lost = task_runner.run_job, []

    def loses_a_node(job, inputs, loaded):
        for record in real(job, inputs, loaded):
            yield record
            if isinstance(record, CompletionsMade) and not lost:
                lost.append(next(actor for actor in ray.actors if not actor.killed.is_set()))
                for actor in ray.actors:
                    actor.killed.set()

    monkeypatch.setattr(task_runner, "run_job", loses_a_node)
    told = []
    executor = chosen_executor("ray", 2, "cpu", told.append)
    assert isinstance(executor, Executor)
    demur.run(study, tmp_path / "run", executor=executor, device="cpu").close()
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert any("was lost (The actor died because its node has died.) at 'generate " in said for said in told)
    assert len(ray.actors) == 4
    assert ray.options[0] == {"num_cpus": 2, "num_gpus": 0, "max_restarts": 0}
    # The cluster was started for this run, and ended with it; no actor is left.
    assert not ray.is_initialized()
    assert all(actor.killed.is_set() for actor in ray.actors)


def test_what_ray_cannot_do_is_said(study, ray, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="the Ray cluster has no GPU, so the number of actors is not known; give --workers N"):
        demur.run(study, tmp_path / "run", executor="ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs the package ray, which is not installed; pip install 'demur\[ray\]'"):
        demur.run(study, tmp_path / "run", executor="ray", workers=2)
