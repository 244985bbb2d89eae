"""Judges: each says of one completion whether it is a refusal, and shows the words that decided.

One judge a file behind one protocol; a judge sees texts only, so verdicts can be recomputed from stored completions at any time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from demur.core.errors import InputError, nearest


@dataclass(frozen=True)
class Verdict:
    """What one judge says of one completion. `evidence` is the phrase that decided, empty where none did."""

    judge: str
    refusal: bool
    label: str
    evidence: str = ""


@runtime_checkable
class Judge(Protocol):
    """`name` identifies the rule and `version` its state: where a rule changes, verdicts of another version are given anew.

    `labels` are all that it gives, and `reads_instruction` says whether a verdict depends on what was asked.
    """

    name: str
    version: int
    labels: tuple[str, ...]
    reads_instruction: bool

    def __call__(self, text: str, instruction: str = "", /) -> Verdict:
        """The verdict on one completion of one instruction; a judge of the text alone ignores the instruction."""
        ...


def _judges() -> dict[str, Judge]:
    from demur.judges.prefix import PrefixJudge
    from demur.judges.substring import SubstringJudge
    from demur.judges.taxonomy.taxonomy_judge import TaxonomyJudge

    return {judge.name: judge for judge in (PrefixJudge(), SubstringJudge(), TaxonomyJudge())}


def judge_names() -> tuple[str, ...]:
    """Names of all judges."""
    return tuple(_judges())


def get_judge(name: str) -> Judge:
    """The judge registered under a name. Raises `InputError` with the nearest known one."""
    judges = _judges()
    if name not in judges:
        raise InputError(f"there is no judge {name!r}; {nearest(name, judges)}")
    return judges[name]


@runtime_checkable
class HasText(Protocol):
    """A completion."""

    @property
    def text(self) -> str:
        """What was written."""
        ...


def judge(
    completions: Iterable[HasText | str], name: str = "prefix", *, instructions: Sequence[str] | None = None
) -> list[Verdict]:
    """Verdicts of one judge on completions, or on plain texts.

    A completion brings its own instruction; for plain texts they may be given, one each. Raises `InputError` for an unknown
    judge, for another number of instructions than of texts, and for what is no list of completions or texts.
    """
    decide = get_judge(name)
    if isinstance(completions, str):
        raise InputError("completions are one text, not a list of them; give [text]")
    items = list(completions)
    for item in items:
        if not isinstance(item, str | HasText):
            raise InputError(
                f"a {type(item).__name__} is no completion; demur.generate gives one list of them for each intervention, so "
                "judge(rows[0]) judges those of the first"
            )
    if instructions is None:
        instructions = [str(getattr(item, "instruction", "")) for item in items]
    if len(instructions) != len(items):
        raise InputError(f"there are {len(items)} texts and {len(instructions)} instructions; give one instruction a text")
    texts = (item if isinstance(item, str) else item.text for item in items)
    return [decide(text, instruction) for text, instruction in zip(texts, instructions, strict=True)]
