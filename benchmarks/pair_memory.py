"""Peak memory and time of each measurement of `demur diff demo`, on top of both loaded checkpoints.

    python -m benchmarks.pair_memory [--share 0.06]

Linux only. `--share` is the part of the memory of both checkpoints' weights that a batch of a pair may take.
"""

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import demur
from benchmarks.memory import peak
from demur.engine.lockstep import batch_room
from demur.measurements.measurement import PairSubject, Subject
from demur.runs.measuring.measured_records import measured
from demur.runs.measuring.measurement_jobs import AskedMeasurement
from demur.runs.rows import StoredMeasurement, UnmeasuredSubject


def watched(asked: AskedMeasurement, subject: Subject) -> StoredMeasurement | UnmeasuredSubject:
    """Measure as demur does, and print what it took."""
    if not isinstance(subject, PairSubject):
        return measured(asked, subject)
    pair = (subject.first.checkpoint, subject.second.checkpoint)
    weights = sum(weight.nbytes for one in pair for weight in one.model.parameters())
    found: list[StoredMeasurement | UnmeasuredSubject] = []
    wall, busy = time.perf_counter(), time.process_time()
    before, most = peak(lambda: found.append(measured(asked, subject)))
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    more = most - before
    print(
        f"{asked.name}: {wall:.0f} s ({busy:.0f} s of CPU), {before / 2**20:.0f} MiB before, {more / 2**20:.0f} MiB more, "
        f"{more / weights:.0%} of the weights ({weights / 2**20:.0f} MiB)",
        flush=True,
    )
    return found[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=batch_room.SHARE)
    batch_room.SHARE = parser.parse_args().share
    with tempfile.TemporaryDirectory() as folder, patch("demur.runs.execution.measured", watched):
        demur.diff("demo", out=Path(folder) / "run").close()


if __name__ == "__main__":
    main()
