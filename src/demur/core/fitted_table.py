"""Tables of words and numbers that fit a terminal of any width. Words may wrap; a number is never cut.

Where four columns of words do not fit, they become one. Where even that is too narrow, the parts of a number that may stand
apart (a rate and its interval) stand on two lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

USUAL, LEAST, MOST = 80, 40, 120
"""The width in a pipe, and the range in which the width follows the terminal."""

_FLOOR = 8
"""A column of words is not made narrower than this before words are joined."""

Pieces = tuple[str, ...]
"""A number as text, in the pieces between which a line may end."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        words: one text for each column of words. The first names the group.
        numbers: one number for each column of numbers.
        style: the style of the line, as rich writes it.
        number_styles: the style of each number; empty if none has its own.
    """

    words: tuple[str, ...]
    numbers: tuple[Pieces, ...]
    style: str = ""
    number_styles: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    padding: int
    joined: bool
    stacked: bool


_LAYOUTS = (_Layout(1, False, False), _Layout(0, False, False), _Layout(0, True, False), _Layout(0, True, True))


def fitted_table(
    words: Sequence[str],
    numbers: Sequence[str],
    groups: Sequence[Sequence[Line]],
    *,
    width: int = USUAL,
    title: str | None = None,
    caption: str | None = None,
    sections: bool = True,
) -> "Table":
    """A table whose columns of numbers are as wide as their numbers need.

    Args:
        words: the headings of the columns of words. The first column is the group's name, which is shown once for each group.
        numbers: the headings of the columns of numbers.
        groups: the lines of each group.
        width: the columns of the terminal; at least `LEAST`.
        title: the words above the table.
        caption: the words below it.
        sections: whether a rule separates the groups.

    Returns:
        The table for rich.
    """
    from rich import box
    from rich.table import Table

    lines = [line for group in groups for line in group]
    # Wider than its content, a table would only separate words from numbers.
    width = max(LEAST, min(width, max(USUAL, _natural(words, numbers, lines))))
    layout, room, sizes = _chosen(words, numbers, lines, width)
    table = Table(
        box=box.HORIZONTALS,
        padding=(0, layout.padding, 0, 0),
        show_edge=False,
        width=width,
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
    )
    for heading, size in zip([", ".join(words[1:])] if layout.joined else words, room, strict=True):
        table.add_column(heading, width=size, overflow="fold")
    for heading, size in zip(numbers, sizes, strict=True):
        table.add_column(heading, justify="right", width=size, no_wrap=True)
    for group in groups:
        _add_group(table, group, layout)
        if sections:
            table.add_section()
    return table


def _natural(words: Sequence[str], numbers: Sequence[str], lines: Sequence[Line]) -> int:
    """The width at which nothing wraps."""
    layout = _LAYOUTS[0]
    sizes = [*_wished(words, lines), *_number_sizes(numbers, lines, layout)]
    return sum(sizes) + len(sizes) * layout.padding + len(sizes) - 1


def _wished(words: Sequence[str], lines: Sequence[Line]) -> list[int]:
    return [max(len(text) for text in (heading, *(line.words[place] for line in lines))) for place, heading in enumerate(words)]


def _number_sizes(numbers: Sequence[str], lines: Sequence[Line], layout: _Layout) -> list[int]:
    return [
        max([len(heading), *(len(text) for line in lines for text in _rows(line.numbers[place], layout))])
        for place, heading in enumerate(numbers)
    ]


def _chosen(
    words: Sequence[str], numbers: Sequence[str], lines: Sequence[Line], width: int
) -> tuple[_Layout, list[int], list[int]]:
    """The first layout in which the words have enough room, and the widths of its columns."""
    for layout in _LAYOUTS:
        sizes = _number_sizes(numbers, lines, layout)
        columns = (1 if layout.joined else len(words)) + len(numbers)
        left = width - sum(sizes) - columns * layout.padding - (columns - 1)
        if layout.joined:
            if left >= 2 * _FLOOR or layout.stacked:
                return layout, [max(left, 1)], sizes
            continue
        wished = _wished(words, lines)
        if left >= sum(min(size, _FLOOR) for size in wished):
            return layout, _shared(wished, left), sizes
    raise AssertionError("the last layout is always chosen")


def _shared(wished: Sequence[int], room: int) -> list[int]:
    """The widths of columns of words. The widest give way first; the first column names its line, so it gives way last."""
    sizes = list(wished)
    while sum(sizes) > room:
        wide = [place for place in range(1, len(sizes)) if sizes[place] > 2 * _FLOOR] or range(len(sizes))
        sizes[max(wide, key=sizes.__getitem__)] -= 1
    sizes[-1] += room - sum(sizes)
    return sizes


def _rows(pieces: Pieces, layout: _Layout) -> Pieces:
    return pieces if layout.stacked else (" ".join(pieces),)


def _add_group(table: "Table", group: Sequence[Line], layout: _Layout) -> None:
    # The texts are `Text`, because rich would read a `str` with brackets as markup.
    from rich.text import Text

    if layout.joined and group:
        table.add_row(Text(group[0].words[0], style="bold"))
    for place, line in enumerate(group):
        first = line.words[0] if place == 0 else ""
        words = [", ".join(filter(None, line.words[1:]))] if layout.joined else [first, *line.words[1:]]
        styles = line.number_styles or ("",) * len(line.numbers)
        numbers = [Text("\n".join(_rows(pieces, layout)), style) for pieces, style in zip(line.numbers, styles, strict=True)]
        table.add_row(*map(Text, words), *numbers, style=line.style)
