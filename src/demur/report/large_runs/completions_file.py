"""Where the page has its completions: inside, or, for a large run, in a file beside it that is loaded when they are opened.

A browser does not let a page on a disk read other files, but it lets the page load a script from there. So the file beside the
page is a script: one call with the compressed completions, and with a digest by which the page knows its own file.
"""

import gzip
import hashlib
from base64 import b64encode
from dataclasses import dataclass

from demur.report.payload import PageData, script_json

NAME = "report-completions.js"
"""The file beside the page."""

MOST_INSIDE = 5_000_000
"""Completions that take more characters than this are beside the page."""

_LEVEL = 6
"""How hard gzip tries. For 384,000 completions, 9 takes four times as long and saves a twenty-fifth of the bytes."""


@dataclass(frozen=True)
class StoredCompletions:
    """The completions of a page.

    Attributes:
        count: how many there are.
        inside: their JSON for a script element of the page; empty if they are beside it.
        file: the content of the file beside the page; None if they are inside.
        digest: the digest that page and file both have; empty if they are inside.
    """

    count: int
    inside: str
    file: bytes | None = None
    digest: str = ""

    @property
    def beside(self) -> str:
        """The name of the file beside the page; empty if there is none."""
        return "" if self.file is None else NAME


def stored_completions(data: PageData) -> StoredCompletions:
    """Decides where the completions of a page are.

    Args:
        data: the completions.

    Returns:
        The completions in the form in which they are written. The same data give the same bytes.
    """
    text = script_json(data)
    count = sum(len(cell["rows"]["text"]) for cell in data["cells"])
    if len(text) <= MOST_INSIDE:
        return StoredCompletions(count, text)
    packed = gzip.compress(text.encode(), _LEVEL, mtime=0)
    digest = hashlib.sha256(packed).hexdigest()[:16]
    return StoredCompletions(count, "", f'demurCompletions("{digest}", "{b64encode(packed).decode()}");\n'.encode(), digest)
