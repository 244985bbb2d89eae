"""The tables of a study: checkpoints, instructions, the direction, interventions, controls and measurements.

Each key has a mark that says whether it affects results; `digest` reads these marks.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from demur.core.errors import InputError
from demur.interventions.edit_kind import Span, check_settings, edit_kind
from demur.measurements.measurement import measurement
from demur.study.named_parts import changed_settings, checked_settings, own_names_differ, part_name
from demur.study.spec_errors import A_TABLE, A_TEXT
from demur.study.spec_fields import (
    Decides,
    DecidesNothing,
    Label,
    Layers,
    Plain,
    SelectableDose,
    SelectableLayers,
    SelectablePosition,
    Site,
    SomeNames,
    Table,
    listed,
    once,
    one_path,
    one_source,
    one_text,
    unordered,
)
from demur.study.tables import estimator_tables
from demur.study.tables.estimator_tables import EstimatorSpec
from demur.study.tables.gate_tables import GateSpec as GateSpec
from demur.study.tables.gate_tables import written_keys

TELLS_READERS = DecidesNothing("it is for readers only")
PLANS = DecidesNothing("it is for planning only")


Doses = Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(once), Field(min_length=1)]
"""At least one coefficient, each once."""

Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], AfterValidator(once), Field(min_length=1)]
"""At least one seed, each once."""


def _one_spelling(system: str) -> str:
    if not system.strip():
        raise ValueError("the system sentence is empty; give a text, or leave the key out")
    return system.replace("\\n", "\n")


class CheckpointSpec(Table):
    """One set of weights: hub id, folder, GGUF file or demo name, with an adapter if given. One arm for each prompt format."""

    model: Annotated[Plain, Decides(one_path)]
    adapter: Annotated[Plain | None, Decides(one_path)] = None
    revision: Annotated[Plain | None, Decides()] = None
    quantise: Annotated[Literal["8bit", "4bit"] | None, Decides()] = None
    role: Annotated[str, TELLS_READERS] = ""
    prompts: Annotated[SomeNames, Decides()] = ["native"]
    system: Annotated[str | None, Decides(), Field(description="written out as formats of `prompts`")] = None
    parameters: Annotated[
        float | None, PLANS, Field(gt=0, description="number of weights, for planning if no config can be read")
    ] = None


class PromptSpec(Table):
    """A prompt format with a system sentence: a name or a text with `{instruction}`, and the sentence."""

    format: Annotated[str, Decides(one_text)]
    system: Annotated[str, AfterValidator(_one_spelling), Decides()]


PromptEntry = Annotated[
    Annotated[str, Tag(A_TEXT)] | Annotated[PromptSpec, Tag(A_TABLE)],
    Discriminator(lambda value: A_TABLE if isinstance(value, dict | PromptSpec) else A_TEXT),
]
"""A prompt format of a study: a text, or a table."""


class InstructionSpec(Table):
    """One instruction set: a registered set, a file or file:column, and how many are used for testing.

    `split` and `like` are keys of sets other than `harmful` and `harmless`. A bare text is the source.
    """

    source: Annotated[Plain, Decides(one_source)]
    test: Annotated[int, Decides(), Field(ge=1)] = 100
    split: Annotated[Literal["train", "validation", "test", "all"] | None, Decides()] = None
    like: Annotated[list[Label], BeforeValidator(listed), AfterValidator(once), Decides(unordered)] = []

    @model_validator(mode="before")
    @classmethod
    def _a_text_is_the_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class DirectionSpec(Table):
    """Where and how directions are read: from `pairs` harmful and as many harmless training instructions, one for each layer.

    Without `pairs_seed`, these are the first of each training part; with it, they are drawn, once for each seed. With
    `resamples`, each direction of the first seed is made again from so many bootstrap resamples of its pairs, and the edits under
    test are repeated with these.
    """

    pairs: Annotated[int, Decides(), Field(ge=1)] = 32
    pairs_seed: Annotated[Seeds | None, BeforeValidator(listed), Decides()] = None
    layers: Annotated[SelectableLayers, Decides(unordered)]
    site: Annotated[Site, Decides()] = "resid_pre"
    position: Annotated[SelectablePosition, Decides()] = -1
    estimator: Annotated[str, Decides(), AfterValidator(part_name("estimator"))] = "difference-of-means"
    further_estimators: Annotated[list[EstimatorSpec], Decides()] = []
    resamples: Annotated[int, Decides(), Field(ge=0)] = 0
    resample_completions: Annotated[bool, Decides(when=lambda direction: bool(direction.get("resamples")))] = True

    @model_validator(mode="before")
    @classmethod
    def _a_list_of_estimators_is_written_out(cls, value: Any) -> Any:
        return estimator_tables.written_out(value)

    @model_validator(mode="after")
    def _estimators_differ(self) -> "DirectionSpec":
        estimator_tables.differ(self.estimator, self.further_estimators)
        return self

    @model_validator(mode="after")
    def _resamples_have_a_spread(self) -> "DirectionSpec":
        if self.resamples == 1:
            raise ValueError("resamples is 1, and one resample of the training pairs has no spread; give 0, or 2 or more")
        if self.resamples and self.pairs < 2:
            raise ValueError("resamples need at least 2 training pairs; raise pairs, or leave resamples out")
        return self

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """The seeds by which training pairs are drawn; only None if they are the first ones. Measurements use the first seed."""
        return (None,) if self.pairs_seed is None else tuple(self.pairs_seed)

    @property
    def estimators(self) -> tuple[EstimatorSpec, ...]:
        """All estimators, the first one first."""
        return (EstimatorSpec(name=self.estimator), *self.further_estimators)

    @property
    def places(self) -> list[int]:
        """The layers, once they are known.

        Raises:
            ValueError: while they are still to be selected.
        """
        if isinstance(self.layers, str):
            raise ValueError(f"the layers of this study are {self.layers!r} so far; see demur.study.selected_settings")
        return self.layers

    @property
    def token(self) -> int:
        """The position, once it is known.

        Raises:
            ValueError: while it is still to be selected.
        """
        if isinstance(self.position, str):
            raise ValueError("the position of this study is not selected yet; see demur.study.selected_settings")
        return self.position


class SelectionSpec(Table):
    """How settings with the value "select" are chosen: on validation instructions, before anything is tested."""

    instructions: Annotated[int, Decides(), Field(ge=2)] = 24
    layers: Annotated[Layers | None, BeforeValidator(listed), Decides(unordered)] = None
    doses: Annotated[Doses | None, Decides(unordered)] = None
    kl: Annotated[float, Decides(), Field(gt=0)] = 0.5


class InterventionSpec(Table):
    """One kind of edit, made with every direction in every arm unless `sources` or `targets` say otherwise.

    Both name checkpoints, with all of their arms, or single arms as `checkpoint/prompt`.
    Without `layers` and `sites`, the kind decides where it acts: `ablate` at every layer and site, `add` at the layer and site of
    the direction. A control is used in the same cells as the direction that it is a control for. Further keys are settings of the
    kind.

    `estimators` and `read_at` name the directions that it uses by estimator and by the layer at which they were read; without
    them, all are used. A kind that takes several directions needs `span`: those of several `estimators` at one layer, those of
    several `layers`, or the `parts` that one estimator gives. With `when`, it acts only in rows whose prompt opens a gate.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    kind: Annotated[str, Decides()]
    coefficient: Annotated[SelectableDose, Decides()] = None
    unit: Annotated[Literal["unit", "raw", "residual"], Decides(when=lambda edit: edit.get("coefficient") is not None)] = "unit"
    layers: Annotated[Layers | None, Decides()] = None
    sites: Annotated[list[Site] | None, Decides(), Field(min_length=1)] = None
    positions: Annotated[Literal["all", "prompt", "generated"], Decides()] = "all"
    on: Annotated[SomeNames, Decides(unordered)] = ["harmful", "harmless"]
    sources: Annotated[list[str] | None, Decides(unordered)] = None
    targets: Annotated[list[str] | None, Decides(unordered)] = None
    estimators: Annotated[SomeNames | None, BeforeValidator(listed), Decides()] = None
    read_at: Annotated[Layers | None, BeforeValidator(listed), Decides(unordered)] = None
    span: Annotated[Span | None, Decides()] = None
    when: Annotated[GateSpec | None, Decides(written_keys)] = None

    @model_validator(mode="before")
    @classmethod
    def _settings_belong_to_the_kind(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            return value
        try:
            kind = edit_kind(value["kind"])
        except InputError:
            return value  # refused below, with the kind's name
        further = {key: given for key, given in value.items() if key not in cls.model_fields}
        settings = checked_settings(kind.settings, further, cls.model_fields)
        clash = next((key for key in settings if key in cls.model_fields), None)
        if clash is not None:
            raise ValueError(f"the kind {kind.name!r} has a setting {clash!r}, which every intervention has; rename the setting")
        if kind.settings is not None:
            check_settings(value["kind"], kind.settings.model_validate(settings))
        own = {key: given for key, given in value.items() if key in cls.model_fields}
        return {"on": list(kind.default_on), **own, **settings}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "InterventionSpec":
        kind = edit_kind(self.kind)
        if kind.takes_dose and self.coefficient is None:
            raise ValueError(f"an intervention of kind {self.kind!r} needs a coefficient")
        if not kind.takes_dose and self.coefficient is not None:
            raise ValueError(f"an intervention of kind {self.kind!r} takes no coefficient")
        if self.unit == "residual" and self.layers is not None:
            raise ValueError("unit 'residual' uses the norm at the direction's own layer; leave layers out, or use unit 'raw'")
        return self

    @property
    def dose(self) -> float | None:
        """The coefficient, once it is known.

        Raises:
            ValueError: while it is still to be selected.
        """
        if isinstance(self.coefficient, str):
            raise ValueError("a coefficient of this study is not selected yet; see demur.study.selected_settings")
        return self.coefficient

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings of the kind as plain data, with every default written out."""
        return dict(self.__pydantic_extra__ or {})

    @property
    def changed_settings(self) -> dict[str, JsonValue]:
        """Those settings that differ from the kind's defaults."""
        return changed_settings(edit_kind(self.kind).settings, self.settings)


TESTS = DecidesNothing("tests are computed again from what is stored")


class ClaimSpec(Table):
    """Edits that a study makes claims about. What is left out means any. Where no change is expected, nothing is claimed.

    `source` and `target` are checkpoints, or arms as `checkpoint/prompt`.
    """

    kind: Annotated[Plain, TESTS, AfterValidator(part_name("edit"))]
    source: Annotated[Plain | None, TESTS] = None
    target: Annotated[Plain | None, TESTS] = None
    on: Annotated[Plain | None, TESTS] = None


class MeasurementSpec(Table):
    """One measurement: its name, and further keys that are its settings. Written as a bare name if it has no settings."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    name: Annotated[
        Plain,
        AfterValidator(part_name("measurement")),
        DecidesNothing("a measurement is stored with its settings, and missing ones are measured when the run is resumed"),
    ]

    @model_validator(mode="before")
    @classmethod
    def _settings_belong_to_the_measurement(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or len(value) == 1:
            return value
        further = {key: given for key, given in value.items() if key != "name"}
        return {"name": value["name"], **checked_settings(measurement(value["name"]).settings, further, ["name"])}

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings as plain data; empty if the study gives none, so that all have their defaults."""
        return dict(self.__pydantic_extra__ or {})

    def parsed(self) -> BaseModel | None:
        """The settings as the measurement's own model, with every default; None if it has none."""
        model = measurement(self.name).settings
        return None if model is None else model.model_validate(self.settings)

    @model_serializer(mode="wrap")
    def _bare_where_it_can_be(self, written: SerializerFunctionWrapHandler) -> Any:
        return written(self) if self.settings else self.name


def measurement_list(value: Any) -> Any:
    """A single name or table as a list of one."""
    return [value] if isinstance(value, str | dict) else value


def named_once(measurements: list[MeasurementSpec]) -> list[MeasurementSpec]:
    """Returns the same list. Raises `ValueError` if a measurement is in it twice, or if two have the same `name` attribute."""
    names = [one.name for one in measurements]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is listed twice; list it once")
    own_names_differ("measurement")(names)
    return measurements
