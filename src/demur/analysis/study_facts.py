"""The settings of a study that the analysis reads, as typed values. They come from the study that is stored with a run.

A study that an earlier version of demur stored has fewer keys. The defaults here are the values that such a study used.
"""

from pydantic import JsonValue

from demur.analysis.cell import Record
from demur.analysis.claim_families import DeclaredClaim
from demur.analysis.manifest import Settings
from demur.study.published_spec import Publication


class CheckpointSettings(Record):
    """One checkpoint as the study names it."""

    model: str
    adapter: str | None = None
    revision: str | None = None
    quantise: str | None = None
    role: str = ""
    prompts: tuple[str, ...] = ("native",)


class InstructionSettings(Record):
    """Where one instruction set comes from."""

    source: str


class DirectionSettings(Record):
    """Where directions are read."""

    pairs: int
    layers: tuple[int, ...]
    site: str
    position: int


class StudyFacts(Record):
    """The part of a study that the analysis depends on. The attributes are keys of `study.toml`."""

    name: str
    summary: str = ""
    checkpoints: dict[str, CheckpointSettings]
    prompts: dict[str, JsonValue] = {}
    instructions: dict[str, InstructionSettings]
    direction: DirectionSettings
    claims: tuple[DeclaredClaim, ...] | None = None
    judges: tuple[str, ...]
    split: str = "test"
    max_new_tokens: int
    stop_at_eos: bool = True
    until_verdict: bool = False
    dtype: str = "float32"
    published: tuple[Publication, ...] = ()

    @classmethod
    def of(cls, study: Settings) -> "StudyFacts":
        """Reads the facts from a study as plain data, such as `Manifest.study` or `Summary.study`."""
        return cls.model_validate(study)

    def setting(self, key: str) -> JsonValue:
        """One of the study's own settings as plain data, by its key in `study.toml`."""
        found: JsonValue = self.model_dump(mode="json", include={key})[key]
        return found
