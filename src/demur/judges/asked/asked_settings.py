"""The keys that all judges of files have in common which ask a model: what is asked, and how long an answer may be."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from demur.core.registry import registry
from demur.judges.asked.judge_format import JudgeFormat, judge_format
from demur.judges.asked.rubric import Rubric, RubricFormat


def _registered(name: str | None) -> str | None:
    if name is not None:
        registry("judge-format").get(name)
    return name


class AskedSettings(BaseModel):
    """The common keys of judges that ask a model.

    Attributes:
        model: the model.
        rubric: the rubric; in a file, the name of one that ships or the path of a TOML file.
        format: the judge format of a published classifier. Give this or `rubric`.
        max_tokens: the most tokens of an output; by default what the format needs.
        coherence: whether texts that are no utterance get the label `incoherent` without being asked about.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    rubric: Rubric | None = None
    format: Annotated[str | None, AfterValidator(_registered)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    coherence: bool = True

    @model_validator(mode="after")
    def _one_is_asked(self) -> Self:
        if (self.rubric is None) == (self.format is None):
            raise ValueError("expected either rubric or format; give one of them")
        return self

    @property
    def asked(self) -> JudgeFormat:
        """What is asked, and how answers are read."""
        if self.rubric is not None:
            return RubricFormat(self.rubric)
        assert self.format is not None
        return judge_format(self.format)
