"""The executor `ray` on a real cluster of two local nodes, of which one is lost in the middle. Needs the extra `ray`.

`python -m benchmarks.lost_nodes` does the same many times, at a different moment each time.
"""

import pytest

import demur
from demur.runs.executors.chosen_executor import chosen_executor
from tests.ray_cluster import LosingNode, two_nodes
from tests.tiny_study import contents, make_study

pytest.importorskip("ray", reason="the package ray is not installed; pip install 'demur[ray]'")
pytestmark = pytest.mark.soak


def test_a_cluster_that_loses_a_node_gives_the_rows_of_one_process(tmp_path):
    study = demur.load_study(make_study(tmp_path / "files", batch_tokens=40, max_new_tokens=24))
    demur.run(study, tmp_path / "whole").close()
    told = []
    with two_nodes() as cluster:
        executor = LosingNode(chosen_executor("ray", 2, "cpu", told.append), cluster.lose, after=1)
        demur.run(study, tmp_path / "run", executor=executor, device="cpu").close()
    assert executor.lost
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert any("the job is done again" in said for said in told), told
