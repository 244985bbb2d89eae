"""Which job a free worker gets: what it holds comes first, nothing waits without need, and every job is done once."""

import random

import pytest

from demur.runs.controls.control_jobs import ControlJob, direction_key
from demur.runs.executors.job_queue import JobQueue, Memory, split_generations
from demur.runs.jobs import AskedMeasurement, ExtractJob, GenerateJob, MeasureJob
from demur.runs.rows import StoredCompletion
from demur.study.machines.contiguous_parts import contiguous_parts

GB = 10**9


def extract(name):
    return ExtractJob(f"{name}/p", name, (name,))


def generate(name, *directions, cells=4, rows=10):
    return GenerateJob(name, tuple((f"{name}|{number}", tuple(range(rows))) for number in range(cells)), directions)


def measure(name):
    return MeasureJob(AskedMeasurement("loss"), f"{name}/p", (f"{name}/p",), (name,))


def queue(*jobs, stored=(), sizes=None, attempts=3):
    names = {name for job in jobs for name in job.weights}
    return JobQueue(jobs, stored, dict.fromkeys(names, GB) if sizes is None else sizes, attempts=attempts)


def test_what_a_worker_holds_comes_before_a_load():
    jobs = queue(extract("a"), extract("b"), generate("a", "a", "b"), generate("b", "a", "b"))
    one, other = Memory(4 * GB), Memory(4 * GB)
    first, second = jobs.take(one, [other]), jobs.take(other, [one])
    assert [(task.job.key, task.loads) for task in (first, second)] == [("extract a/p", ("a",)), ("extract b/p", ("b",))]
    # Completions need both directions, so that the first worker waits.
    jobs.done(first.number)
    assert jobs.take(one, [other]) is None
    jobs.done(second.number)
    # Whoever comes first gets what it holds.
    third, fourth = jobs.take(other, [one]), jobs.take(one, [other])
    assert [(task.job.key, task.loads) for task in (third, fourth)] == [("generate b", ()), ("generate a", ())]
    for task in (third, fourth):
        jobs.done(task.number)
    assert jobs.left == 0


def test_a_checkpoint_that_another_worker_holds_is_loaded_only_where_that_pays():
    one = Memory(4 * GB, ["a"])
    assert queue(measure("a")).take(Memory(4 * GB), [one]) is None
    assert queue(measure("a"), measure("a")).take(Memory(4 * GB), [one]).loads == ("a",)
    assert queue(generate("a")).take(Memory(4 * GB), [one]).loads == ("a",)


@pytest.mark.parametrize(
    ("memory", "sizes", "frees"),
    [
        (4 * GB, {"a": GB, "b": GB}, ()),
        (1.5 * GB, {"a": GB, "b": GB}, ("a",)),
        (4 * GB, {"a": GB, "b": None}, ("a",)),
    ],
)
def test_what_does_not_fit_is_freed_before_a_load(memory, sizes, frees):
    jobs = queue(extract("b"), generate("a", "b"), sizes=sizes)
    memory = Memory(memory, ["a"])
    task = jobs.take(memory, [])
    assert (task.frees, task.loads) == (frees, ("b",))
    assert memory.held == [*(() if frees else ("a",)), "b"]


def test_what_no_job_needs_any_more_is_freed():
    memory = Memory(4 * GB, ["a"])
    assert queue(extract("b")).take(memory, []).frees == ("a",)


def test_a_job_whose_worker_died_is_done_again_without_what_is_stored():
    jobs, memory = queue(generate("a", cells=2, rows=3), attempts=2), Memory(4 * GB)
    task = jobs.take(memory, [])
    jobs.made(task.number, [StoredCompletion("a|0", at, "", "", ()) for at in range(3)])
    jobs.made(task.number, [StoredCompletion("a|1", 1, "", "", ())])
    assert jobs.lost(task.number, "was killed")
    again = jobs.take(Memory(4 * GB), [])
    assert again.job.rows == (("a|1", (0, 2)),)
    assert not jobs.lost(again.number, "was killed by SIGKILL")
    assert jobs.failures == ["2 workers died at 'generate a'; the last one was killed by SIGKILL."]
    assert jobs.left == 0


def test_a_job_that_had_sent_all_of_its_completions_is_done():
    jobs = queue(generate("a", cells=1, rows=1), attempts=1), Memory(4 * GB)
    jobs, memory = queue(generate("a", cells=1, rows=1), MeasureJob(AskedMeasurement("loss"), "a|0", ("a/p",), ("a",))), Memory()
    task = jobs.take(memory, [])
    jobs.made(task.number, [StoredCompletion("a|0", 0, "", "", ())])
    assert jobs.lost(task.number, "was killed")
    assert "cell:a|0" in jobs.there


def test_generations_are_cut_where_workers_would_have_nothing_to_do():
    def parts(count, workers):
        jobs = split_generations([extract("c"), *(generate(f"c{number}") for number in range(count))], workers)
        assert jobs[0] == extract("c")
        return [job.key.removeprefix("generate ") for job in jobs[1:]]

    assert parts(4, 2) == ["c0", "c1", "c2", "c3"]
    assert parts(3, 2) == ["c0", "c1", "c2", "c2"]
    assert parts(2, 8) == ["c0"] * 4 + ["c1"] * 4
    assert parts(1, 1) == ["c0"]
    assert parts(1, 9) == ["c0"] * 4  # a cell is not cut
    cut = split_generations([generate("c0", cells=5)], 3)
    assert [row for job in cut for row in job.rows] == list(generate("c0", cells=5).rows)


def test_parts_follow_each_other_and_weigh_about_the_same():
    chance = random.Random(0)
    for _ in range(200):
        weights, count = [chance.randint(0, 9) for _ in range(chance.randint(1, 30))], chance.randint(1, 12)
        parts = contiguous_parts(weights, count)
        assert [index for part in parts for index in part] == list(range(len(weights)))
        assert len(parts) <= count
        assert all(parts)
        heaviest = max(sum(weights[index] for index in part) for part in parts)
        assert heaviest <= sum(weights) / min(count, len(weights)) + max(weights)


def test_any_number_of_workers_that_die_at_random_do_every_job_once():
    chance = random.Random(1)
    for _ in range(100):
        names = [f"c{number}" for number in range(chance.randint(1, 5))]
        jobs = [extract(name) for name in names]
        jobs += [ControlJob(f"random-{name}", "random", name, 0) for name in names]
        jobs += [generate(name, *names, *(f"random-{other}" for other in names), cells=3) for name in names]
        jobs += [measure(name) for name in names]
        workers = chance.randint(1, 6)
        parts = split_generations(jobs, workers)
        left = queue(*parts, attempts=10**6)
        crew = [Memory(chance.choice([GB, 3 * GB, 9 * GB])) for _ in range(workers)]
        running, done = {}, []
        while left.left:
            for number, memory in enumerate(crew):
                if number not in running and (task := left.take(memory, [one for one in crew if one is not memory])):
                    assert set(task.job.weights) <= set(memory.held)
                    assert set(task.job.needs) <= left.there
                    if len(memory.held) > 1:
                        assert len(memory.held) * GB <= memory.bytes
                    running[number] = task
            assert running, "every worker waits although jobs are left"
            number = chance.choice(list(running))
            task = running.pop(number)
            if chance.random() < 0.2:
                assert left.lost(task.number, "was killed")
                crew[number] = Memory(crew[number].bytes)
            else:
                left.done(task.number)
                done.append(task.number)
        assert sorted(done) == list(range(len(parts)))
        assert {direction_key(name) for name in names} <= set(left.there)
