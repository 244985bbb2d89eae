"""The keys of a judge of kind `classifier`, which runs its model in this process."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from demur.judges.asked.asked_settings import AskedSettings
from demur.models.sources import is_on_this_machine

UNDECIDED = frozenset({"device", "batch_tokens"})
"""Keys that affect no label."""


class LocalSettings(AskedSettings):
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

    revision: str | None = None
    adapter: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantise: Literal["8bit", "4bit"] | None = None
    device: str = "auto"
    batch_tokens: Annotated[int | None, Field(ge=1)] = None

    @model_validator(mode="after")
    def _fits(self) -> "LocalSettings":
        if not is_on_this_machine(self.model) and self.revision is None and "@" not in self.model:
            raise ValueError(
                f"{self.model!r} is a hub id without a revision, and the files behind a name may change; give revision, the "
                "commit"
            )
        if self.asked.answers == "classes" and (self.adapter or self.quantise):
            raise ValueError(f"the format {self.format!r} is of a sequence classifier, which takes neither adapter nor quantise")
        return self
