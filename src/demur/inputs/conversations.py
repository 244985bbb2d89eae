"""The request in a conversation: a list of turns, as chat datasets have it in place of an instruction.

The instruction is the first turn of the user. A system turn, an answer that comes before it, and later turns of the user are no
part of it; whoever reads the instruction must be told of them.
"""

import ast
import json
from dataclasses import dataclass
from typing import Any

_ROLES = ("role", "from", "speaker", "author")
_TEXTS = ("content", "value", "text")
_USERS = ("user", "human", "prompter")
SYSTEM_TURN, EARLIER_TURN, LATER_TURNS = "a system turn", "an earlier turn", "later turns of the user"
"""The parts of a conversation that may not be in its instruction."""
_SYSTEMS = ("system", "developer")


@dataclass(frozen=True)
class Conversation:
    """What a conversation asks.

    Attributes:
        request: the first turn of the user.
        left_out: which of `SYSTEM_TURN`, `EARLIER_TURN` and `LATER_TURNS` it has beside its request.
    """

    request: str
    left_out: tuple[str, ...]


def conversation(value: Any) -> Conversation | None:
    """Read a list of turns.

    Args:
        value: a list of objects with a role and a text (`role` and `content`, or `from` and `value`), or of texts, which are then
            turns of the user; or the same written as one text in JSON or Python.

    Returns:
        The request; None if the value is no conversation, or if no turn of the user has a text.
    """
    turns = _turns(_unwritten(value))
    if turns is None:
        return None
    users = [number for number, (role, _) in enumerate(turns) if role in _USERS]
    if not users or not turns[users[0]][1].strip():
        return None
    before = [role for role, text in turns[: users[0]] if text.strip()]
    left_out = (
        (SYSTEM_TURN, any(role in _SYSTEMS for role in before)),
        (EARLIER_TURN, any(role not in _SYSTEMS for role in before)),
        (LATER_TURNS, len(users) > 1),
    )
    return Conversation(turns[users[0]][1], tuple(name for name, there in left_out if there))


def looks_written_out(text: str) -> bool:
    """Whether a text is probably a conversation that a program wrote as text, such as "[{'role': 'user', ...}]"."""
    start = text.lstrip()[:200]
    return start.startswith(("[{", '{"', "{'")) and any(f"{mark}{key}{mark}" in start for key in _ROLES for mark in "'\"")


def _unwritten(value: Any) -> Any:
    if not isinstance(value, str) or not looks_written_out(value):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def _turns(value: Any) -> list[tuple[str, str]] | None:
    """Role and text of each turn; None for anything else."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(turn, str) for turn in value):
        return [("user", turn) for turn in value]
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role = next((turn[key] for key in _ROLES if isinstance(turn.get(key), str)), None)
        text = next((turn[key] for key in _TEXTS if turn.get(key) is not None), "")
        parts = content_text(text)
        if role is None or parts is None:
            return None
        turns.append((role.casefold(), parts))
    return turns


def content_text(content: Any) -> str | None:
    """The text of a message's content, which is a text or a list of parts.

    Args:
        content: the content. Parts that are thoughts are left out, as they are no part of an answer.

    Returns:
        The text; None if there are parts that are not text, such as pictures.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str) and "type" in part:
            texts.append(part["text"])
        elif not (isinstance(part, dict) and part.get("type") in ("reasoning", "thinking", "redacted_thinking")):
            return None
    return "".join(texts)
