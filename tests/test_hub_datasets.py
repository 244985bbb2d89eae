"""Published instruction sets from a stand-in of the model hub, and from what is on this machine."""

import sys
from dataclasses import replace
from types import ModuleType

import pytest

from demur.core import network
from demur.core.errors import InputError, WorkError
from demur.inputs import registered_sets
from demur.inputs.instructions import digest
from tests.hub_stand_in import MEMBER, Fault, running, used

ROWS = [f"do thing {i}" for i in range(10)]
CSV = ("Index,Goal\n" + "".join(f"{i},{text}\n" for i, text in enumerate(ROWS))).encode()
NAME = "datasets/JailbreakBench/JBB-Behaviors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("DEMUR_DATA", raising=False)
    published = replace(registered_sets._JAILBREAKBENCH, digest=digest(ROWS))
    monkeypatch.setattr(registered_sets, "_JAILBREAKBENCH", published)
    with running() as server:
        used(server, str(tmp_path / "hub"), monkeypatch)
        files = {"data/harmful-behaviors.csv": CSV, "data/benign-behaviors.csv": b"Goal\nother\n", "README.md": b"#"}
        server.add(NAME, files)
        yield server
    network.reachable.cache_clear()


def test_a_set_is_fetched_once_and_found_again_without_a_request(hub):
    assert registered_sets.jailbreakbench().all() == tuple(ROWS)
    assert hub.fetched() == ["data/harmful-behaviors.csv"]
    hub.requests.clear()
    assert registered_sets.jailbreakbench().all() == tuple(ROWS)
    assert hub.requests == []


def test_a_gated_set_is_one_sentence_and_can_be_read_by_its_members(hub, monkeypatch):
    hub.add(NAME, {"data/harmful-behaviors.csv": CSV}, gated=True)
    with pytest.raises(InputError, match=r"is gated, and nobody is logged in; ask for access at http\S+/datasets/Jail"):
        registered_sets.jailbreakbench()
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    assert registered_sets.jailbreakbench().all() == tuple(ROWS)


@pytest.mark.parametrize("do", ["drop", "stall", "page", 500])
@pytest.mark.parametrize("stage", ["commit", "list", "small"])
def test_faults_are_one_sentence(hub, stage, do):
    hub.faults = [Fault(stage, do)]
    with pytest.raises(WorkError, match="could not be fetched"):
        registered_sets.jailbreakbench()


def test_rows_of_another_version_and_sets_without_the_part_are_refused(hub):
    hub.add(NAME, {"data/harmful-behaviors.csv": CSV + b"10,one more\n"})
    with pytest.raises(InputError, match="have the hash .* another version"):
        registered_sets.jailbreakbench()


def test_a_repository_without_the_part_is_refused(hub):
    hub.add(NAME, {"a.csv": CSV, "b.csv": CSV})
    with pytest.raises(InputError, match="holds no file of rows for 'harmful'"):
        registered_sets.jailbreakbench()


def test_a_file_that_another_program_has_fetched_is_found_offline(hub, tmp_path):
    storage = tmp_path / "hub" / "datasets--JailbreakBench--JBB-Behaviors"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text("1" * 40)
    (storage / "snapshots" / ("1" * 40) / "data").mkdir(parents=True)
    (storage / "snapshots" / ("1" * 40) / "data" / "harmful-behaviors.csv").write_bytes(CSV)
    with network.offline():
        assert registered_sets.jailbreakbench().all() == tuple(ROWS)
    assert hub.requests == []


def test_what_datasets_has_kept_is_found_offline(hub, monkeypatch):
    """`datasets` is not installed here. This module stands for it: it answers from its cache, and only if the network is off."""
    asked = []

    def load_dataset(name, configuration, split):
        import os

        if os.environ.get("HF_HUB_OFFLINE") != "1":
            raise ConnectionError("asked the network")
        asked.append((name, configuration, split))
        return [{"Goal": text} for text in ROWS]

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.setattr(network, "reachable", lambda: False)
    monkeypatch.setattr(network.reachable, "cache_clear", lambda: None, raising=False)
    assert registered_sets.jailbreakbench().all() == tuple(ROWS)
    assert (asked, hub.requests) == ([("JailbreakBench/JBB-Behaviors", "behaviors", "harmful")], [])


def test_without_a_hub_the_message_says_what_to_do(hub):
    with (
        network.offline(),
        pytest.raises(InputError, match="no model hub can be reached, because --offline is given; set"),
    ):
        registered_sets.jailbreakbench()
