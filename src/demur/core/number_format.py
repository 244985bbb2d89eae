"""Numbers as text for people: rates in per cent, changes in percentage points, p values. Data files keep all digits."""

import re

from demur.core.statistics import LEVEL

MINUS, TIMES, DASH = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
TIE = "\N{NO-BREAK SPACE}"
"""The space at which no line ends."""


def decimals(n: int) -> int:
    """The number of decimals of a rate in per cent: 0 for up to 100 trials, where a decimal would mean nothing, else 1."""
    return 0 if n <= 100 else 1


def percent(rate: float, n: int) -> str:
    """A rate in per cent."""
    return f"{100 * rate:.{decimals(n)}f} %"


def interval(bounds: tuple[float, float], digits: int = 1) -> str:
    """An interval in per cent, without the per cent sign."""
    low, high = (f"{100 * bound:.{digits}f}" for bound in bounds)
    return f"[{low}, {high}]"


def estimate(rate: float, bounds: tuple[float, float], n: int) -> str:
    """A rate and its interval, with the same number of decimals."""
    return " ".join(estimate_pieces(rate, bounds, n))


def estimate_pieces(rate: float, bounds: tuple[float, float], n: int) -> tuple[str, str]:
    """The two parts of `estimate`, between which a line may end."""
    return percent(rate, n), interval(bounds, decimals(n))


def points(change: float | None, digits: int = 1, minus: str = MINUS) -> str:
    """A difference of rates in percentage points, with its sign; empty for None."""
    if change is None:
        return ""
    size = f"{abs(100 * change):.{digits}f}"
    if float(size) == 0:
        return size
    return f"{'+' if change > 0 else minus}{size}"


def change(size: float, bounds: tuple[float, float], n: int) -> str:
    """A difference of rates and its interval in percentage points, with the number of decimals that n trials deserve."""
    digits = decimals(n)
    low, high = (points(bound, digits) for bound in bounds)
    unit = "point" if abs(100 * size) == 1 else "points"
    return f"{points(size, digits)} {unit} [{low}, {high}]"


def more_or_fewer(size: float, bounds: tuple[float, float], n: int) -> str:
    """The same in words: "86 points [74, 92] more", or "more or fewer" if there is no difference."""
    if size == 0:
        return "more or fewer"
    low, high = bounds if size > 0 else (-bounds[1], -bounds[0])
    text = change(abs(size), (low, high), n).replace("+", "")
    return f"{text} {'more' if size > 0 else 'fewer'}"


def p_value(p: float | None) -> str:
    """A p value for a table; empty for None."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else _kept_below(p, f"{p:.3f}")


def p_in_words(p: float) -> str:
    """A p value for a sentence."""
    if p < 0.001:
        return "p < 0.001"
    text = _kept_below(p, f"{p:.2g}")
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _kept_below(p: float, text: str) -> str:
    # A p value below the level must not look equal to it after rounding.
    return f"< {LEVEL:g}" if p < LEVEL <= float(text) else text


def hundredths(value: float | int | None) -> str:
    """A number with two decimals, such as a cosine; empty for None."""
    return "" if value is None else f"{value:.2f}".replace("-", MINUS)


def number(value: float | int | None, digits: int = 4) -> str:
    """A number with some significant digits; empty for None."""
    return "" if value is None else f"{value:.{digits}g}".replace("-", MINUS)


def in_bytes(count: int) -> str:
    """A number of bytes in GiB, MiB or KiB."""
    if count >= 0.05 * 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


_INSIDE = re.compile(r"(?<=\d) (?=%)|(?<=\d,) (?=[+\N{MINUS SIGN}]?[\d.]+\])|(?<=\bp) (?=[<=] \d)|(?<=[<=]) (?=\d)")


def tied(text: str) -> str:
    """The sentence with no-break spaces inside `91 %`, `[9, 23]` and `p < 0.001`."""
    return _INSIDE.sub(TIE, text)
