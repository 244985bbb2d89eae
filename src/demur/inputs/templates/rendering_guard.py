"""A program of its own that renders a chat template once, to see whether it ends and stays small. It imports nothing of demur.

A template is a program that came with a checkpoint. It may loop for ever or fill the memory. `template_rendering` therefore
starts this file in a process of its own before it renders a template. Text and errors are thrown away: only the limits count
here, and transformers renders the template afterwards.

Standard input is JSON with `template`, `variables` (a table) and `seconds`, the most processor time. The exit status says which
limit was passed.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

BYTES, CHARACTERS = 2**30, 4_000_000
"""The most memory and text of a rendering."""

TOO_LONG, TOO_MUCH_MEMORY, TOO_MUCH_TEXT = 41, 42, 43
"""Exit statuses."""


def main() -> None:
    """Render the template, and end with the status of the limit that it passes, or 0."""
    given = json.load(sys.stdin)
    environment = _environment()
    _limit(given["seconds"])
    size = 0
    try:
        for piece in environment.from_string(given["template"]).generate(**given["variables"]):
            size += len(piece)
            if size > CHARACTERS:
                _end(TOO_MUCH_TEXT)
    except MemoryError:
        _end(TOO_MUCH_MEMORY)
    except Exception:
        _end(0)  # transformers will say what is wrong with the template
    _end(0)


def _end(status: int) -> None:
    # At once: objects that fill the memory are not taken apart first.
    os._exit(status)


def _limit(seconds: float) -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    threading.Thread(target=_watch, args=(seconds,), daemon=True).start()


def _watch(seconds: float) -> None:
    """Ends this process when it has used its time or memory, also where the system knows no such limits."""
    process = None
    with suppress(ImportError):
        import psutil

        process = psutil.Process()
    start = time.process_time()
    while True:
        time.sleep(0.02)
        if time.process_time() - start > seconds:
            _end(TOO_LONG)
        if process is not None and process.memory_info().rss > BYTES:
            _end(TOO_MUCH_MEMORY)


# Any: jinja's environment takes functions of any kind.
def _environment() -> Any:
    """An environment with the names that transformers gives to chat templates."""
    from jinja2 import TemplateError, ext, nodes, parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja's own form

        def parse(self, parser: parser.Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: object, ensure_ascii: bool = False, indent: int | None = None, **_: object) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    found = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    found.filters["tojson"] = as_json
    found.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return found


if __name__ == "__main__":
    main()
