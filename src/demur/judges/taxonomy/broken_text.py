"""Texts that are no utterance: loops, lists whose lines say nothing new, and salad of symbols and scripts.

The signs read characters and repetitions, and no words of a language, so normal text in any script passes. They take time linear
in the text.
"""

import re
import unicodedata
from functools import cache

from demur.judges.taxonomy.text_shape import first_loop
from demur.judges.taxonomy.word_text import Reading

_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTING = re.compile(r"\A[ \t]*>{1,3} ")
_TABLE = re.compile(r"[ \t]*\|")
_AROUND = re.compile(r"\A[\W_]{1,4}(?=\w)|(?<=\w)[\W_]{1,4}\Z")
_RUN = re.compile(r"([^\w\s.!?\-=*\u2026\u2014\u2013])\1\1|\ufffd")
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")


def broken(text: Reading) -> str | None:
    """The words or signs which show that a text is no utterance; None if it may be one.

    A text without any letter is none either; the judge decides this first.
    """
    return first_loop(text) or _same_line(text.text) or _salad(text.text)


def _same_line(text: str) -> str | None:
    """The first line, if it is repeated and more than half of the lines repeat earlier ones. Numbers and signs do not count.

    The last line may be cut off, so the beginning of an earlier line is a repetition too. A text that loops only after another
    first line has said something, and `first_loop` decides.
    """
    lines = [line for line in ("".join(filter(str.isalpha, line.lower())) for line in text.split("\n")) if line]
    before, again = set[str](), list[str]()
    for number, line in enumerate(lines):
        cut_off = number == len(lines) - 1 and any(other.startswith(line) for other in before)
        if line in before or cut_off:
            again.append(line)
        before.add(line)
    # Two equal lines may be the refrain of a short verse.
    if len(again) < 2 or 2 * len(again) <= len(lines) or lines[0] not in again:
        return None
    return next(line.strip() for line in text.split("\n") if any(map(str.isalpha, line)))


def _salad(text: str) -> str | None:
    """The first odd piece, if more than a third of the pieces between spaces are odd and brackets are not in pairs.

    A piece is odd if it is glued together: letters with brackets or mathematical signs within, runs of one symbol, letters of two
    scripts. Code and formulas are written so too, but their brackets are in pairs. Lines of tables do not count.
    """
    lines = [_QUOTING.sub("", line, count=1) for line in _FENCED.sub(" ", text).split("\n") if not _TABLE.match(line)]
    pieces = [piece for line in lines for piece in line.split()]
    odd = [piece for piece in pieces if _odd(piece)]
    return odd[0] if 3 * len(odd) > len(pieces) and not _paired(text) else None


def _odd(piece: str) -> bool:
    if "://" in piece or not any(sign.isalpha() for sign in piece):
        return len(piece) > 2 and "://" not in piece and _RUN.search(piece) is not None
    inner = _AROUND.sub("", piece)
    glued = any(unicodedata.category(sign) in ("Sm", "Sk", "Ps", "Pe", "Co", "Cn") and sign not in "+~" for sign in inner)
    return glued or _RUN.search(piece) is not None or _mixed(inner)


def _mixed(piece: str) -> bool:
    """Whether a piece has letters of two scripts, other than the scripts that East Asian texts write without spaces between."""
    scripts = {_script(sign) for sign in piece if sign.isalpha()}
    return len(scripts) > 1 and _EAST_ASIAN[0] not in scripts


@cache
def _script(letter: str) -> str:
    """The first word of the letter's name in Unicode, which is its script. All East Asian scripts are one."""
    name = unicodedata.name(letter, "?").split()[0].split("-")[0]
    return _EAST_ASIAN[0] if name in _EAST_ASIAN else name


def _paired(text: str) -> bool:
    """Whether the text has brackets, most of them in pairs."""
    counts = [(text.count(opening), text.count(closing)) for opening, closing in _PAIRS]
    total = sum(map(sum, counts))
    return total > 0 and 2 * sum(abs(opening - closing) for opening, closing in counts) <= total
