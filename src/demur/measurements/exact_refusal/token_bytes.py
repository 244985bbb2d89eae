"""The bytes that each token adds to a text, as the tokenizer's own `decode` joins them.

A token may be a part of a character, so texts are joined from bytes. Two ways of joining are known. In most tokenizers the bytes
of all tokens are put one after another, and bytes that are no UTF-8 become replacement characters. In tokenizers with byte
fallback, tokens such as `<0xE2>` stand for one byte, and all other tokens for whole characters. There, each run of byte tokens is
read as one: if it is not valid UTF-8 as a whole, each of its bytes becomes a replacement character.

Every token and many sequences are decoded, to check that a tokenizer joins texts in one of these ways. White space at the start
of a text is left out of the comparison, because tokenizers differ there and judges strip it.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from demur.core.errors import InputError

REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_SEQUENCES = 4000
"""How many random sequences are compared."""
_LONG = 64
"""How many tokens are compared in one text, each between two tokens that are known."""


@dataclass(frozen=True, eq=False)
class TokenBytes:
    """The bytes of every token, by id.

    Attributes:
        pieces: the bytes that a token adds to a text that has begun. Empty for tokens that `decode` leaves out, such as special
            tokens and ids that are no token.
        byte_ids: the byte tokens of a tokenizer with byte fallback.
    """

    pieces: tuple[bytes, ...]
    byte_ids: frozenset[int]

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens, apart from white space at its start."""
        if not self.byte_ids:
            return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")
        parts, run = list[str](), b""
        for i in ids:
            if i in self.byte_ids:
                run += self.pieces[i]
            elif self.pieces[i]:
                parts += [_read_run(run), self.pieces[i].decode("utf-8", "replace")]
                run = b""
        return "".join((*parts, _read_run(run)))


def _read_run(run: bytes) -> str:
    try:
        return run.decode("utf-8")
    except UnicodeDecodeError:
        return REPLACEMENT * len(run)


def token_bytes(tokenizer: Any, size: int) -> TokenBytes:
    """Find the bytes of every token, and prove them against `decode`.

    Args:
        tokenizer: a transformers tokenizer.
        size: the number of ids for which the model has logits. This may be more than the tokenizer has tokens.

    Returns:
        The bytes of every id.

    Raises:
        InputError: if the tokenizer does not join texts in one of the known ways, with the tokens on which it differs.
    """
    # Tokens may be added to a tokenizer, and then its bytes are found again.
    return _proved_bytes(tokenizer, size, len(tokenizer))


# Finding and proving takes seconds if the vocabulary is large.
@lru_cache(maxsize=4)
def _proved_bytes(tokenizer: Any, size: int, _: int) -> TokenBytes:
    if getattr(tokenizer, "clean_up_tokenization_spaces", False):
        raise InputError(
            "this tokenizer removes spaces from text it has already decoded (clean_up_tokenization_spaces), so the probability "
            "of a text cannot be computed from its tokens; set clean_up_tokenization_spaces to False"
        )
    found = _Reader(tokenizer, size).read()
    _prove(tokenizer, found)
    return found


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    try:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))
    except Exception as error:  # a tokenizer may raise anything for an id that it does not know
        raise InputError(
            f"the tokenizer cannot decode the tokens {list(ids)} ({type(error).__name__}), so the probability of a text cannot "
            "be computed from its tokens; use a tokenizer that decodes every id for which the model has logits"
        ) from error


