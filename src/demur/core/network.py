"""Is a hub in reach? Asked once, with a short time-out, before anything that would retry for half a minute.

demur looks locally first; only what is not on this machine asks the hub, and where none answers the error says what is missing.
"""

import os
import socket
import threading
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit

from demur.core.errors import InputError

TIMEOUT_SECONDS = 3.0


@cache
def reachable() -> bool:
    """True where the hub's address answers within three seconds and `HF_HUB_OFFLINE` is not set."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlsplit(proxy if proxy else constants.ENDPOINT)
    port = target.port or (443 if (target if proxy else address).scheme == "https" else 80)
    answered = threading.Event()

    def knock() -> None:
        with suppress(OSError), socket.create_connection((target.hostname or "", port), timeout=TIMEOUT_SECONDS):
            answered.set()

    # In a thread of its own, because looking up a name knows no time-out.
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(TIMEOUT_SECONDS)
    return answered.is_set()


def require(what: str, way_out: str) -> None:
    """Raises `InputError` where no hub answers: `what` is missing, `way_out` is what to do without one."""
    if not reachable():
        raise InputError(f"{what} is not on this machine and no model hub is in reach; {way_out}")
