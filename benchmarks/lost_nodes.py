"""Whether a Ray cluster that loses a node ends with the rows of one process, each time at another moment.

    python -m benchmarks.lost_nodes [--repeats 20] [--seed 0]

It needs the extra `ray`. The cluster has two nodes of one CPU on this machine. Each repeat carries out a study of two tiny
checkpoints on two actors. While both are at work, it kills the second node with all that runs on it: at the first record, or
after a share of the completions between none and a half. Completions, verdicts, directions, direction files and the summary are
compared with those of one process. A new second node is started for the next repeat. The exit status is 1 if a repeat had other
results.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import demur
from demur.runs.executors.ray_actors import RayActors
from demur.runs.store import Store
from tests.ray_cluster import LosingNode, TwoNodes, two_nodes
from tests.tiny_study import contents, make_study


@dataclass(frozen=True)
class Repeat:
    """One run that lost a node.

    Attributes:
        after: after how many completions.
        seconds: how long the run took, with the time in which Ray noticed the loss.
        same: whether its results are those of one process.
        lost: how many actors the driver missed.
        again: how many jobs were done again.
    """

    after: int
    seconds: float
    same: bool
    lost: int
    again: int


def repeats(folder: Path, cluster: TwoNodes, count: int, seed: int) -> Iterator[Repeat]:
    """Carry out the study again and again.

    Args:
        folder: an empty folder.
        cluster: the cluster.
        count: how often.
        seed: of the moments.
    """
    # In small batches, so that there are many moments.
    study = demur.load_study(make_study(folder / "files", batch_tokens=40, max_new_tokens=24))
    demur.run(study, folder / "whole").close()
    with closing(Store.open(folder / "whole")) as store:
        rows = len(store.completions())
    whole, draw = contents(folder / "whole"), random.Random(seed)
    for number in range(count):
        cluster.complete()
        told: list[str] = []
        after = int(draw.uniform(0, 0.5) * rows)
        executor = LosingNode(RayActors(2, tell=told.append), cluster.lose, after)
        began = time.perf_counter()
        demur.run(study, folder / str(number), executor=executor, device="cpu").close()
        seconds = time.perf_counter() - began
        lost = [said for said in told if "was lost" in said]
        again = sum("the job is done again" in said for said in lost)
        yield Repeat(after, seconds, executor.lost and contents(folder / str(number)) == whole, len(lost), again)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    done = []
    with tempfile.TemporaryDirectory() as folder, two_nodes() as cluster:
        for one in repeats(Path(folder), cluster, given.repeats, given.seed):
            done.append(one)
            said = "the same results" if one.same else "OTHER RESULTS"
            print(
                f"{len(done):3} lost after {one.after} completions: {said}, {one.lost} actors lost, {one.again} jobs done again, "
                f"{one.seconds:.1f} s",
                flush=True,
            )
    same = sum(one.same for one in done)
    print(f"{same} of {len(done)} with the same results; {sum(one.again > 0 for one in done)} lost a job in the middle")
    sys.exit(0 if same == len(done) else 1)


if __name__ == "__main__":
    main()
