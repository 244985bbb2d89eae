"""A run folder with many completions that no model wrote, to judge: fast to make, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from demur.analysis.cell import Cell
from demur.runs.rows import StoredCompletion
from demur.runs.store import Store

_JUDGE = """
import sys
from pathlib import Path
from demur.judges.judge import get_judge
from demur.judges.asked.judge_file import spec_of
from demur.runs.judging_stored import judge_stored
from demur.runs.store import Store
store, judge = Store.open(Path(sys.argv[1])), get_judge(sys.argv[2])
store.remember_judge_specs({judge.name: spec_of(judge)})
judge_stored(store, [judge.name])
"""


def make_rows(folder: Path, n: int) -> Path:
    """A run folder of one cell with `n` completions, all different."""
    store = Store.create(folder, "digest", "")
    store.remember_study({"judges": ["asked"], "checkpoints": {"c": {}}})
    store.add_cells([Cell(key="cell", target="c", prompt="p", instructions="harmful", intervention="none")])
    store.add_completions(
        StoredCompletion(
            "cell", i, f"ask {i}", f"This is answer number {i}, and I {'cannot' if i % 2 else 'can'} say it.", (1, 2)
        )
        for i in range(n)
    )
    store.close()
    return folder


def judge_in_background(folder: Path, judge: str) -> subprocess.Popen[bytes]:
    """Judge the folder's completions in a process of its own, which can be killed."""
    return subprocess.Popen([sys.executable, "-c", _JUDGE, str(folder), judge])
