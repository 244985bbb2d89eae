"""The executor `ray` on a real cluster of two local nodes, of which one is lost in the middle. Needs the extra `ray`."""

import pytest

import demur
from demur.runs.executors.chosen_executor import chosen_executor
from tests.tiny_study import contents, make_study

ray = pytest.importorskip("ray", reason="the package ray is not installed; pip install 'demur[ray]'")
pytestmark = pytest.mark.soak
CHECKS = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""A node that does not answer for three seconds is lost; by default this takes half a minute."""


@pytest.fixture
def loopback(monkeypatch):
    """Ray writes the machine's own address in place of 127.0.0.1. Where that address cannot be reached, it waits for ever."""
    from ray._private import services

    monkeypatch.setattr(services, "get_node_ip_address", lambda address=None: "127.0.0.1")
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda host: host)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda address=None: "127.0.0.1")


@pytest.fixture
def cluster(loopback):
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": 1, "include_dashboard": False, "_system_config": CHECKS, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args=settings)
    try:
        made.other = made.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        ray.init(address=made.address, include_dashboard=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_a_cluster_that_loses_a_node_gives_the_rows_of_one_process(cluster, tmp_path):
    study = demur.load_study(make_study(tmp_path / "files", batch_tokens=40))
    demur.run(study, tmp_path / "whole").close()
    told, rows = [], []

    def watch(record):
        rows.append(record)
        # The other node is lost once completions come in.
        if type(record).__name__ == "CompletionsMade" and cluster.other is not None:
            cluster.remove_node(cluster.other, allow_graceful=False)
            cluster.other = None

    from demur.runs import driver

    commit = driver.commit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "commit", lambda record, store: (commit(record, store), watch(record)))
        demur.run(study, tmp_path / "run", executor=chosen_executor("ray", 2, "cpu", told.append), device="cpu").close()
    assert cluster.other is None
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert any("was lost" in said for said in told), told
