"""Jobs replayed on one to a thousand workers that may die: nothing is lost, and more workers are never slower by much."""

import pytest

from demur.runs.executors.replayed_jobs import Costs, replay
from demur.runs.jobs import ExtractJob, GenerateJob

GB = 10**9


def lineage(checkpoints, cells, rows=100):
    """Every checkpoint's direction is used in every checkpoint."""
    names = [f"c{number}" for number in range(checkpoints)]
    jobs = [ExtractJob(f"{name}/p", name, (name,)) for name in names]
    return jobs + [
        GenerateJob(name, tuple((f"{name}|{cell}", tuple(range(rows))) for cell in range(cells)), tuple(names)) for name in names
    ]


def seconds(job):
    return 5.0 if isinstance(job, ExtractJob) else sum(len(positions) for _, positions in job.rows)


def costs(checkpoints, start=0.0):
    names = [f"c{number}" for number in range(checkpoints)]
    return Costs(seconds, dict.fromkeys(names, 10.0), dict.fromkeys(names, GB), start)


def test_one_worker_takes_the_sum_of_everything():
    # Memory for all: four loads. Memory for one: three are loaded again for their completions.
    jobs = lineage(4, cells=3)
    whole = replay(jobs, (), costs(4), workers=1, memory=9 * GB)
    assert (whole.seconds, whole.loads, whole.idle) == (4 * 10 + 4 * 5 + 4 * 300, 4, 0)
    small = replay(jobs, (), costs(4), workers=1, memory=GB)
    assert (small.seconds, small.loads) == (whole.seconds + 3 * 10, 7)
    assert replay(jobs, (), costs(4, start=7.0), workers=1, memory=9 * GB).seconds == whole.seconds + 7


def test_two_workers_take_half_and_more_workers_share_the_cells():
    jobs = lineage(4, cells=4)
    assert replay(jobs, (), costs(4), workers=2, memory=9 * GB).seconds == 2 * (10 + 5) + 2 * 400
    # Eight workers: two for each checkpoint, and the second of each loads it too.
    eight = replay(jobs, (), costs(4), workers=8, memory=9 * GB)
    assert eight.loads == 8
    assert eight.seconds == 10 + 5 + 10 + 200
    # A cell is not cut, so sixteen workers are enough.
    thousand = replay(jobs, (), costs(4), workers=1000, memory=9 * GB)
    assert thousand.seconds == pytest.approx(10 + 5 + 10 + 100)
    assert thousand.idle > 0.97


@pytest.mark.parametrize("workers", [1, 7, 40, 300])
def test_workers_that_die_do_everything_in_the_end(workers):
    jobs = lineage(40, cells=6, rows=20)
    calm = replay(jobs, (), costs(40), workers=workers, memory=3 * GB)
    died = replay(jobs, (), costs(40, start=30.0), workers=workers, memory=3 * GB, lifetime=400.0, attempts=10**6, seed=1)
    assert (calm.deaths, calm.failed, calm.left) == (0, 0, 0)
    assert (died.failed, died.left) == (0, 0)
    assert died.deaths > 0
    assert calm.seconds < died.seconds < 4 * calm.seconds + 400
    assert 0 <= died.idle < 1


def test_a_job_that_is_begun_too_often_fails_and_what_needs_it_is_left():
    failing = replay(lineage(3, cells=2), (), costs(3), workers=2, memory=9 * GB, lifetime=0.5, attempts=2)
    assert failing.failed == 3
    # Two whole generations, and two parts of the third one.
    assert failing.left == 4
    assert failing.deaths == 6