class _Reader:
    """Reads the bytes of each token from its text after another token, and from its name where the text does not show them."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        self.tokenizer, self.size = tokenizer, size
        self.letters = _letters_of_bytes()

    def read(self) -> TokenBytes:
        before = _plain_token(self.tokenizer, self.size)
        start = _decoded(self.tokenizer, [before])
        pieces, byte_ids = list[bytes](), set[int]()
        for index in range(self.size):
            whole = _decoded(self.tokenizer, [before, index])
            if not whole.startswith(start):
                raise _differs([before, index], start + "...", whole)
            text = whole[len(start) :]
            name = str(self.tokenizer.convert_ids_to_tokens(index)) if text else ""
            byte = _BYTE_TOKEN.fullmatch(name)
            if byte is not None and text != name:
                byte_ids.add(index)
                pieces.append(bytes([int(byte[1], 16)]))
            else:
                pieces.append(self._bytes(text, name))
        return TokenBytes(tuple(pieces), frozenset(byte_ids))

    def _bytes(self, text: str, name: str) -> bytes:
        """The bytes of a token with this text and this name. Only a byte-level token has bytes that its text does not show."""
        if REPLACEMENT in text and all(letter in self.letters for letter in name):
            return bytes(self.letters[letter] for letter in name)
        return text.encode("utf-8")


def _plain_token(tokenizer: Any, size: int) -> int:
    """A token that is a word of ASCII letters. Other tokens are decoded beside it."""
    for index in range(size):
        once, twice = _decoded(tokenizer, [index]), _decoded(tokenizer, [index, index])
        word = once.strip()
        if word.isascii() and word.isalpha() and twice.startswith(once) and twice[len(once) :].strip() == word:
            return index
    raise InputError("the tokenizer has no token that is a word of letters, so the probability of a text cannot be computed")


def _letters_of_bytes() -> dict[str, int]:
    """The letter that stands for each byte in the names of byte-level tokens (Radford et al. 2019, GPT-2, encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(0x100) if byte not in shown)
    return {chr(byte): byte for byte in shown} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _prove(tokenizer: Any, found: TokenBytes) -> None:
    """Compare texts joined from these bytes with those of `decode`. Raises `InputError` at the first that differs."""
    plain = _plain_token(tokenizer, len(found.pieces))
    for index in range(len(found.pieces)):
        _compare(tokenizer, found, [index, plain])
    for start in range(0, len(found.pieces), _LONG):
        chain = range(start, min(start + _LONG, len(found.pieces)))
        _compare(tokenizer, found, [plain, *(one for index in chain for one in (index, plain))])
    draw = random.Random(0)
    # Tokens that depend on their neighbours are short, empty or byte tokens, so half of the sequences consist of these.
    everything = range(len(found.pieces))
    short = [index for index, piece in enumerate(found.pieces) if len(piece) <= 3] or everything
    for number in range(_SEQUENCES):
        _compare(tokenizer, found, draw.choices(short if number % 2 else everything, k=draw.randint(2, 10)))
    for ids in _runs(found, plain, draw):
        _compare(tokenizer, found, ids)


def _runs(found: TokenBytes, plain: int, draw: random.Random) -> list[list[int]]:
    """Sequences in which runs of byte tokens are whole, cut off, continued wrongly, and interrupted."""
    by_byte = {found.pieces[index][0]: index for index in sorted(found.byte_ids)}
    characters = [one.encode() for one in ("I", "\u2019", "\u201c", "\u00a0", "\n", "\U0001f600")]
    known = [[by_byte[byte] for byte in one] for one in characters if set(one) <= set(by_byte)]
    if not known:
        return []
    silent = [index for index, piece in enumerate(found.pieces) if not piece]
    # Every token without text, in the middle of a run: it must not end the run.
    sequences = [[*one[:1], index, *one[1:], plain] for one in known for index in islice(silent, 1000)]
    for _ in range(_SEQUENCES // 4):
        ids = [index for one in draw.choices(known, k=3) for index in one]
        place = draw.randrange(len(ids))
        change: list[int] = draw.choice([[], [plain], [by_byte[draw.choice(sorted(by_byte))]], [draw.choice(silent or [plain])]])
        sequences.append([*ids[:place], *change, *ids[place + draw.randint(0, 1) :], plain])
    return sequences


def _compare(tokenizer: Any, found: TokenBytes, ids: Sequence[int]) -> None:
    expected, decoded = found.text(ids), _decoded(tokenizer, ids)
    if expected.lstrip() != decoded.lstrip():
        raise _differs(ids, expected, decoded)


def _differs(ids: Sequence[int], expected: str, decoded: str) -> InputError:
    return InputError(
        f"the tokenizer joins the tokens {list(ids)} to {decoded!r}, where their own texts give {expected!r}, so the probability "
        "of a text cannot be computed from its tokens; use a tokenizer that joins texts byte by byte, such as byte-level BPE or "
        "SentencePiece"
    )
