"""The experiment as data: one pydantic model is the file, its defaults and its errors.

Unknown keys are refused with the nearest known one; every default is written out in the run folder. Paper settings are presets,
not code paths (`study_files.py`). A study names things; nothing is loaded here.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from demur.core.errors import InputError, nearest
from demur.study.published_spec import Publication, PublishedRate
from demur.study.published_spec import check as check_publication

Label = Literal["harmful", "harmless"]
LABELS: tuple[Label, ...] = get_args(Label)
NAME_BYTES = 64
"""Names of checkpoints and prompts become parts of file names, of which file systems take 255 bytes."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _once(values: list[Any]) -> list[Any]:
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} stands there twice")
    return values


def _plain(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{text[:40]!r} is empty or holds characters that do not print")
    return text


Plain = Annotated[str, AfterValidator(_plain)]
"""A name of a file, a model or a set: something that can be printed."""


class _Table(BaseModel):
    # Strict: "8" is no number of pairs and true is no layer.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CheckpointSpec(_Table):
    """One set of weights: hub id, folder, GGUF file or demo name, with an adapter where given. One arm per prompt format."""

    model: Plain
    adapter: Plain | None = None
    revision: Plain | None = None
    quantise: Literal["8bit", "4bit"] | None = None
    role: str = ""
    prompts: Annotated[list[str], BeforeValidator(_listed), AfterValidator(_once), Field(min_length=1)] = ["native"]
    parameters: float | None = Field(
        default=None, gt=0, description="number of weights, for planning where no config is in reach"
    )


class InstructionSpec(_Table):
    """Instructions of one label: a registered set, a file or file:column, and how many are used for testing."""

    source: Plain
    test: int = Field(default=100, ge=1)


class DirectionSpec(_Table):
    """Where directions are read: over `pairs` harmful and as many harmless training instructions, one direction a layer."""

    pairs: int = Field(default=32, ge=1)
    layers: Annotated[list[NonNegativeInt], BeforeValidator(_listed), AfterValidator(_once), Field(min_length=1)]
    site: Literal["resid_pre", "resid_mid", "resid_post"] = "resid_pre"
    position: int = Field(default=-1, le=-1)


class InterventionSpec(_Table):
    """One kind of edit, made with every direction on every checkpoint unless `sources` or `targets` say otherwise.

    `layers` and `sites` left out mean every layer and site for `ablate`, the direction's own for `add`. A control takes part
    wherever the checkpoint it stands beside does.
    """

    kind: Literal["ablate", "add"]
    coefficient: float | None = None
    unit: Literal["unit", "raw", "residual"] = "unit"
    layers: Annotated[list[NonNegativeInt], AfterValidator(_once)] | None = Field(default=None, min_length=1)
    sites: list[Literal["resid_pre", "resid_mid", "resid_post"]] | None = Field(default=None, min_length=1)
    positions: Literal["all", "prompt", "generated"] = "all"
    on: Annotated[list[Label], BeforeValidator(_listed), Field(min_length=1)] = ["harmful", "harmless"]
    sources: list[str] | None = None
    targets: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _ablation_is_tested_on_harmful(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("kind") == "ablate":
            return {"on": ["harmful"], **value}
        return value

    @model_validator(mode="after")
    def _coefficient_belongs_to_add(self) -> "InterventionSpec":
        if (self.coefficient is None) == (self.kind == "add"):
            need = "needs a coefficient" if self.kind == "add" else "takes no coefficient"
            raise ValueError(f"an intervention of kind {self.kind!r} {need}")
        if self.unit == "residual" and self.layers is not None:
            raise ValueError("unit 'residual' counts norms at the direction's own layer; leave layers out, or use unit 'raw'")
        return self


class ControlSpec(_Table):
    """Null directions: how many random ones, and their seed. Control k has the norm of arm k's direction, then around again.

    Where a study does not say how many, each arm has one, and there are two at least.
    """

    random: int = Field(default=2, ge=0)
    seed: int = 0


class Study(_Table):
    """The whole experiment. `lineage` is the order of `checkpoints`; `split` is `validation` while settings are being chosen."""

    name: Plain
    summary: str = ""
    checkpoints: Annotated[dict[str, CheckpointSpec], Field(min_length=1)]
    prompts: dict[str, str] = {}
    instructions: dict[Label, InstructionSpec]
    direction: DirectionSpec
    interventions: list[InterventionSpec] = []
    controls: ControlSpec = ControlSpec()
    judges: Annotated[list[str], BeforeValidator(_listed), AfterValidator(_once), Field(min_length=1)] = ["prefix"]
    split: Literal["test", "validation"] = "test"
    max_new_tokens: int = Field(default=16, ge=1)
    stop_at_eos: bool = True
    until_verdict: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_tokens: int | None = Field(default=None, ge=1)
    published: list[Publication] = []

    @model_validator(mode="after")
    def _every_arm_has_a_null(self) -> "Study":
        if "random" not in self.controls.model_fields_set:
            arms = sum(len(spec.prompts) for spec in self.checkpoints.values())
            # Written out like any other default; there is no other way into a frozen model.
            object.__setattr__(self, "controls", self.controls.model_copy(update={"random": max(self.controls.random, arms)}))
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> "Study":
        for label in LABELS:
            if label not in self.instructions:
                raise ValueError(f"instructions.{label} is missing")
        # The study's name is that of the folder its run goes to, unless --out says otherwise.
        if self.name.startswith(".") or any(mark in self.name for mark in "/\\:") or len(self.name.encode()) > NAME_BYTES:
            raise ValueError(f"{self.name!r} is no name for a study: no / \\ or :, no dot in front, at most {NAME_BYTES} bytes")
        for names in (self.checkpoints, self.prompts):
            if len({name.casefold() for name in names}) < len(names):
                raise ValueError(f"{', '.join(names)}: two of these names differ in nothing but capitals")
        for name in (*self.checkpoints, *self.prompts):
            if len(name.encode()) > NAME_BYTES:
                raise ValueError(f"{name[:20]!r}... is longer than the {NAME_BYTES} bytes that a name may have")
            if name.startswith("random-") or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name!r} is no name for a checkpoint or prompt: letters, digits, - and _, no random- in front")
        if "baseline" in self.checkpoints:
            raise ValueError("'baseline' is what cells without an edit are called; give the checkpoint another name")
        for number, spec in enumerate(self.interventions):
            for key, wanted in (("sources", spec.sources), ("targets", spec.targets)):
                for name in wanted or ():
                    if name not in self.checkpoints:
                        raise ValueError(f"interventions.{number}.{key} names {name!r}; {nearest(name, self.checkpoints)}")
        for number, publication in enumerate(self.published):
            check_publication(publication, f"published.{number}", self.checkpoints, self.prompts)
        return self

    def __repr__(self) -> str:
        lineage, edits = ", ".join(self.checkpoints), ", ".join(edit.kind for edit in self.interventions)
        return f"Study({self.name!r}, checkpoints: {lineage}; layers: {self.direction.layers}; interventions: {edits})"

    @property
    def digest(self) -> str:
        """16 hex digits over everything that decides about results; names, summaries and published figures do not."""
        facts = self.model_dump(mode="json", exclude={"name", "summary", "batch_tokens", "published"})
        # As it was before there was a choice, so that runs go on.
        if not facts["until_verdict"]:
            del facts["until_verdict"]
        for spec in facts["checkpoints"].values():
            if spec["quantise"] is None:
                del spec["quantise"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def toml(self) -> str:
        """The study with every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def quantised(self, quantise: str) -> "Study":
        """The same study with the weights of every checkpoint quantised, `8bit` or `4bit`."""
        checkpoints = {name: {**spec, "quantise": quantise} for name, spec in self.model_dump()["checkpoints"].items()}
        return make_study({**self.model_dump(), "checkpoints": checkpoints}, f"study {self.name!r}")

    def limited(self, n: int) -> "Study":
        """The same study on at most `n` test instructions of each label."""
        if n < 1:
            raise InputError(f"--limit must be at least 1, not {n}")
        specs = {k: v.model_copy(update={"test": min(n, v.test)}) for k, v in self.instructions.items()}
        return self.model_copy(update={"instructions": specs})


def make_study(data: dict[str, Any], where: str = "study") -> Study:
    """A study from plain data. Raises `InputError` with the first thing that is wrong."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {_sentence(error)}") from error


_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Study,
    ("checkpoints", "*"): CheckpointSpec,
    ("instructions", "*"): InstructionSpec,
    ("direction",): DirectionSpec,
    ("interventions", "*"): InterventionSpec,
    ("controls",): ControlSpec,
    ("published", "*"): Publication,
    ("published", "*", "rates", "*"): PublishedRate,
}


def _sentence(error: ValidationError) -> str:
    # An unknown key is named first: it is often why another one is missing.
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")[0]
    place = tuple(str(part) for part in found["loc"])
    dotted = ".".join(place)
    if found["type"] == "extra_forbidden":
        # Every second step into a study is a checkpoint's name, a label or a number.
        model = _MODELS.get(tuple("*" if step % 2 else part for step, part in enumerate(place[:-1])))
        known = model.model_fields if model is not None else Study.model_fields
        return f"{dotted!r} is not a key of a study; {nearest(place[-1], known)}"
    if found["type"] == "missing":
        return f"{dotted!r} is missing"
    if found["type"] == "value_error":
        return str(found["ctx"]["error"]) if not dotted else f"{dotted}: {found['ctx']['error']}"
    return f"{dotted!r} is {found['input']!r}: {found['msg'][0].lower()}{found['msg'][1:]}"
