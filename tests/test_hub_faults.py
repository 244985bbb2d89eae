"""Every fault of the model hub gives files that are whole, or one sentence with status 1 or 2 within a stated time."""

import time

import pytest
from typer.testing import CliRunner

from demur.cli.main import app
from demur.core import network
from demur.core.errors import InputError, WorkError
from demur.core.hub import fetched_files, hub_requests
from demur.models.sources import at_hand, find_adapter, find_model
from tests.hub_stand_in import MEMBER, SILENCE, Fault, HubStandIn, running, used

WEIGHTS = bytes(range(256)) * 16
FILES = {"config.json": b'{"model_type": "llama"}' + b" " * 400, "tokenizer.json": b"{}" * 500, "model.safetensors": WEIGHTS}
REST = {"README.md": b"# Tiny", "onnx/model.onnx": b"x", "onnx/config.json": b"{}", "checkpoint-500/model.safetensors": b"y"}


@pytest.fixture(scope="module")
def server():
    with running() as hub:
        yield hub


@pytest.fixture
def hub(server: HubStandIn, tmp_path, monkeypatch):
    server.repositories.clear()
    server.requests.clear()
    server.faults = []
    used(server, str(tmp_path / "hub"), monkeypatch)
    server.add("models/owner/tiny", {**REST, **FILES})
    yield server
    network.reachable.cache_clear()


def load(reference: str = "owner/tiny"):
    return at_hand(find_model(reference)).path


def assert_whole(folder, files=FILES) -> None:
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == dict(files)


STAGES = ("commit", "list", "small", "weights")
RECOVERS = [
    *((stage, do, 2) for stage in STAGES for do in ("drop", "stall", 429, 500, 503)),
    *((stage, do, 2) for stage in STAGES for do in ("cut", "close") if stage != "commit"),
    *((stage, do, 1) for stage in ("small", "weights") for do in ("flip", "short", "more", "whole", 416)),
]


def often(cases):
    """Faults of the list and of the weights each time; the same faults of other files with the long tests."""
    return [pytest.param(*case, marks=() if case[0] in ("list", "weights") else pytest.mark.soak) for case in cases]


@pytest.mark.parametrize(("stage", "do", "times"), often(RECOVERS))
def test_a_fault_that_passes_gives_whole_files(hub, stage, do, times):
    hub.faults = [Fault(stage, do, times, after=100)]
    assert_whole(load())


SENTENCES = {
    "drop": (WorkError, r"closed the connection before all of the answer was there \(3 tries\)"),
    "stall": (WorkError, r"has sent nothing for 0.1 s \(3 tries\)"),
    "page": (WorkError, r"not answer as the hub does \(text/html\), but as the log-in page of a network"),
    401: (InputError, "does not accept the login"),
    403: (InputError, "refuses access"),
    404: (InputError, "there is no 'owner/tiny' on 127.0.0.1"),
    429: (WorkError, r"answers with status 429 \(3 tries\)"),
    500: (WorkError, r"answers with status 500 \(3 tries\)"),
    503: (WorkError, r"answers with status 503 \(3 tries\)"),
    418: (WorkError, "answers with status 418"),
    "flip": (WorkError, "arrived twice with another content"),
    "short": (WorkError, r"offers [\d,]+ bytes of a file that has [\d,]+ by its list"),
    "more": (WorkError, r"offers [\d,]+ bytes of a file that has [\d,]+ by its list"),
}


@pytest.mark.parametrize("do", SENTENCES)
@pytest.mark.parametrize("stage", often([(stage,) for stage in STAGES]))
def test_a_fault_that_stays_is_one_sentence_within_a_stated_time(hub, stage, do):
    if do in ("flip", "short", "more") and stage in ("commit", "list"):
        pytest.skip("the lists have no stated size")
    hub.faults = [Fault(stage, do)]
    error, sentence = SENTENCES[do]
    begun = time.monotonic()
    with pytest.raises(error, match=sentence) as caught:
        load()
    # Three tries, with pauses that the tests make short.
    assert time.monotonic() - begun < 3 * SILENCE + 5
    assert "\n" not in str(caught.value)
    assert "owner/tiny" in str(caught.value)
    hub.faults = []
    assert_whole(load())


@pytest.mark.parametrize("do", ["cut", "close"])
def test_a_transfer_goes_on_where_it_was_cut_even_in_a_later_command(hub, do, monkeypatch):
    monkeypatch.setattr(fetched_files, "_CHUNK", 512)
    monkeypatch.setattr(hub_requests, "PAUSES", ())
    hub.faults = [Fault("weights", do, 1, after=2048)]
    with pytest.raises(WorkError, match="what has arrived is kept, and the same command goes on from there"):
        load()
    hub.requests.clear()
    assert_whole(load())
    (resumed,) = [headers["Range"] for path, headers in hub.requests if path.startswith("/cdn")]
    assert 2048 - 512 <= int(resumed.removeprefix("bytes=").rstrip("-")) <= 2048
    assert hub.fetched() == ["model.safetensors"]


def test_only_files_that_loading_reads_are_fetched(hub):
    hub.add("models/owner/tiny", {**REST, **FILES, "consolidated.safetensors": b"z", "pytorch_model.bin": b"p"})
    assert_whole(load())
    assert sorted(hub.fetched()) == sorted(FILES)


