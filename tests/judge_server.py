"""A server on this machine that speaks the OpenAI protocol, and fails in every way that servers fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Rule = Callable[[int, str], str]
"""(number of the request from 0, its text) -> what the server does; see `_Handler.do_POST`."""


def well(_number: int, _text: str) -> str:
    """Always answers."""
    return "answer"


class JudgeServer:
    """What a test sees of the server.

    Attributes:
        base_url: its address.
        rule: what it does with each request.
        reply: the output for a text.
        model: the name under which it answers.
        bodies: the requests that arrived, in order.
        answered: the texts of the requests that were answered well.
        keys: the keys that arrived.
        most_at_once: the most requests that ran at a time.
        usage: whether answers say how many tokens they have.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.rule: Rule = well
        self.reply: Callable[[str], str] = lambda text: "label: refusal" if "cannot" in text else "label: compliance"
        self.model = "judge-model-1"
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answered: list[str] = []
        self.keys: list[str] = []
        self.most_at_once = 0
        self.usage = True
        self.lock = threading.Lock()
        self.running = 0
        self.stopping = threading.Event()


def text_of(body: dict[str, Any]) -> str:
    """The text that a request asks about."""
    said = str(body["prompt"] if "prompt" in body else body["messages"][-1]["content"])
    return said.rpartition("<text>\n")[2].partition("\n</text>")[0] if "<text>" in said else said


def _handler(server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            except (ValueError, ConnectionError):  # the client was killed while it sent its request
                self.close_connection = True
                return
            text = text_of(body)
            with server.lock:
                number = len(server.bodies)
                server.bodies.append(body)
                server.paths.append(self.path)
                server.keys.append(self.headers.get("authorization", ""))
                server.running += 1
                server.most_at_once = max(server.most_at_once, server.running)
            try:
                self.act(server.rule(number, text), body, text)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has gone
            finally:
                with server.lock:
                    server.running -= 1

        def act(self, what: str, body: dict[str, Any], text: str) -> None:
            action, _, value = what.partition(" ")
            if action == "answer":
                time.sleep(float(value or 0))
                self.send_output(server.reply(text), body)
                with server.lock:
                    server.answered.append(text)
            elif action == "status":
                key = self.headers.get("authorization", "").removeprefix("Bearer ")
                self.send(int(value), json.dumps({"error": {"message": f"refused {key}"}}))
            elif action == "crowded":
                self.send(429, json.dumps({"error": {"message": "slow down"}}), {"retry-after": value} if value else {})
            elif action == "nonsense":
                self.send(200, value or "<html>hello</html>")
            elif action == "empty":
                self.send_output("", body)
            elif action == "filtered":
                self.send_output("", body, finish="content_filter")
            elif action == "close":
                self.close_connection = True
                self.connection.close()
            elif action == "stall":
                server.stopping.wait(30)
            else:
                raise AssertionError(what)

        def send_output(self, output: str, body: dict[str, Any], finish: str = "stop") -> None:
            said = {"text": output} if "prompt" in body else {"message": {"role": "assistant", "content": output}}
            found: dict[str, Any] = {"id": "1", "object": "x", "created": 1, "model": server.model}
            found["choices"] = [{"index": 0, "finish_reason": finish, **said}]
            if server.usage:
                found["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            self.send(200, json.dumps(found))

        def send(self, status: int, content: str, headers: dict[str, str] | None = None) -> None:
            data = content.encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    """A server that runs while the block does."""
    found = JudgeServer()
    listening = _Server(("127.0.0.1", 0), _handler(found))
    found.base_url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.stopping.set()
        listening.shutdown()
        listening.server_close()


def judge_file(folder: Path, server: JudgeServer, name: str = "asked", **keys: object) -> str:
    """A judge file that asks this server, with short waits; returns its path."""
    table: dict[str, object] = {
        "name": name,
        "kind": "openai",
        "model": "judge-model",
        "base_url": server.base_url,
        "first_wait_seconds": 0.02,
    }
    table |= {} if "format" in keys or "rubric" in keys else {"rubric": "refusal-labels"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**table, **keys}.items()]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return str(path)
