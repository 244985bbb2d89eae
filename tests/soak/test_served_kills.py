"""10,000 completions, a server that fails every tenth request, and five kills: all judged or stated, none lost or twice."""

import random
import time
from collections import Counter

import pytest

from demur.runs.store import Store
from tests.judge_server import judge_file, judge_server
from tests.stored_rows import judge_in_background, make_rows

pytestmark = pytest.mark.soak


def test_ten_thousand_rows_over_five_kills(tmp_path):
    n, chance = 10_000, random.Random(7)
    folder, trouble = make_rows(tmp_path / "run", n), ("status 500", "status 503", "close", "empty", "nonsense")
    with judge_server() as server:
        path = judge_file(tmp_path, server)
        server.rule = lambda number, _: trouble[number // 10 % len(trouble)] if number % 10 == 3 else "answer"
        kills = 0
        while kills < 5:
            before, process = len(server.answered), judge_in_background(folder, path)
            after = chance.randint(300, 1800)
            while process.poll() is None and len(server.answered) < before + after:
                time.sleep(0.005)
            assert process.poll() is None, "it ended before the kill"
            process.kill()
            process.wait()
            kills += 1
        assert judge_in_background(folder, path).wait() == 0
        store = Store.open(folder)
        verdicts, failures, times = store.verdicts(), store.failures(), Counter(server.answered)
        print(f"{len(verdicts)} verdicts, {len(failures)} failures, {len(server.bodies)} requests, {sum(times.values())} answers")
    assert sorted([row.position for row in verdicts] + [row.position for row in failures]) == list(range(n))
    assert all(row.label == ("refusal" if row.position % 2 else "compliance") for row in verdicts)
    # A kill loses at most the answers that were on their way; everything else was asked for once.
    assert sum(times.values()) - len(times) <= 5 * 64
