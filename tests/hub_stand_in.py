"""A stand-in for the model hub on 127.0.0.1, with faults to order.

Small files come from the hub itself after a redirect. Weights come from a second server on another port, as from the hub's CDN.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from demur.core import network
from demur.core.hub import hub_requests

LARGE = (".safetensors", ".bin", ".parquet")
MEMBER = "hf_member"
SILENCE, STALL = 0.1, 0.4
"""Seconds of silence after which demur asks again, and seconds that a stand-in which stalls is silent."""


@dataclass
class Fault:
    """Something that goes wrong.

    Attributes:
        stage: the requests it concerns: `commit`, `list`, `small` (files) or `weights`.
        do: what happens: drop, cut, close, stall, page, short, more, flip, whole (the range is ignored) or a status.
        times: how many requests it concerns.
        after: how many bytes of the body are sent before `cut` and `close`.
        headers: of an answer that is only a status.
    """

    stage: str
    do: str | int
    times: int = 10**6
    after: int = 300
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """A repository: its commit, its files, and whether it may be read by members only."""

    commit: str
    files: Mapping[str, bytes]
    gated: bool
    private: bool


@dataclass
class HubStandIn:
    """The state of the stand-in: its repositories, the faults to come, and the requests so far."""

    repositories: dict[str, Stored] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    address: str = ""
    cdn: str = ""

    def add(self, name: str, files: Mapping[str, bytes], *, gated: bool = False, private: bool = False) -> str:
        """Put a repository on the hub, `models/owner/name` or `datasets/owner/name`. Returns its commit."""
        commit = hashlib.sha1(name.encode() + b"".join(files.values())).hexdigest()
        self.repositories[name] = Stored(commit, dict(files), gated, private)
        return commit

    def fetched(self) -> list[str]:
        """The files that were asked for, in order."""
        return [found[1] for path, _ in self.requests if (found := re.search(r"/resolve/\w+/(.+)", path))]

    def fault(self, stage: str) -> Fault | None:
        for fault in self.faults:
            if fault.stage == stage and fault.times > 0:
                fault.times -= 1
                return fault
        return None


def digest_of(name: str, content: bytes) -> str:
    """The digest by which the hub names a file."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((path, dict(self.headers)))
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("commit", r"/api/(\w+/[^/]+/[^/]+)/revision/([^/]+)", self.commit),
            ("list", r"/api/(\w+/[^/]+/[^/]+)/tree/(\w+)", self.list),
            ("", r"/(datasets/)?([^/]+/[^/]+)/resolve/(\w+)/(.+)", self.resolve),
            ("small", r"/small/(\w+/[^/]+/[^/]+)/(.+)", self.content),
            ("weights", r"/cdn/(\w+/[^/]+/[^/]+)/(.+)", self.content),
        ]
        for stage, pattern, serve in routes:
            if found := re.fullmatch(pattern, path):
                fault = self.hub.fault(stage)
                if fault is None or not self.failed(fault):
                    self.fault = fault
                    serve(*found.groups())
                return
        self.answer(404, b"")

    def failed(self, fault: Fault) -> bool:
        """Whether the fault is the whole answer."""
        if fault.do == "stall":
            time.sleep(STALL)
        elif fault.do == "drop":
            self.reset()
        elif fault.do == "page":
            self.answer(200, b"<html>Log in to this network</html>", {"Content-Type": "text/html"})
        elif isinstance(fault.do, int):
            self.answer(fault.do, b"", fault.headers)
        return fault.do in ("drop", "page") or isinstance(fault.do, int)

    def reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        fault = getattr(self, "fault", None)
        if fault is not None and fault.do in ("cut", "close"):
            self.wfile.write(body[: fault.after])
            self.wfile.flush()
            if fault.do == "cut":
                self.reset()
            self.close_connection = True
        else:
            self.wfile.write(body)
        self.fault = None

    def stored(self, name: str, *, page: bool = False) -> Stored | None:
        """The repository, if this caller may read it; else the refusal was sent. The page of a gated one is for everybody."""
        found, token = self.hub.repositories.get(name), self.headers.get("Authorization")
        member = token == f"Bearer {MEMBER}"
        if found is None or (found.private and not member):
            self.answer(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        if found.gated and not member and not page:
            self.answer(403 if token else 401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
            return None
        return found

    def commit(self, name: str, revision: str) -> None:
        if (found := self.stored(name, page=True)) is not None:
            if revision not in ("main", found.commit):
                return self.answer(
                    404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id {revision}"}
                )
            self.answer(200, json.dumps({"id": name, "sha": found.commit}).encode())
        return None

    def list(self, name: str, commit: str) -> None:
        if (found := self.stored(name)) is not None:
            entries = []
            for path, content in found.files.items():
                entry: dict[str, object] = {"type": "file", "path": path, "oid": digest_of("", content), "size": len(content)}
                if path.endswith(LARGE):
                    entry["lfs"] = {"oid": digest_of(path, content), "size": len(content), "pointerSize": 134}
                entries.append(entry)
            folders = {path.rpartition("/")[0] for path in found.files} - {""}
            entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
            # Pages of three entries.
            first = int(urlsplit(self.path).query.rpartition("cursor=")[2] or 0) if "cursor=" in self.path else 0
            following = f"{self.hub.address}/api/{name}/tree/{commit}?recursive=true&cursor={first + 3}"
            link = {"Link": f'<{following}>; rel="next"'} if first + 3 < len(entries) else {}
            self.answer(200, json.dumps(entries[first : first + 3]).encode(), link)

    def resolve(self, prefix: str | None, name: str, commit: str, file: str) -> None:
        whole = f"{(prefix or 'models/')}{name}"
        found = self.stored(whole)
        if found is None:
            return
        if file not in found.files:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif file.endswith(LARGE):
            self.answer(302, b"", {"Location": f"{self.hub.cdn}/cdn/{whole}/{file}", "X-Repo-Commit": commit})
        else:
            self.answer(307, b"", {"Location": f"/small/{whole}/{file}", "X-Repo-Commit": commit})

    def content(self, name: str, file: str) -> None:
        body = self.hub.repositories[name].files[file]
        do = None if self.fault is None else self.fault.do
        if do == "flip":
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif do in ("short", "more"):
            body = body[: len(body) // 2] if do == "short" else body + b"more"
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if found is None or do == "whole":
            self.answer(200, body)
        elif int(found[1]) >= len(body):
            self.answer(416, b"")
        else:
            begin = int(found[1])
            self.answer(206, body[begin:], {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"})


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone away is no error here."""


@contextmanager
def running() -> Iterator[HubStandIn]:
    """The stand-in, answering inside the block."""
    hub = HubStandIn()
    handler = type("Bound", (Handler,), {"hub": hub})
    servers = [Server(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def used(hub: HubStandIn, cache: str, patch: pytest.MonkeyPatch, *, silence: float = SILENCE) -> None:
    """Let demur ask the stand-in, with a cache of its own and short waits."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "ENDPOINT", hub.address)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
    patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", silence)
    patch.setattr(hub_requests, "PAUSES", (0.01, 0.01))
    network.reachable.cache_clear()
