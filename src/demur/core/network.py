"""Checks once, with a short time-out, whether the model hub can be reached. Other code would retry for half a minute.

demur looks for files on this machine first and asks the hub only for missing ones. If no hub answers, the error names the file.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from urllib.parse import urlsplit

from demur.core.errors import InputError

TIMEOUT_SECONDS = 3.0
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")

_asked_offline = False


@contextmanager
def offline() -> Iterator[None]:
    """Inside the block, the hub is asked nothing, as if `HF_HUB_OFFLINE` were set from the beginning."""
    global _asked_offline
    before, was_asked = {name: os.environ.get(name) for name in _OFFLINE}, _asked_offline
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    # Earlier imports of these packages have read the environment already.
    patched = [
        (module, name, getattr(module, name))
        for place, name in (("huggingface_hub.constants", "HF_HUB_OFFLINE"), ("datasets.config", "HF_HUB_OFFLINE"))
        if hasattr(module := sys.modules.get(place), name)
    ]
    for module, name, _ in patched:
        setattr(module, name, True)
    _asked_offline = True
    reachable.cache_clear()
    try:
        yield
    finally:
        for module, name, value in patched:
            setattr(module, name, value)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _asked_offline = was_asked
        reachable.cache_clear()


@cache
def reachable() -> bool:
    """Whether the hub, or the proxy to it, answers within three seconds. False if `HF_HUB_OFFLINE` is set."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    from huggingface_hub import constants

    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlsplit(proxy or constants.ENDPOINT)
    port = target.port or (443 if target.scheme == "https" else 80)
    answered = threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((target.hostname or "", port), timeout=TIMEOUT_SECONDS):
            answered.set()

    # In a separate thread, because a name lookup has no time-out.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return answered.is_set()


def require(what: str, way_out: str) -> None:
    """Check that the hub can be reached.

    Args:
        what: what is missing on this machine, for the error.
        way_out: what to do without a hub, for the error.

    Raises:
        InputError: if no hub answers.
    """
    if not reachable():
        why = ", because --offline is given" if _asked_offline else ""
        raise InputError(f"{what} is not on this machine, and no model hub can be reached{why}; {way_out}")
