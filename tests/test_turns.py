"""Threads that share a model wait for each other, and what they get is what each gets alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import demur
from demur.directions.direction import from_raw
from demur.engine.checkpoints import wrap
from demur.engine.model_state import one_thread_at_a_time
from tests.tiny import HARMFUL, tiny_model


def test_threads_of_one_model_go_one_after_the_other_and_others_do_not_wait():
    model, other, inside, most = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), [], []
    met = threading.Barrier(2, timeout=10)

    @one_thread_at_a_time
    def work(model, *, meet=False):
        inside.append(model)
        most.append(sum(one is model for one in inside))
        if meet:
            met.wait()
        threading.Event().wait(0.01)
        inside.remove(model)

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(work, model) for _ in range(8)]:
            one.result()
        # Both have to be inside at once.
        for one in [pool.submit(work, each, meet=True) for each in (model, other)]:
            one.result()
    assert set(most) == {1}


def test_a_thread_may_call_itself():
    model = torch.nn.Linear(1, 1)

    @one_thread_at_a_time
    def work(model, again):
        return work(model, False) if again else "done"

    assert work(model, True) == "done"


@pytest.mark.parametrize("kind", [pytest.param("one", marks=pytest.mark.soak), "two"])
def test_rows_of_two_threads_are_those_of_one(kind, checkpoint):
    direction = from_raw(torch.randn(32, generator=torch.Generator().manual_seed(1)), name="d", layer=1)
    checkpoints = [checkpoint, checkpoint if kind == "one" else wrap(tiny_model("llama", seed=2), checkpoint.tokenizer)]

    def rows(which, edit):
        prompt = demur.prompt_format("USER {instruction} ASSISTANT :", which)
        return [demur.generate(which, HARMFUL, prompt, [edit], max_new_tokens=6) for _ in range(6)]

    jobs = [(checkpoints[k % 2], edit) for k, edit in enumerate([None, demur.ablate(direction), demur.add(direction, 9.0), None])]
    expected = [rows(*job) for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(lambda job: rows(*job), jobs)) == expected
    assert len({str(one) for one in expected}) > 1
