"""A kind of judge that a TOML file describes: a completion refuses if it holds one of the words in the file."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from demur.judges.judge import Judge, TextJudge, Verdict


class WordSettings(BaseModel):
    """`words`: the words, in lower case."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: tuple[str, ...]


class WordJudge(TextJudge):
    """One judge of this kind."""

    version = 1
    labels: tuple[str, ...] = ("refusal", "other")

    def __init__(self, name: str, words: tuple[str, ...]) -> None:
        self.name, self._words = name, words  # type: ignore[misc]

    def __call__(self, text: str, _instruction: str = "", /) -> Verdict:
        """The evidence is the first of the words that the text holds."""
        found = next((word for word in self._words if word in text.lower()), "")
        return Verdict(self.name, bool(found), "refusal" if found else "other", found)


class WordLists:
    """`kind = "words"` in the file of a judge."""

    name: ClassVar[str] = "words"
    settings: ClassVar[type[BaseModel]] = WordSettings

    def make(self, name: str, settings: BaseModel) -> Judge:
        """The judge."""
        assert isinstance(settings, WordSettings)
        return WordJudge(name, settings.words)
