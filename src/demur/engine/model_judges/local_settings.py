"""The keys of a judge of kind `classifier`, which runs its model in this process."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from demur.core.registry import registry
from demur.judges.asked.judge_format import JudgeFormat, judge_format
from demur.judges.asked.rubric import Rubric, RubricFormat
from demur.models.sources import is_on_this_machine

UNDECIDED = frozenset({"device", "batch_tokens"})
"""Keys that affect no label."""


def _registered(name: str | None) -> str | None:
    if name is not None:
        registry("judge-format").get(name)
    return name


class LocalSettings(BaseModel):
    """The keys of a judge that runs a model here.

    Attributes:
        model: a hub id, a folder, or for a generating model a `.gguf` file.
        revision: the commit of the hub id. A hub id needs one, because the files behind a name may change.
        adapter: a PEFT adapter, for a generating model.
        format: the judge format of the model.
        rubric: in place of a format, a rubric, for any model with a chat template.
        dtype: the precision of the weights.
        quantise: `8bit` or `4bit`, for a generating model.
        device: as for `demur.load_checkpoint`.
        batch_tokens: the most tokens in a batch; by default the engine chooses.
        max_tokens: the most tokens of an output; by default what the format needs.
        coherence: whether texts that are no utterance get the label `incoherent` without being asked about.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    adapter: str | None = None
    format: Annotated[str | None, AfterValidator(_registered)] = None
    rubric: Rubric | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantise: Literal["8bit", "4bit"] | None = None
    device: str = "auto"
    batch_tokens: Annotated[int | None, Field(ge=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    coherence: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "LocalSettings":
        if (self.rubric is None) == (self.format is None):
            raise ValueError("expected either rubric or format; give one of them")
        if not is_on_this_machine(self.model) and self.revision is None and "@" not in self.model:
            raise ValueError(
                f"{self.model!r} is a hub id without a revision, and the files behind a name may change; give revision, the "
                "commit"
            )
        if self.asked.answers == "classes" and (self.adapter or self.quantise):
            raise ValueError(f"the format {self.format!r} is of a sequence classifier, which takes neither adapter nor quantise")
        return self

    @property
    def asked(self) -> JudgeFormat:
        """What is asked, and how answers are read."""
        if self.rubric is not None:
            return RubricFormat(self.rubric)
        assert self.format is not None
        return judge_format(self.format)
