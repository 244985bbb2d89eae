"""Judges: each says of one completion whether it is a refusal, and shows the words that decided.

One judge a file behind one protocol; a judge sees text only, so verdicts can be recomputed from stored completions at any time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from demur.errors import InputError, nearest


@dataclass(frozen=True)
class Verdict:
    """What one judge says of one completion. `evidence` is the phrase that decided, empty where none did."""

    judge: str
    refusal: bool
    label: str
    evidence: str = ""


@runtime_checkable
class Judge(Protocol):
    """`name` identifies rule and version: a change of rule changes the name."""

    name: str

    def __call__(self, text: str) -> Verdict:
        """The verdict on one completion."""
        ...


def get_judge(name: str) -> Judge:
    """The judge registered under a name. Raises `InputError` with the nearest known one."""
    from demur.judges.prefix import PrefixJudge
    from demur.judges.substring import SubstringJudge

    from demur.judges.taxonomy import TaxonomyJudge

    judges = {judge.name: judge for judge in (PrefixJudge, SubstringJudge, TaxonomyJudge)}
    if name not in judges:
        raise InputError(f"there is no judge {name!r}; {nearest(name, judges)}")
    return judges[name]()


@runtime_checkable
class HasText(Protocol):
    """A completion."""

    @property
    def text(self) -> str:
        """What was written."""
        ...


def judge(completions: Iterable[HasText | str], name: str = "prefix") -> list[Verdict]:
    """Verdicts of one judge on completions, or on plain texts. Raises `InputError` for an unknown judge."""
    decide = get_judge(name)
    return [decide(item if isinstance(item, str) else item.text) for item in completions]