@pytest.mark.parametrize("other", ["onnx/model.safetensors", "consolidated.safetensors", "checkpoint-500/model.safetensors"])
def test_a_repository_with_pickled_weights_beside_other_files_is_fetched(hub, other):
    files = {"config.json": FILES["config.json"], "pytorch_model.bin": b"weights"}
    hub.add("models/owner/old", {**files, other: b"y"})
    assert_whole(load("owner/old"), files)


def test_shards_are_those_of_the_index(hub):
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    shards = {f"model-0000{i}-of-00002.safetensors": WEIGHTS + bytes([i]) for i in (1, 2)}
    files = {"config.json": b"{}", "model.safetensors.index.json": index, **shards}
    hub.add("models/owner/large", {**files, "model-00001-of-00001.safetensors": b"left over"})
    assert_whole(load("owner/large"), files)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": b"{}", "model.gguf": b"g"}, "no whole set of weights .* it holds model.gguf"),
        ({"model.q4.gguf": b"g"}, "holds no config.json; download one of its GGUF files, such as model.q4.gguf"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"a"}, "a PEFT adapter, so give it as the adapter"),
        (
            {
                "config.json": b"{}",
                "model.safetensors.index.json": b'{"weight_map": {"a": "../out.safetensors"}}',
                "../out.safetensors": b"a",
            },
            "a path that leads out of its folder",
        ),
    ],
)
def test_a_repository_that_cannot_be_loaded_is_refused(hub, files, sentence, tmp_path):
    hub.add("models/owner/other", files)
    with pytest.raises(InputError, match=sentence):
        load("owner/other")
    assert not list(tmp_path.rglob("out.safetensors"))


def test_an_adapter_is_fetched_with_its_weights(hub):
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a" * 10}
    hub.add("models/owner/adapter", {**files, "checkpoint-1/adapter_model.safetensors": b"b", "optimizer.bin": b"c"})
    assert_whole(find_adapter("owner/adapter"), files)


def test_gated_and_private_repositories(hub, monkeypatch):
    hub.add("models/owner/gated", FILES, gated=True)
    hub.add("models/owner/private", FILES, private=True)
    with pytest.raises(InputError, match=r"'owner/gated' is gated, and nobody is logged in; ask for access at http"):
        load("owner/gated")
    with pytest.raises(InputError, match="there is no 'owner/private' on .*, or it is private"):
        load("owner/private")
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(InputError, match="is gated, and this account has no access"):
        load("owner/gated")
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    assert_whole(load("owner/gated"))
    assert_whole(load("owner/private"))
    # The login stays with the hub.
    assert not any("Authorization" in headers for path, headers in hub.requests if path.startswith("/cdn"))


def test_a_revision_that_is_not_there_is_named(hub):
    with pytest.raises(InputError, match="'owner/tiny' on 127.0.0.1:.* has no revision 'v9'"):
        load("owner/tiny@v9")


def test_what_was_fetched_is_found_again_without_a_request(hub):
    commit = hub.repositories["models/owner/tiny"].commit
    folder = load()
    hub.requests.clear()
    for reference in ("owner/tiny", "owner/tiny@main", f"owner/tiny@{commit}"):
        found = find_model(reference)
        assert (found.path, found.revision, found.kind) == (folder, commit, "folder")
    assert hub.requests == []


def test_a_hub_that_asks_for_a_long_wait_is_not_waited_for(hub):
    hub.faults = [Fault("commit", 429, headers={"Retry-After": "600"})]
    with pytest.raises(WorkError, match="answers with status 429; it asks to wait 600 s"):
        load()


def test_too_little_space_is_said_before_anything_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(fetched_files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(WorkError, match="'owner/tiny' needs .* more on the disk of .*, which has 0 KiB free"):
        load()
    assert hub.fetched() == []


@pytest.mark.parametrize(("do", "status"), [(404, 2), ("stall", 1), ("page", 1)])
def test_the_command_line_says_for_whom_it_waits_and_ends_with_one_sentence(hub, do, status):
    hub.faults = [Fault("list", do)]
    result = CliRunner().invoke(app, ["doctor", "--model", "owner/tiny"])
    assert result.exit_code == status, result.output
    *waits, last = result.stderr.strip().splitlines()
    assert last.startswith("demur: ")
    host = hub.address.removeprefix("http://")
    expected = [f"waiting for {host}, which has sent nothing for 0.1 s (the list of files of 'owner/tiny'); try {i} of 3 in 0 s"
                for i in (2, 3)]  # fmt: skip
    assert waits == (expected if do == "stall" else [])


def test_offline_asks_nothing(hub):
    result = CliRunner().invoke(app, ["doctor", "--model", "owner/tiny", "--offline"])
    assert (result.exit_code, hub.requests) == (2, [])
    assert "'owner/tiny' is not on this machine, and no model hub can be reached, because --offline is given" in result.stderr
    assert_whole(load())


def test_other_errors_are_not_taken_for_the_hubs(hub, monkeypatch):
    monkeypatch.setattr("demur.core.hub.hub_requests._check_status", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load()
