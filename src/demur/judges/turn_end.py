"""Finds where a completion's own turn ends, from its token ids.

Decoding leaves special tokens out of the text. A checkpoint that goes on after `<|im_end|>` and writes the user's next turn thus
leaves a text in which nothing separates the two. The token ids still show it: the own turn ends before the first end token or
other control token. Judges get the text of the own turn, except the published ones, which judge the whole text.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from demur.core.thought_marks import is_thought_mark

_INSIDE = re.compile(
    r"think|reason|thought|channel|message|constrain|tool|call|return|image|img|audio|video|vision|unk|mask|fim_|python|box|quad|"
    r"object|ref|patch|byte|citation|code|plugin|action",
    re.IGNORECASE,
)
"""Special tokens with such names stand inside a turn: thoughts, channels, tools, media, unknown words."""

_SAME_TURN = ("<|channel|>", "<|message|>")
"""A tokenizer with these divides one turn into messages. There `<|end|>` and `<|start|>` do not end the turn."""


def turn_end_ids(tokenizer: Any, stop_ids: Iterable[int] = ()) -> frozenset[int]:
    """The tokens that end a turn or begin another one.

    Args:
        tokenizer: a transformers tokenizer. What another kind of tokenizer does not say is taken as empty.
        stop_ids: the tokens at which the checkpoint's completions end.

    Returns:
        The stop tokens, and all special tokens except those that stand inside a turn.
    """
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    special = {int(index): str(token) for index, token in added.items() if getattr(token, "special", False)}
    ids = [int(index) for index in getattr(tokenizer, "all_special_ids", None) or ()]
    names = getattr(tokenizer, "convert_ids_to_tokens", None)
    special |= {index: str(names(index)) if names else "" for index in ids if index not in special}
    unknown = getattr(tokenizer, "unk_token_id", None)
    inside = ("<|end|>", "<|start|>") if set(_SAME_TURN) <= set(special.values()) else ()
    ends = {index for index, name in special.items() if index != unknown and name not in inside and not _INSIDE.search(name)}
    return frozenset(ends | {int(index) for index in stop_ids})


def special_thought_marks(tokenizer: Any) -> frozenset[int]:
    """The special tokens that mark thoughts. Decoding leaves them out of the text, like all special tokens.

    Args:
        tokenizer: a transformers tokenizer.
    """
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    return frozenset(
        int(index) for index, token in added.items() if getattr(token, "special", False) and is_thought_mark(str(token))
    )


def own_length(token_ids: Sequence[int], ends: Collection[int], bos_id: int | None = None) -> int:
    """How many tokens of a completion belong to its own turn.

    Args:
        token_ids: the tokens that were generated.
        ends: the tokens that end a turn, as `turn_end_ids` gives them.
        bos_id: the token that begins a text. It may come first without ending the turn.

    Returns:
        The number of tokens before the first one that ends the turn; all of them if there is none.
    """
    for place, token in enumerate(token_ids):
        if token in ends and not (token == bos_id and place == 0):
            return place
    return len(token_ids)
