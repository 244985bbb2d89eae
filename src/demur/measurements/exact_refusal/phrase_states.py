"""From tokens to refusals: which tokens complete a phrase, which begin or continue one, and which rule a refusal out.

A completion is read byte by byte. White space at its start is dropped. What remains is either a proper beginning of a phrase, or
of a white-space character of several bytes, or it cannot become a refusal any more. White space is what `str.strip` removes,
because judges use that method.
"""

import sys
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from demur.measurements.exact_refusal.token_bytes import TokenBytes


class State(NamedTuple):
    """What is known of a completion so far.

    Attributes:
        pending: the bytes after the white space at its start; if a phrase is complete, the bytes of a character that is not.
        complete: whether a phrase is complete, but not certain yet: byte tokens that follow could still make the run of byte
            tokens that it ends in invalid, and so all of it unreadable.
    """

    pending: bytes
    complete: bool = False

    @property
    def refuses_at_end(self) -> bool:
        """Whether a completion that ends here is a refusal."""
        return self.complete and not self.pending


START = State(b"")


@dataclass(frozen=True, eq=False)
class Moves:
    """What each token does in one state. Tokens that are named nowhere rule a refusal out.

    Attributes:
        refusals: tokens after which the completion is a refusal, whatever follows.
        ids: tokens after which it can still become one.
        states: the state after each of `ids`.
        at_end: tokens among `ids` after which it is a refusal if it ends there.
    """

    refusals: Tensor
    ids: Tensor
    states: tuple[State, ...]
    at_end: Tensor


@cache
def _blanks() -> frozenset[bytes]:
    """Every character that `str.strip` removes, as UTF-8."""
    return frozenset(chr(code).encode() for code in range(sys.maxunicode + 1) if chr(code).isspace())


@dataclass(eq=False)
class PhraseStates:
    """The states of a completion on its way to one of some phrases.

    Attributes:
        tokens: the bytes of the tokens.
        phrases: the phrases.
        stop_ids: tokens that end a completion.
    """

    tokens: TokenBytes
    phrases: Sequence[str]
    stop_ids: Collection[int] = ()
    _known: dict[State, Moves] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._phrases = frozenset(phrase.encode() for phrase in self.phrases)
        # For each beginning of a phrase or of a white-space character, the bytes that may come next.
        self._next: dict[bytes, set[int]] = {}
        for whole in self._phrases | _blanks():
            for length in range(len(whole)):
                self._next.setdefault(whole[:length], set()).add(whole[length])
        pieces, byte_ids = self.tokens.pieces, self.tokens.byte_ids
        self._silent = [index for index, piece in enumerate(pieces) if not piece]
        spoken = sorted((piece, index) for index, piece in enumerate(pieces) if piece and index not in byte_ids)
        self._pieces, self._ids = [piece for piece, _ in spoken], [index for _, index in spoken]

    def moves(self, state: State) -> Moves:
        """What each token does in a state; computed once for each state."""
        if state not in self._known:
            refusals, ids, states = list[int](), list[int](), list[State]()
            for index, after in self._reached(state):
                stops = index in self.stop_ids
                if after is None or (stops and after.refuses_at_end):
                    refusals.append(index)
                elif not stops:
                    ids.append(index)
                    states.append(after)
            at_end = [index for index, after in zip(ids, states, strict=True) if after.refuses_at_end]
            self._known[state] = Moves(_indices(refusals), _indices(ids), tuple(states), _indices(at_end))
        return self._known[state]

    def _reached(self, state: State) -> Iterator[tuple[int, State | None]]:
        """Each token that does not rule a refusal out, with the state after it; None for a certain refusal."""
        yield from ((index, state) for index in self._silent)
        for index in self.tokens.byte_ids:
            after = self._after_byte(state, self.tokens.pieces[index])
            if after is not None:
                yield index, after
        if self.tokens.byte_ids and not _is_whole(state.pending):
            # Another token ends the run of byte tokens in the middle of a character.
            return
        if state.complete:
            yield from ((index, None) for index in self._ids)
        else:
            yield from self._after_pieces(state)

    def _after_byte(self, state: State, byte: bytes) -> State | None:
        """The state after a byte token; None if it rules a refusal out."""
        tail = state.pending + byte
        if state.complete:
            return State(b"", True) if _is_whole(tail) else State(tail, True) if _may_become_whole(tail) else None
        if tail in self._phrases:
            return State(b"", True)
        return self._after_bytes(tail)

    def _after_bytes(self, tail: bytes) -> State | None:
        """The state in which these bytes are pending; None if they rule a refusal out."""
        if tail in _blanks():
            return START
        return State(tail) if tail in self._next else None

    def _after_pieces(self, state: State) -> Iterator[tuple[int, State | None]]:
        """Tokens other than byte tokens. Their pieces are sorted, so those with the same beginning stand together."""
        todo = [(b"", state, 0, len(self._pieces))]
        while todo:
            begun, now, low, high = todo.pop()
            while low < high and self._pieces[low] == begun:
                yield self._ids[low], now
                low += 1
            for byte in self._next[now.pending]:
                longer = begun + bytes([byte])
                first = bisect_left(self._pieces, longer, low, high)
                # No byte of UTF-8 is 255, so one more is still a byte.
                end = bisect_left(self._pieces, begun + bytes([byte + 1]), first, high)
                tail = now.pending + bytes([byte])
                if tail in self._phrases:
                    yield from ((index, None) for index in self._ids[first:end])
                elif first < end and (after := self._after_bytes(tail)) is not None:
                    todo.append((longer, after, first, end))


@lru_cache(maxsize=8)
def phrase_states(tokens: TokenBytes, phrases: tuple[str, ...], stop_ids: frozenset[int]) -> PhraseStates:
    """The states for some phrases. Calls with the same arguments give the same object, so its moves are computed once."""
    return PhraseStates(tokens, phrases, stop_ids)


def _is_whole(tail: bytes) -> bool:
    """Whether bytes are whole characters."""
    try:
        tail.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _may_become_whole(tail: bytes) -> bool:
    """Whether bytes are the beginning of a character."""
    try:
        tail.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(tail) and error.reason == "unexpected end of data"
    return True


def _indices(ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.long)
