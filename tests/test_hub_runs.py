"""Studies whose checkpoints come from a stand-in of the model hub."""

import pytest
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core import network
from demur.core.errors import WorkError
from demur.models.sources import at_hand, find_model
from demur.runs.executors.fetch_ahead import FetchAhead
from demur.study.load_order import Step
from tests.hub_stand_in import Fault, running, used
from tests.tiny_study import make_study


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose two checkpoints are on the hub, beside files that are not needed. `study.hub` is the hub."""
    path = make_study(tmp_path)
    with running() as server:
        used(server, str(tmp_path / "hub"), monkeypatch, silence=2)
        text = path.read_text()
        for name in ("base", "chat"):
            server.add(f"models/owner/{name}", {**content_of(tmp_path / name), "onnx/model.bin": bytes(10**6)})
            text = text.replace(f'"{tmp_path}/{name}"', f'"owner/{name}"')
        path.write_text(text)
        yield path, server
    network.reachable.cache_clear()


def invoke(*arguments, status=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == status, result.output
    return result


def test_a_plan_says_what_is_still_to_be_fetched_and_fetches_only_configs(study):
    path, hub = study
    text = " ".join(invoke("plan", path).stdout.split())
    sizes = {name: sum(len(content) for file, content in hub.repositories[f"models/owner/{name}"].files.items()
                       if "/" not in file and file != "config.json") for name in ("base", "chat")}  # fmt: skip
    host = hub.address.removeprefix("http://")
    assert f"fetch {sum(sizes.values()) / 1024:.0f} KiB from {host} that is not on this machine yet: base " in text
    assert f"chat {sizes['chat'] / 1024:.0f} KiB" in text
    assert set(hub.fetched()) == {"config.json"}
    assert max(map(len, invoke("plan", path).stdout.splitlines())) <= 80
    # Offline, neither is known, and a plan needs neither.
    hub.requests.clear()
    assert "fetch " not in invoke("plan", path, "--offline").stdout
    assert hub.requests == []


def test_a_plan_says_if_the_disk_has_too_little_room(study, monkeypatch):
    monkeypatch.setattr("demur.study.machines.fetch_outlook.shutil.disk_usage", lambda _: type("Usage", (), {"free": 2048}))
    assert "but the disk of its cache has only 2 KiB free" in " ".join(invoke("plan", study[0]).stdout.split())


def test_a_run_fetches_what_it_reads_once_and_frees_the_disk_where_asked_to(study, tmp_path):
    path, hub = study
    invoke("run", path, "--out", tmp_path / "run", "--limit", 1, "-q", "--free-disk")
    assert not [name for name in hub.fetched() if "onnx" in name]
    assert len(set(hub.fetched())) * 2 == len(hub.fetched())
    kept = [file for file in (tmp_path / "hub").rglob("*") if file.is_file()]
    assert "config.json" in {file.name for file in kept}
    assert "model.safetensors" not in {file.name for file in kept}
    assert max(file.stat().st_size for file in kept) < 60_000  # the tokenizer; the weights have more


def steps_of(*words):
    return [Step(word.split()[0], word.split()[1]) for word in words]


def sources():
    return {name: find_model(f"owner/{name}") for name in ("base", "chat")}


def test_the_next_checkpoint_is_fetched_while_this_one_runs(study):
    _, hub = study
    ahead = FetchAhead(steps_of("load base", "free base", "load chat", "free chat"), sources(), free_disk=False)
    ahead.wait_for("base")
    assert hub.fetched() == []  # nothing runs yet, so there is nothing to be ahead of
    at_hand(find_model("owner/base"))
    ahead.loaded()
    ahead.wait_for("chat")
    assert find_model("owner/chat").kind == "folder"
    ahead.freed("base")
    assert find_model("owner/base").kind == "folder"
    ahead.close()


def test_a_fetch_that_fails_ahead_is_an_error_only_at_the_load(study, monkeypatch):
    _, hub = study
    ahead = FetchAhead(steps_of("load base", "load chat"), sources(), free_disk=False)
    ahead.wait_for("base")
    hub.faults = [Fault("weights", 500)]
    ahead.loaded()
    ahead.wait_for("chat")
    with pytest.raises(WorkError, match="status 500"):
        at_hand(find_model("owner/chat"))


def test_a_fetch_ahead_can_be_ended(study):
    _, hub = study
    ahead = FetchAhead(steps_of("load base", "load chat"), sources(), free_disk=False)
    ahead.wait_for("base")
    hub.faults = [Fault("weights", "stall")]
    ahead.loaded()
    ahead.close()
    assert find_model("owner/chat").kind == "hub"


def test_only_weights_that_the_run_fetched_are_deleted_and_only_after_their_last_load(study):
    at_hand(find_model("owner/base"))
    steps = steps_of("load base", "load chat", "free chat", "load chat", "free chat", "free base")
    ahead = FetchAhead(steps, sources(), free_disk=True)
    at_hand(find_model("owner/chat"))
    ahead.freed("chat")
    assert find_model("owner/chat").kind == "folder"
    ahead.freed("chat")
    assert find_model("owner/chat").kind == "hub"
    ahead.freed("base")
    assert find_model("owner/base").kind == "folder"
