"""What others published of a study's cells, as data: counts, the settings behind them, and what their text says instead.

A study carries publications beside its own settings, so that a run whose settings were changed can be told from a reproduction.
They decide about no result. Counts that cannot be, and settings that no cell depends on, are refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from demur.core.errors import nearest

CHECKPOINT_KEYS = ("model", "adapter", "revision", "quantise", "prompts")
DIRECTION_KEYS = ("pairs", "layers", "site", "position")
EDIT_KEYS = ("sites", "layers", "positions", "unit", "coefficient")
RUN_KEYS = ("split", "max_new_tokens", "stop_at_eos", "dtype")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedRate(_Table):
    """One published refusal rate: of which cell, and how many of how many; `rate` alone where the source gives no count.

    `target` is a checkpoint of the study, `source` the one whose direction was added or ablated, `prompt` the target's format
    where it has several, `coefficient` the dose of an addition.
    """

    target: str
    prompt: str | None = None
    instructions: Literal["harmful", "harmless"]
    intervention: Literal["none", "ablate", "add"] = "none"
    source: str | None = None
    coefficient: float | None = None
    refusals: int | None = Field(default=None, ge=0)
    n: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, ge=0, le=1)
    note: str = ""

    @model_validator(mode="after")
    def _is_one_figure(self) -> "PublishedRate":
        counted = self.refusals is not None and self.n is not None
        if counted == (self.rate is not None) or counted != (self.refusals is not None or self.n is not None):
            raise ValueError("a published rate is refusals and n, or rate alone where the source gives no n")
        if self.refusals is not None and self.n is not None and self.refusals > self.n:
            raise ValueError(f"{self.refusals} refusals of {self.n} cannot be")
        if (self.source is None) != (self.intervention == "none"):
            raise ValueError(f"intervention {self.intervention!r} needs {'no source' if self.source else 'a source'}")
        if (self.coefficient is not None) and self.intervention != "add":
            raise ValueError(f"intervention {self.intervention!r} takes no coefficient")
        return self


class Publication(_Table):
    """Rates of one publication with the settings they were obtained under, and what its text says where its code does otherwise.

    `settings` names the study's own keys, nested as in the study: what the publication's code did. What it leaves out counts as
    not stated, except adapter, revision, quantisation and layers of an edit, which count as not used. `interventions` is one
    table here: what all edits had in common. `text` has the same keys, each with what the text says of it.
    """

    work: str = Field(min_length=1)
    settings: dict[str, Any] = {}
    text: dict[str, Any] = {}
    rates: list[PublishedRate] = Field(min_length=1)


def leaves(table: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested tables as one, with dots in the keys as `--set` writes them. Lists are values."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{path}.{key}" if path else str(key)
        found.update(leaves(value, name) if isinstance(value, Mapping) else {name: value})
    return found


def check(publication: Publication, where: str, checkpoints: Iterable[str], prompts: Iterable[str]) -> None:
    """Raises `ValueError` where a publication names a checkpoint or a setting that the study does not have."""
    names = list(checkpoints)
    for number, rate in enumerate(publication.rates):
        for key, name in (("target", rate.target), ("source", rate.source)):
            if name is not None and name not in names:
                raise ValueError(f"{where}.rates.{number}.{key} names {name!r}; {nearest(name, names)}")
    known = {"judges", *RUN_KEYS, *(f"prompts.{name}" for name in prompts)}
    known |= {f"instructions.{label}.source" for label in ("harmful", "harmless")}
    known |= {f"checkpoints.{name}.{key}" for name in names for key in CHECKPOINT_KEYS}
    known |= {f"direction.{key}" for key in DIRECTION_KEYS}
    known |= {f"interventions.{key}" for key in EDIT_KEYS}
    for part, table in (("settings", publication.settings), ("text", publication.text)):
        for key in leaves(table):
            if key not in known:
                raise ValueError(f"{where}.{part} names {key!r}, on which no published rate depends; {nearest(key, known)}")
    for key, words in leaves(publication.text).items():
        if not isinstance(words, str):
            raise ValueError(f"{where}.text says {words!r} of {key!r}; words are expected, as in 'not stated'")
