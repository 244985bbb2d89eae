"""Text from files and models in a form that is safe to print and to open: no control characters, no live cells."""

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 except tab and line end, DEL and C1, which a terminal obeys; bidirectional overrides, which show text in another order than
it has; and lone surrogates, which cannot be written."""

_FORMULA = re.compile("[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
"""The beginnings of cells that a spreadsheet computes.

Source: OWASP, "CSV Injection". The last four are the full-width forms of the first four.
"""


def printable(text: str) -> str:
    r"""The text with every control character written out, as Python writes it.

    Example:
        >>> print(printable("a\x1b[31mb\nc"))
        a\x1b[31mb
        c
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def escaped(line: str) -> str:
    r"""A line of JSON with every control character as `\uXXXX`, which a reader of JSON turns back."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def cell(value: object) -> object:
    """A value for a table that people open in a spreadsheet. A text that would be computed there gets an apostrophe in front.

    Numbers stay numbers, also those that are texts, such as `-0.5`. Control characters in a text are written out.

    Example:
        >>> [cell(value) for value in ("=1+1", "-0.5", "- a list", "yes", -0.5, None)]
        ["'=1+1", '-0.5', "'- a list", 'yes', -0.5, None]
    """
    if not isinstance(value, str):
        return value
    # A carriage return is part of a text, and a CSV file quotes it.
    text = "\r".join(map(printable, value.split("\r")))
    live = _FORMULA.match(value) is not None and not _is_number(value)
    return f"'{text}" if live else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
