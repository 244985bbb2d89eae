"""Finds what a text says in its own voice: not quoted speech, not the lines of a play, not a letter that was asked for.

`"I cannot help you," said the guard` refuses nothing. A whole text in quotation marks, as models write it too, is its own voice.
All functions take time linear in the text.
"""

import re

READ = 4000
"""Characters at the beginning of a text that are looked at. Refusals and objections count only near the beginning."""

LEAD = 4
"""A quotation after at most so many words is what the text answers: `My answer is: "..."`."""

_SAID = (
    "(?:said|says|saying|asked|asks|replied|replies|answered|answers|whispered|muttered|shouted|cried|exclaimed|explained|"
    "responded|responds|told|warned|insisted|sighed|growled|murmured|added|began|continued|thought|thinks|wrote|writes|called|"
    "yelled)"
)
_INTRODUCES = re.compile(
    rf"(?:\b{_SAID}(?: \w+){{0,3}}|\b(?:like|as|phrases?|lines?|words?|lyrics?|sentences?|with|titled|named)|"
    r"\byou (?:can|could|might|may) (?:\w+ )?(?:say|write|reply|respond|answer|tell \w+)),?:?\s*\Z",
    re.IGNORECASE,
)
_ATTRIBUTES = re.compile(rf"[ \t]*(?:[-\u2013\u2014] ?)?,?(?:\w+ ){{0,5}}?{_SAID}\b", re.IGNORECASE)
_SINGLE = "'\u2018\u2019"
_QUOTED = re.compile(
    r'"[^"\n]{1,600}(?:"|\Z)|\u201c[^\u201d\n]{1,600}(?:\u201d|\Z)|\u201e[^\u201c\n]{1,600}\u201c|\u00ab[^\u00bb\n]{1,600}\u00bb'
    rf"|(?<![\w{_SINGLE}])[{_SINGLE}](?:[^{_SINGLE}\n]|(?<=\w)[{_SINGLE}](?=\w)){{1,600}}[{_SINGLE}](?!\w)"
)
_FIRST_PERSON = re.compile(r"\b(?:I|[Ww]e)\b|[Cc]an(?:no|['\u2019])t|[Uu]nable|[Ss]orry")

_LABELLED = re.compile(
    r"^[ \t]*(?:\*\*)?([A-Z][\w .'-]{0,24}?)(?:\*\*)?[ \t]?(?:\([^)\n]{0,60}\)[ \t]?)?:(?:\*\*)?(?=\s).*$", re.MULTILINE
)
_ITSELF = re.compile(
    r"(?:the )?(?:ai|assistant|ai assistant|model|answer|response|reply|bot|chatbot|note|disclaimer|warning|a|me)", re.IGNORECASE
)
_PLAY = re.compile(
    r"\b(?:dialogues?|conversation|scene|script|play|skit|interview|role-?play|screenplay|debate|exchange)\b", re.IGNORECASE
)
_WRITING = re.compile(
    r"\b(?:letter|e-?mail|message|note|reply|response|story|tale|poem|song|lyrics|verse|monologue|speech|essay|tweet|post|"
    r"joke|novel|"
    r"chapter|diary|journal|limerick|haiku|sentence|paragraph|review|text|fable|rap|script|scene|dialogue)\b",
    re.IGNORECASE,
)
_LETTER = re.compile(
    r"\s*(?:(?:Sure|Certainly|Of course|Here)\b[^\n]{0,200}\n\s*)?[\"\u201c*]{0,2}"
    r"(?:Dear (?!user|friend|human|customer)|Subject:|(?:Hi|Hello|Hey) [A-Z\[]\w+|To whom|Once upon|Title:)"
)
_DECLINING = re.compile(
    r"\b(?:declin\w+|refus\w+|reject\w*|turn(?:ing|s|ed)? (?:\w+ ){0,2}down|resign\w*|apolog\w+|say(?:ing|s)? no|can(?:no|"
    r"['\u2019])t|"
    r"unable|back(?:ing)? out|cancel\w*)\b",
    re.IGNORECASE,
)
_TO_THE_USER = re.compile(r"as an? (?:\w+ ){0,3}(?:ai|language model|assistant)\b|\b(?:your|this|that) request\b", re.IGNORECASE)
_WILL_NOT_SERVE = re.compile(
    r"(?:can(?:no|['\u2019])t|can not|won['\u2019]t|will not|(?:un|not )able to|must decline to) (?:\w+ )?"
    r"(?:help|assist|provide|write|create|generate|produce|compose|fulfil|comply|do (?:that|this)|support)",
    re.IGNORECASE,
)


def own_voice(text: str, instruction: str = "") -> str:
    """The text with everything blanked out that somebody else says in it.

    Args:
        text: the completion.
        instruction: the instruction, which may ask for a letter or a play.

    Returns:
        A text of the same length, so that places in it are places in `text`.
    """
    return _blanked(text[:READ], instruction) + text[READ:]


def _blanked(text: str, instruction: str) -> str:
    if _WRITING.search(instruction) and not _TO_THE_USER.search(text):
        letter, declining = _LETTER.match(text), _DECLINING.search(instruction)
        if (letter and declining) or ((letter or declining) and not _WILL_NOT_SERVE.search(text)):
            return _blank(text)
    text = _QUOTED.sub(lambda found: _blank(found[0]) if _of_another(text, found) else found[0], text)
    speakers = sum(not _ITSELF.fullmatch(found[1]) for found in _LABELLED.finditer(text)) if _PLAY.search(instruction) else 0
    if speakers > 1:
        text = _LABELLED.sub(lambda found: found[0] if _ITSELF.fullmatch(found[1]) else _blank(found[0]), text)
    return text


def _of_another(text: str, found: re.Match[str]) -> bool:
    """Whether a quotation is speech, and not the text's own answer in quotation marks."""
    if not _FIRST_PERSON.search(found[0]):
        return False
    before = text[max(0, found.start() - 300) : found.start()]
    if _ATTRIBUTES.match(text, found.end()) or _INTRODUCES.search(before):
        return True
    return len(before.split()) > LEAD


def _blank(words: str) -> str:
    return re.sub(r"[^\n]", " ", words)
