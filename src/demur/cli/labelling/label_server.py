"""Labelling on a local page: a server on this machine alone, for one labeller.

The page's address holds a random token, so other users and other pages cannot find it. A request must name this server as its
host, and one that changes something must come from this page, so no other page can act in the labeller's name.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from demur.core.errors import DemurError
from demur.runs.labelling.label_session import COMMANDS, label_keys

if TYPE_CHECKING:
    from demur.runs.labelling.label_session import LabelSession, ToLabel

_PAGE = Path(__file__).with_name("label_page.html")
_MOST_BYTES = 10_000
"""No request of the page is nearly as long."""

_STALE = "another window or process labelled this completion meanwhile; this is the next one"


class Act(BaseModel):
    """What the page asks for: a label for the shown completion, or a command."""

    model_config = ConfigDict(extra="forbid", strict=True)

    command: str
    number: int
    label: str | None = None


class Shown(BaseModel):
    """The completion that the page shows."""

    number: int
    instruction: str
    text: str


class State(BaseModel):
    """What the page shows. `keys`, `commands` and `definitions` are there once, at the beginning."""

    shown: Shown | None
    labelled: int
    skipped: int
    total: int
    said: str = ""
    ended: bool = False
    keys: dict[str, str] | None = None
    commands: dict[str, str] | None = None
    definitions: dict[str, str] | None = None


class _Server(ThreadingHTTPServer):
    """Each request has a thread, because browsers open connections that they do not use. The work is done by one thread: the one
    that opened the run.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = secrets.token_urlsafe(32)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.work: SimpleQueue[tuple[Act | None, Future[State]]] = SimpleQueue()


def serve(session: "LabelSession", tell: Callable[[str], object]) -> None:
    """Serve the page until the labeller quits, or until Ctrl-C.

    Args:
        session: the labeller at work.
        tell: is called with the address of the page.
    """
    with _Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        tell(f"http://{server.host}/{server.token}/")
        try:
            ended = False
            while not ended:
                try:
                    # A limited wait, so that Ctrl-C is noticed on every system.
                    act, answer = server.work.get(timeout=0.5)
                except Empty:
                    continue
                try:
                    state = acted(session, act)
                except Exception as error:  # the thread that waits for the answer raises it
                    answer.set_exception(error)
                else:
                    answer.set_result(state)
                    ended = state.ended
        finally:
            server.shutdown()
            thread.join()


def acted(session: "LabelSession", act: Act | None) -> State:
    """Do what the page asks for.

    Args:
        session: the labeller at work.
        act: the request; None for the state at the beginning.

    Returns:
        What the page shows next.

    Raises:
        InputError: for a label that does not exist.
    """
    shown = session.next()
    if act is None:
        keys = label_keys(session.design.labels)
        return _state(session, shown, keys=keys, commands=dict(COMMANDS), definitions=session.design.definitions)
    said = ""
    if act.command == "quit":
        return _state(session, shown, ended=True)
    if act.command == "undo":
        said = "the last label is taken back" if session.undo() else "there is nothing to take back"
    elif shown is None or act.number != shown.number:
        said = _STALE
    elif act.command in ("label", "skip"):
        session.give(act.number, act.label if act.command == "label" else None)
    return _state(session, session.next(), said=said)


def _state(session: "LabelSession", shown: "ToLabel | None", **facts: object) -> State:
    done = session.progress()
    seen = None if shown is None else Shown(number=shown.number, instruction=shown.instruction, text=shown.text)
    counts = {"labelled": done.labelled, "skipped": done.skipped, "total": done.total}
    return State.model_validate({"shown": seen, **counts, **facts})


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of the page and refuses all others."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    server_version, sys_version = "demur", ""

    def do_GET(self) -> None:
        """The page, or what it shows at the beginning."""
        path = self._path()
        if path == "":
            self._send_page()
        elif path == "state":
            self._send_state(None)
        elif path is not None:
            self._refuse(404, "there is no such page")

    def do_POST(self) -> None:
        """A label or a command."""
        # Read first: what is left unread would be taken for the next request.
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self.close_connection = True
            self._refuse(413, "the request is too long, or does not say how long it is")
            return
        body = self.rfile.read(int(length))
        path = self._path()
        if path is None:
            return
        origin, kind = self.headers.get("Origin"), self.headers.get("Content-Type", "").partition(";")[0].strip()
        if origin != f"http://{self.server.host}" or kind != "application/json":
            self._refuse(403, "this request does not come from the page of demur label")
        elif path != "act":
            self._refuse(404, "there is no such page")
        else:
            try:
                act = Act.model_validate_json(body)
            except ValidationError:
                self._refuse(400, "the request is not one of this page; load it again")
            else:
                self._send_state(act)

    def _path(self) -> str | None:
        """The part of the path behind the token; None if the request was refused."""
        token, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
        # Another host's name in front of this address would give that host's pages access (DNS rebinding).
        known = self.headers.get("Host") == self.server.host
        if not known or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(404, "there is no such page")
            return None
        return path

    def _send_state(self, act: Act | None) -> None:
        answer: Future[State] = Future()
        self.server.work.put((act, answer))
        try:
            state = answer.result()
        except DemurError as error:
            self._refuse(400, str(error))
            return
        self._send(200, "application/json", state.model_dump_json(exclude_none=True).encode())

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        page = _PAGE.read_text(encoding="utf-8").replace("@NONCE@", nonce)
        self._send(200, "text/html; charset=utf-8", page.encode(), {"Content-Security-Policy": policy})

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, "application/json", json.dumps({"error": reason}).encode())

    def _send(self, status: int, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**always, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the address holds the token."""
