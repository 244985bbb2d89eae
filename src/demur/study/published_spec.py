"""Published results for a study's cells, as data: counts, their settings, and where a publication's text and code differ.

The published settings are separate from the study's own, so that a reproduction can be distinguished from a run with other
settings. Publications affect no result. Impossible counts, and settings that no cell depends on, are refused.
"""

from collections.abc import Collection, Iterable

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from demur.core.errors import nearest
from demur.core.nested import flatten
from demur.interventions.edit_kind import edit_kind

CHECKPOINT_KEYS = ("model", "adapter", "revision", "quantise", "prompts")
DIRECTION_KEYS = ("pairs", "layers", "site", "position")
EDIT_KEYS = ("sites", "layers", "positions", "unit", "coefficient")
RUN_KEYS = ("split", "max_new_tokens", "stop_at_eos", "dtype")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedRate(_Table):
    """One published refusal rate with its cell and its counts; only `rate` if the source gives no counts.

    Attributes:
        target: the checkpoint of the study that answered.
        prompt: the target's prompt format, if it has several.
        instructions: the instruction set.
        intervention: the kind of edit, or `none`.
        source: the checkpoint whose direction the edit used.
        coefficient: the dose, if the kind of edit takes one.
        refusals: number of refusals.
        n: number of completions.
        rate: refusals as a fraction, if the source gives no `n`.
        note: what a reader should know about this rate.
    """

    target: str
    prompt: str | None = None
    instructions: str
    intervention: str = "none"
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
            raise ValueError("a published rate needs refusals and n, or only rate if the source gives no n")
        if self.refusals is not None and self.n is not None and self.refusals > self.n:
            raise ValueError(f"{self.refusals} refusals of {self.n} are impossible")
        return self


class Publication(_Table):
    """Rates of one publication with the settings they were obtained under.

    Attributes:
        work: how the publication is cited.
        settings: what the publication's code did, under the keys of a study. A key that is left out counts as not stated.
            Exceptions are adapter, revision, quantisation and the layers of an edit, which then count as not used.
            `interventions` is one table here: what all edits had in common.
        text: for each key where the publication's text and code differ, what the text says.
        rates: the published rates.
    """

    work: str = Field(min_length=1)
    settings: dict[str, JsonValue] = {}
    text: dict[str, JsonValue] = {}
    rates: list[PublishedRate] = Field(min_length=1)


def check(
    publication: Publication, where: str, checkpoints: Iterable[str], prompts: Iterable[str], sets: Collection[str]
) -> None:
    """Check a publication against its study.

    Args:
        publication: the publication.
        where: its place in the study, for the error.
        checkpoints: names of the study's checkpoints.
        prompts: names of the study's own prompt formats.
        sets: names of its instruction sets.

    Raises:
        ValueError: if it names a checkpoint, a kind of edit or a setting that does not exist.
    """
    names = list(checkpoints)
    for number, rate in enumerate(publication.rates):
        for key, name in (("target", rate.target), ("source", rate.source)):
            if name is not None and name not in names:
                raise ValueError(f"{where}.rates.{number}.{key} names {name!r}; {nearest(name, names)}")
        if rate.instructions not in sets:
            raise ValueError(
                f"{where}.rates.{number}.instructions names {rate.instructions!r}; {nearest(rate.instructions, sets)}"
            )
        _check_edit(rate, f"{where}.rates.{number}")
    known = _known_settings(publication, names, prompts, sets)
    for part, table in (("settings", publication.settings), ("text", publication.text)):
        for key in flatten(table):
            if key not in known:
                raise ValueError(f"{where}.{part} names {key!r}, on which no published rate depends; {nearest(key, known)}")
    for key, words in flatten(publication.text).items():
        if not isinstance(words, str):
            raise ValueError(f"{where}.text has {words!r} for {key!r}; expected a text, such as 'not stated'")


def _known_settings(
    publication: Publication, checkpoints: Iterable[str], prompts: Iterable[str], sets: Iterable[str]
) -> set[str]:
    """The keys of a study on which a rate of the publication may depend."""
    known = {"judges", *RUN_KEYS, *(f"prompts.{name}" for name in prompts)}
    known |= {f"instructions.{name}.source" for name in sets}
    known |= {f"checkpoints.{name}.{key}" for name in checkpoints for key in CHECKPOINT_KEYS}
    known |= {f"direction.{key}" for key in DIRECTION_KEYS}
    known |= {f"interventions.{key}" for key in EDIT_KEYS}
    for name in {rate.intervention for rate in publication.rates} - {"none"}:
        settings = edit_kind(name).settings
        known |= {f"interventions.{key}" for key in (settings.model_fields if settings is not None else ())}
    return known


def _check_edit(rate: PublishedRate, where: str) -> None:
    # Not a validator of the rate: reports read rates too, and must work where the kinds of edits are not installed.
    kind = None if rate.intervention == "none" else edit_kind(rate.intervention)
    if (rate.source is None) != (kind is None or kind.artefact == "none"):
        raise ValueError(f"{where}: intervention {rate.intervention!r} needs {'no source' if rate.source else 'a source'}")
    if rate.coefficient is not None and not (kind is not None and kind.takes_dose):
        raise ValueError(f"{where}: intervention {rate.intervention!r} takes no coefficient")
