"""Keeps control tokens that an instruction holds as text from becoming tokens.

An instruction may contain a mark such as `<|im_end|>` or `</s>`: jailbreak sets do, and so do questions about HTML. If it
became the token of that mark, the instruction would end the user's turn. So an instruction's text stays text, and only the marks
that the prompt format writes become tokens. Published code makes tokens of both; `control_tokens = "tokens"` asks for that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from demur.core.errors import InputError

ControlTokens = Literal["text", "tokens"]
"""What becomes of control tokens that are written in an instruction."""

_THOUGHTS = ("<think>", "</think>")
"""Marks of thoughts. Tokenizers list them as ordinary tokens."""


def control_marks(tokenizer: Any, written: str) -> tuple[str, ...]:
    """The texts of a tokenizer's control tokens.

    Args:
        tokenizer: a transformers tokenizer.
        written: the source of the prompt format. Added tokens that it writes are control tokens, even if the tokenizer does not
            call them special; white space is not.

    Returns:
        Their texts, the longest first, so that a mark that contains another one is found first.
    """
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    found = {
        token.content
        for token in added.values()
        if token.content.strip() and (token.special or token.content in written or token.content in _THOUGHTS)
    }
    return tuple(sorted(found, key=lambda mark: (-len(mark), mark)))


def held(marks: Sequence[str], instructions: Sequence[str]) -> dict[str, int]:
    """How many instructions hold each mark, for those marks that are held."""
    if not marks:
        return {}
    any_mark = re.compile("|".join(map(re.escape, marks)))
    found: dict[str, int] = {}
    for instruction in instructions:
        for mark in set(any_mark.findall(instruction)):
            found[mark] = found.get(mark, 0) + 1
    return found


def marks_sentence(counts: Mapping[str, int], n: int, control_tokens: ControlTokens) -> str:
    """One sentence that says how many of `n` instructions hold which mark, and what becomes of it. Empty if none does."""
    if not counts:
        return ""
    shown = ", ".join(f"{mark!r} in {count}" for mark, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    fate = "it stays text" if control_tokens == "text" else "it becomes a control token, which may end the user's turn"
    return f"Some of the {n} instructions hold a control token as text ({shown}); {fate}."


@dataclass(frozen=True)
class TextTokenizer:
    """A copy of a tokenizer in which the control tokens have other names, so that their usual texts are plain text.

    Attributes:
        backend: a tokenizer of the library `tokenizers`.
        names: mark -> its name in the copy.
    """

    backend: Any
    names: Mapping[str, str]

    def ids(self, before: str, instruction: str, after: str) -> list[int]:
        """Token ids of a prompt, without tokens that the tokenizer adds.

        Args:
            before: the format's text before the instruction, whose marks become tokens.
            instruction: the text of the instruction, which stays text.
            after: the format's text after the instruction.
        """
        any_mark = re.compile("|".join(map(re.escape, self.names)))
        renamed = [any_mark.sub(lambda found: self.names[found[0]], part) for part in (before, after)]
        return list(self.backend.encode(instruction.join(renamed), add_special_tokens=False).ids)


def text_tokenizer(tokenizer: Any, marks: Sequence[str]) -> TextTokenizer:
    """Make the copy. All its ids are those of the tokenizer.

    Raises:
        InputError: if the tokenizer cannot be copied in this way.
    """
    from tokenizers import Tokenizer

    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    names = {mark: f"demurmark{index}q" for index, mark in enumerate(marks)}
    try:
        copy = Tokenizer.from_str(json.dumps(_renamed(json.loads(backend.to_str()), names)))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(_cannot(marks)) from error
    if any(copy.token_to_id(name) != backend.token_to_id(mark) for mark, name in names.items()):
        raise InputError(_cannot(marks))
    return TextTokenizer(copy, names)


def _cannot(marks: Sequence[str]) -> str:
    return (
        f"an instruction holds a control token such as {marks[0]!r}, and this tokenizer cannot read it as text; leave the "
        "instruction out, or set control_tokens to 'tokens' (--control-tokens tokens) to let it become the token"
    )


# Any: tokenizer.json has many shapes.
def _renamed(facts: Any, names: Mapping[str, str]) -> Any:
    """The tokenizer with other names for the marks: in the added tokens, and in the vocabulary, where text could become them."""
    model = dict(facts["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): index for token, index in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        pairs = (one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b} & set(names)]
    added = [{**token, "content": names.get(token["content"], token["content"])} for token in facts["added_tokens"]]
    return {**facts, "model": model, "added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
