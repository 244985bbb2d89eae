"""Finds thoughts in texts: where a model thinks before it answers, and where its answer begins.

Models mark their thoughts in different ways: `<think>` and `</think>` (DeepSeek R1, QwQ, Qwen3), `[THINK]` (Magistral),
`<|START_THINKING|>` (Command A Reasoning), `<seed:think>` (Seed-OSS), channels (gpt-oss), and others.
"""

import re

_PAIRS = (
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
)
_TAG = re.compile(r"<(?P<name>(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?))>", re.IGNORECASE)
_ANY_CLOSE = re.compile(
    r"</(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)>|" + "|".join(re.escape(close) for _, close in _PAIRS), re.IGNORECASE
)

FINAL_CHANNEL = "<|channel|>final<|message|>"
"""Begins the answer in a format with channels."""

_ANALYSIS = re.compile(r"(?:<\|channel\|>)?(?:analysis|commentary)(?:<\|message\|>|(?=[A-Z\"'(]))")
"""A thought in a channel. Decoding without special tokens leaves only the name of the channel, right before the first word."""

_FINAL = re.compile(r"<\|channel\|>final<\|message\|>|(?<=\S)assistantfinal(?=\S|$)|\Afinal(?=[A-Z\"'(])")
CHANNEL_MARKS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")


def is_thought_mark(token: str) -> bool:
    """Whether a token begins or ends a thought, or names a channel."""
    openings = {opening for opening, _ in _PAIRS}
    return bool(_TAG.fullmatch(token) or _ANY_CLOSE.fullmatch(token)) or token in openings or token in CHANNEL_MARKS


def closing_mark(opening: str) -> str:
    """The mark that ends a thought, for the mark that begins it."""
    return dict(_PAIRS).get(opening, f"</{opening[1:]}")


def open_thought(text: str) -> str:
    """The mark of the thought that a text begins and does not end; empty if there is none.

    Example:
        >>> open_thought("USER: Hello ASSISTANT: <think>")
        '<think>'
        >>> open_thought("USER: Hello ASSISTANT: <think> </think>")
        ''
    """
    begins = [(found.start(), found[0]) for found in _TAG.finditer(text)]
    begins += [(text.rfind(opening), opening) for opening, _ in _PAIRS if opening in text]
    if not begins:
        return ""
    place, opening = max(begins)
    return "" if closing_mark(opening).casefold() in text[place:].casefold() else opening


def thought_at_end(prompt: str) -> str:
    """The mark of the thought with which a prompt ends; empty if it ends with none. Marks inside the instruction do not count.

    Example:
        >>> thought_at_end("USER: What is <think>? ASSISTANT:")
        ''
    """
    opening = open_thought(prompt)
    return opening if opening and prompt.rstrip().endswith(opening) else ""


def begins_thought(text: str) -> bool:
    """Whether a completion begins with a thought, by its own marks."""
    start = text.lstrip()
    tag = _TAG.match(start) is not None or start.startswith(tuple(opening for opening, _ in _PAIRS))
    return tag or _ANALYSIS.match(start) is not None or _ANY_CLOSE.search(text) is not None


def after_thought(text: str, opened: str = "") -> str | None:
    """What a completion says after its thought.

    Args:
        text: the completion.
        opened: the mark of the thought with which the prompt ends; empty if it ends with none.

    Returns:
        The answer; the whole text if it has no thought; None if the text ends inside its thought.

    Example:
        >>> after_thought("<think> They want a poem. </think> Roses are red")
        ' Roses are red'
        >>> after_thought("They want a poem. </think> Roses are red", "<think>")
        ' Roses are red'
        >>> after_thought("<think> They want a")
    """
    start = text.lstrip()
    channel = _FINAL.search(start)
    if _ANALYSIS.match(start) is not None or (channel is not None and channel.start() == 0):
        return None if channel is None else start[channel.end() :]
    begun = opened or (start if _TAG.match(start) or start.startswith(tuple(one for one, _ in _PAIRS)) else "")
    # A closing mark without an opening one: the prompt began the thought.
    close = _ANY_CLOSE.search(text)
    if close is not None:
        return text[close.end() :]
    return None if begun else text
