"""How a lineage would go on one to a thousand workers, of which some die: measured job times, replayed without running anything.

    python -m benchmarks.executors --times times.json
    python -m benchmarks.replay --times times.json [--checkpoints 40] [--cells 60] [--prompts 100] [--slower 1] [--lifetime 8]

`--times` has the seconds of a load, of an extraction and of one completion, as `benchmarks.executors` measured them with one
worker; `--slower` multiplies them, for larger checkpoints. Every direction is tried on every checkpoint. `--lifetime` is the mean
number of hours after which a worker dies. For each number of workers the table has the hours, the share of the time in which
workers have nothing to do, the loads and the deaths, first without and then with deaths. The jobs are given out as in a run
(`demur.runs.executors.job_queue`).
"""

import argparse
import json
from pathlib import Path

from demur.runs.executors.replayed_jobs import Costs, replay
from demur.runs.jobs import ExtractJob, GenerateJob, Job

WORKERS = (1, 2, 4, 8, 16, 40, 100, 300, 1000)


def lineage(checkpoints: int, cells: int, prompts: int) -> list[Job]:
    """The jobs of a lineage in which every checkpoint's direction is used in every checkpoint.

    Args:
        checkpoints: how many checkpoints there are.
        cells: cells of each checkpoint.
        prompts: completions of each cell.
    """
    names = [f"c{number}" for number in range(checkpoints)]
    made: list[Job] = [ExtractJob(f"{name}/p", name, (name,)) for name in names]
    rows = tuple(range(prompts))
    made += [GenerateJob(name, tuple((f"{name}|{cell}", rows) for cell in range(cells)), tuple(names)) for name in names]
    return made


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=Path, required=True)
    parser.add_argument("--checkpoints", type=int, default=40)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--slower", type=float, default=1.0)
    parser.add_argument("--lifetime", type=float, default=8.0)
    parser.add_argument("--held", type=int, default=2, help="how many checkpoints fit into one worker's memory")
    asked = parser.parse_args()
    times: dict[str, float] = {key: asked.slower * float(value) for key, value in json.loads(asked.times.read_text()).items()}

    def seconds(job: Job) -> float:
        if isinstance(job, GenerateJob):
            return times["completion"] * sum(len(positions) for _, positions in job.rows)
        return times["extraction"]

    jobs = lineage(asked.checkpoints, asked.cells, asked.prompts)
    names = [f"c{number}" for number in range(asked.checkpoints)]
    costs = Costs(seconds, dict.fromkeys(names, times["load"]), dict.fromkeys(names, 1), times["start"])
    print(f"{asked.checkpoints} checkpoints, {asked.cells} cells each, {asked.prompts} completions a cell")
    columns = f"{'hours':>9} {'idle':>6} {'loads':>6}"
    print(f"{'workers':>8}  {columns}   with deaths: {columns} {'deaths':>6}")
    for workers in WORKERS:
        calm = replay(jobs, (), costs, workers=workers, memory=asked.held)
        died = replay(jobs, (), costs, workers=workers, memory=asked.held, lifetime=3600 * asked.lifetime)
        note = f"  {died.failed} jobs failed" if died.failed else ""
        print(
            f"{workers:8}  {calm.seconds / 3600:9.2f} {calm.idle:6.0%} {calm.loads:6}   {'':12} {died.seconds / 3600:9.2f} "
            f"{died.idle:6.0%} {died.loads:6} {died.deaths:6}{note}"
        )


if __name__ == "__main__":
    main()
