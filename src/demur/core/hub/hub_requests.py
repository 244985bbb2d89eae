"""Requests to the model hub that end: with an answer, or with one sentence within a stated time.

A host that sends nothing for `HF_HUB_DOWNLOAD_TIMEOUT` seconds (10 by default) is asked again, three times in all. So a request
without any answer costs at most 33 seconds. If the hub itself asks to wait, it costs up to 60 seconds more. Each wait is logged
with the name of the host.

Connections, certificates, proxies and the login are those of huggingface_hub.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from demur.core.errors import WorkError
from demur.core.hub.hub_refusals import Asked, Transient, given_up, refusal

logger = logging.getLogger("demur.hub")

PAUSES = (1.0, 2.0)
"""Seconds between the tries of a request. There is one try more than pauses."""

MOST_WAIT = 30.0
"""The longest wait, in seconds, that the hub may ask for. If it asks for more, the work ends and says so."""

_AGAIN = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}
"""HTTP statuses after which the same request may succeed."""

T = TypeVar("T")


def endpoint() -> str:
    """The address of the hub: `HF_ENDPOINT`, or that of Hugging Face."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def host() -> str:
    """The hub's host as messages name it."""
    return urlsplit(endpoint()).netloc


def patience() -> float:
    """Seconds without a byte after which a host counts as silent: `HF_HUB_DOWNLOAD_TIMEOUT`."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def tried(asked: Asked, one_try: Callable[[], T], arrived: Callable[[], int] = lambda: 0) -> T:
    """Call a function until it succeeds.

    Args:
        asked: what is asked for, for messages.
        one_try: makes the request; raises `Transient` if it may succeed later.
        arrived: how many bytes have arrived so far. If a try brings some, the count of tries begins again.

    Returns:
        What the function returns.

    Raises:
        WorkError: if the last try fails too, or if the hub asks for a longer wait than `MOST_WAIT`.
    """
    count = 0
    while True:
        before = arrived()
        try:
            return one_try()
        except Transient as error:
            count = 1 if arrived() > before else count + 1
            if count > len(PAUSES) or (error.wait or 0) > MOST_WAIT:
                raise given_up(asked, error, count) from error
            pause = max(error.wait or 0, PAUSES[count - 1])
            logger.warning(
                f"waiting for {asked.host}, which {error.said} ({asked}); try {count + 1} of {len(PAUSES) + 1} in {pause:.0f} s"
            )
            time.sleep(pause)


# Any: the answers of huggingface_hub's HTTP client, whose package has another name in each of its versions.
@contextmanager
def answer(url: str, asked: Asked, **headers: str) -> Iterator[Any]:
    """The answer to a GET request, as a stream. Its status is below 300.

    Args:
        url: the address.
        asked: what is asked for, for messages.
        **headers: more headers, for example `Range`.

    Raises:
        Transient: if the same request may succeed later.
        DemurError: if it cannot.
    """
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]  # public, but not in __all__

    sent = {**build_hf_headers(library_name="demur"), "Accept-Encoding": "identity", **headers}
    try:
        with get_session().stream("GET", url, headers=sent, timeout=patience(), follow_redirects=True) as given:
            _check_status(given, asked)
            yield given
    except Exception as error:
        failure = _failure(error, asked)
        if failure is None:
            raise
        raise failure from error


# Any: what the hub's JSON holds depends on the question.
def ask(path: str, asked: Asked) -> tuple[Any, str | None]:
    """What the hub's API answers.

    Args:
        path: the path after the endpoint, or a whole address.
        asked: what is asked for, for messages.

    Returns:
        The JSON value, and the address of the next page if there is one.

    Raises:
        DemurError: if the hub refuses, or does not answer as a hub does.
    """
    url = path if path.startswith("http") else endpoint() + path

    def once() -> tuple[Any, str | None]:
        with answer(url, asked) as given:
            content = given.read()
            try:
                return json.loads(content), given.links.get("next", {}).get("url")
            except ValueError as error:
                raise _not_the_hub(given, asked) from error

    return tried(asked, once)


def _not_the_hub(given: Any, asked: Asked) -> WorkError:
    kind = str(given.headers.get("Content-Type") or "no content type").partition(";")[0]
    return WorkError(
        f"{asked} could not be fetched: {asked.host} does not answer as the hub does ({kind}), but as the log-in page of a "
        "network; open a page in a browser to log in to the network, and run the same command again"
    )


def check_is_file(given: Any, asked: Asked, begin: int, size: int) -> None:
    """Check that an answer to a request for a file is this file, by what its headers say.

    Args:
        given: the answer.
        asked: the file.
        begin: the first byte that was asked for.
        size: the file's size by the repository's list, in bytes.

    Raises:
        Transient: if the size is another one.
        WorkError: if it is a web page.
    """
    if given.headers.get("Content-Encoding", "identity") != "identity":
        return
    whole = str(given.headers.get("Content-Range") or "").rpartition("/")[2] if given.status_code == 206 else None
    stated = whole or given.headers.get("Content-Length")
    if stated is None or not stated.isdigit() or int(stated) == size:
        return
    if "text/html" in str(given.headers.get("Content-Type")):
        raise _not_the_hub(given, asked)
    raise Transient(f"offers {int(stated):,} bytes of a file that has {size:,} by its list (asked from byte {begin:,} on)")


def _check_status(given: Any, asked: Asked) -> None:
    status = int(given.status_code)
    if status < 300:
        return
    if status in _AGAIN:
        wait = str(given.headers.get("Retry-After") or "")
        raise Transient(f"answers with status {status}", float(wait) if wait.isdigit() else None)
    if status == 416:
        raise Transient("does not have the part of the file that is still missing")
    raise refusal(asked, status, given.headers.get("X-Error-Code") or "", given.headers.get("X-Error-Message") or "")


def _failure(error: Exception, asked: Asked) -> Exception | None:
    """What a failed connection is for `tried`; None for an error that has nothing to do with it."""
    kinds = {one.__name__ for one in type(error).__mro__}
    if "TimeoutException" in kinds:
        return Transient(f"has sent nothing for {patience():g} s")
    if "OfflineModeIsEnabled" in kinds:
        return WorkError(f"{asked} was not fetched, because HF_HUB_OFFLINE is set; unset it, or download the files first")
    if "ConnectError" in kinds or "ProxyError" in kinds:
        return Transient("cannot be reached")
    if kinds & {"NetworkError", "RemoteProtocolError", "StreamError", "DecodingError"}:
        return Transient("closed the connection before all of the answer was there")
    if kinds & {"HTTPError", "InvalidURL"}:
        return WorkError(f"{asked} could not be fetched from {asked.host}: {type(error).__name__}, {error}")
    return None
