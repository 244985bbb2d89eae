"""Checks once, with a short time-out, whether the model hub can be reached, before code that would retry for half a minute.

demur first looks on this machine and asks the hub only for missing files. If no hub answers, the error names the missing file.
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
    """Whether the hub's address answers within three seconds and `HF_HUB_OFFLINE` is not set."""
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

    # In a separate thread, because a name lookup has no time-out.
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(TIMEOUT_SECONDS)
    return answered.is_set()


def require(what: str, way_out: str) -> None:
    """Check that the hub is in reach.

    Args:
        what: what is missing on this machine, for the error.
        way_out: what to do without a hub, for the error.

    Raises:
        InputError: if no hub answers.
    """
    if not reachable():
        raise InputError(f"{what} is not on this machine, and no model hub can be reached; {way_out}")
