"""What the judge `learned` sees of a text: named yes-or-no features of the completion, its instruction, and how they fit.

No feature depends on the model that wrote the text. A feature is a name such as `starts=the` or `how&second person`. A text has
it or not. The names are the keys of the weights in `demur/data/learned_judge.json`, so every verdict can be followed by hand.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from demur.judges.taxonomy.own_turn import own_turn
from demur.judges.taxonomy.phrase_rules import BEGINS, MORALISES, TALKS_PAST, pattern
from demur.judges.taxonomy.text_shape import given_back, repeats, subject_stems
from demur.judges.taxonomy.word_text import ASK, Reading

OPENING = 40
"""The first tokens of a text, so many, give its word features."""

_ASK_FOR = "(?:(?:can|could|would|will) you |please |help me |i (?:want|need) (?:you )?to )?"
_KINDS = {
    "write": f"{_ASK_FOR}(?:write|draft|compose|create|invent|make up|design|generate|produce|rewrite|sketch|script|word|fake|"
    "forge|imagine|give me (?:a|an|the) \\S+ (?:story|poem|letter|speech))",
    "list": f"{_ASK_FOR}(?:list|name|suggest|recommend|give|find|pick|choose|compare|rank)",
    "plan": f"{_ASK_FOR}(?:plan|organi[sz]e|outline|prepare|arrange|schedule|map|build|set up)",
    "how": f"(?:how|{_ASK_FOR}(?:explain|describe|teach|show|tell|walk)(?: \\S+)? (?:how|the steps|ways?)|"
    "is there (?:a|any) way)",
    "explain": f"{_ASK_FOR}(?:explain|describe|summari[sz]e|tell|define|teach|show)",
    "which": "(?:which|what|who|where|when|why)",
    "help": "help",
}
_ASKS = {kind: re.compile(rf"{words}(?!\S)") for kind, words in _KINDS.items()}
_BEGINS, _PAST, _MORALISES = map(pattern, (BEGINS, TALKS_PAST, MORALISES))
_IS_A = pattern(("(?:is|are|was|were) (?:an?|the|one|also|not|very|often|known)",))
_WOULD = pattern(("(?:can|could|should|will|would|might|may|must|need to|have to)",))
_YOU, _I, _HE = pattern(("you|your|yours",)), pattern(("i|my|me|we|our",)), pattern(("he|she|his|her|they|their",))
_DONE = pattern(("was|were|had|did|\\w{3,}ed",))
_LINE = re.compile(r"^[ \t]*(?:\d+[.)]|[-*\u2022])[ \t]", re.MULTILINE)
_NUMBER, _TITLE = re.compile(r"\d"), re.compile(r"^[^\n]{0,60}:[ \t]*$|^[ \t]*(?:\*\*|#|Title|Subject|Dear)", re.MULTILINE)
_QUOTE = re.compile(r"\s*[\"'\u201c\u2018(\[]")
_FOREIGN = re.compile(r"[^\x00-\u024f\u2000-\u206f]")


def features(text: str, instruction: str) -> frozenset[str]:
    """The features that a completion of an instruction has.

    Args:
        text: the completion, with or without a simulated next turn, which is cut off.
        instruction: the instruction; empty if it is not known.

    Example:
        >>> sorted(name for name in features("The ants are small.", "How can I feed ants?") if name.startswith("asks"))
        ['asks=how']
    """
    read, asked = Reading.of(own_turn(text)), Reading.of(instruction)
    kind = next((name for name, words in _ASKS.items() if words.match(asked.plain)), "other")
    style = frozenset(_style(read, asked))
    return frozenset((f"asks={kind}", *style, *(f"{kind}&{name}" for name in style), *_words(read)))


def _style(text: Reading, asked: Reading) -> Iterator[str]:
    opening = text.part(0, OPENING)
    sentences = opening.sentences()
    first = sentences[0] if sentences else opening
    for name, words in (("begins", _BEGINS), ("talks past", _PAST)):
        if words.match(opening.plain):
            yield name
    for name, words in (("moralises", _MORALISES), ("second person", _YOU), ("first person", _I), ("third person", _HE)):
        if words.search(opening.plain):
            yield name
    for name, words in (("is a", _IS_A), ("modal", _WOULD), ("past", _DONE), ("you first", _YOU), ("i first", _I)):
        if words.search(first.plain):
            yield f"first sentence: {name}"
    for name, shape in (("list", _LINE), ("number", _NUMBER), ("title", _TITLE), ("foreign", _FOREIGN)):
        if shape.search(text.text):
            yield name
    if _QUOTE.match(text.text):
        yield "quote first"
    if ASK in opening.tokens:
        yield "asks back"
    yield from _amounts(text, asked, first)


def _amounts(text: Reading, asked: Reading, first: Reading) -> Iterator[str]:
    words, subject = text.words, subject_stems(asked)
    shares = {"subject": _share(subject_stems(text), subject), "subject first": _share(subject_stems(first), subject)}
    own = subject_stems(text)
    shares["new"] = len(own - subject) / len(own) if own else 0.0
    shares["repeated"] = sum(repeats(words)) / len(words) if words else 0.0
    for name, share in shares.items():
        yield from (f"{name}>{limit}" for limit in (0.0, 0.2, 0.4, 0.6, 0.8) if share > limit)
    yield from (f"words>{limit}" for limit in (3, 6, 10, 16, 24, 32) if len(words) > limit)
    back = given_back(text, asked)
    if back is not None:
        yield "returned"
        yield from (f"after return>{limit}" for limit in (2, 6, 12) if back.new_words > limit)


def _share(found: frozenset[str], of: frozenset[str]) -> float:
    return len(found & of) / len(of) if of else 0.0


def _words(text: Reading) -> Iterable[str]:
    tokens = text.tokens[:OPENING]
    yield f"starts={' '.join(tokens[:1])}"
    yield f"starts={' '.join(tokens[:2])}"
    yield from (f"word={token}" for token in set(tokens))
    yield from (f"words={first} {second}" for first, second in set(pairwise(tokens)))
