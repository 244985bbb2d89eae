"""A study: the whole experiment as one value. It is read from a TOML file, checked, and written out with every default.

Unknown keys are refused with the nearest known one. The checkpoints and instructions that a study names are not loaded here. The
names of parts are checked (`named_parts`).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from demur.core.errors import InputError, nearest
from demur.core.registry import is_short_name
from demur.directions.controls.control import control_kind
from demur.inputs.control_marks import ControlTokens
from demur.inputs.prompt_edits import is_edited
from demur.inputs.prompt_formats import NAME_BYTES
from demur.measurements.measurement import measures_nulls
from demur.study.digest import deciding_facts
from demur.study.instruction_sets import check_sets
from demur.study.named_parts import check_edits_differ, own_names_differ, part_name
from demur.study.planned.measured_arms import check_checkpoints
from demur.study.published_spec import Publication, PublishedRate
from demur.study.published_spec import check as check_publication
from demur.study.shorthand.arm_names import arm_names, arms_by_checkpoint
from demur.study.shorthand.named_formats import with_named_formats
from demur.study.shorthand.spelling_arms import with_spelling_arms
from demur.study.shorthand.system_sentences import with_system_formats
from demur.study.shorthand.written_lists import edit_numbers, written_out
from demur.study.spec_errors import Place, sentence
from demur.study.spec_fields import (
    LABELS,
    Decides,
    DecidesNothing,
    KeysDecide,
    Label,
    Plain,
    Table,
    listed,
    once,
    unordered,
)
from demur.study.spec_tables import (
    TELLS_READERS,
    CheckpointSpec,
    ClaimSpec,
    DirectionSpec,
    GateSpec,
    InstructionSpec,
    InterventionSpec,
    MeasurementSpec,
    PromptEntry,
    PromptSpec,
    SelectionSpec,
    measurement_list,
    named_once,
)
from demur.study.tables.control_tables import ControlSpec, default_controls
from demur.study.tables.direction_uses import check_uses

__all__ = [
    "LABELS",
    "CheckpointSpec",
    "ClaimSpec",
    "ControlSpec",
    "DirectionSpec",
    "InstructionSpec",
    "InterventionSpec",
    "Label",
    "MeasurementSpec",
    "SelectionSpec",
    "Study",
    "make_study",
]

Judge = Annotated[str, AfterValidator(part_name("judge"))]
Section = Annotated[str, AfterValidator(part_name("section"))]


class Study(Table):
    """The whole experiment: checkpoints, instructions, directions, edits and measurements.

    Attributes:
        name: the name of the study, and of its folder under `runs/` unless another folder is given.
        summary: one line for readers.
        checkpoints: the lineage by name; the order counts, because reports compare the last with the first.
        prompts: the study's own prompt formats by name: texts with `{instruction}`, or tables with a system
            sentence. A checkpoint's text gets a name here. `sensitivity = true` is written out as formats with small edits.
        instructions: `harmful` and `harmless`, from which directions are made, and further sets by name.
        direction: where and how directions are read.
        selection: how settings with the value "select" are chosen.
        interventions: what is done with each direction.
        claims: the edits that the study makes claims about; None for those with directions of other checkpoints.
        measurements: what is measured besides completions.
        controls: null directions.
        judges: names of judges; figures and sentences use the first.
        engine: what runs the models.
        sections: further sections of the report.
        split: `test`, or `validation` while settings are being chosen.
        allow_overlap: whether the study may run although instructions of one part are also in another, word for word or nearly.
        max_new_tokens: the length of a completion, in tokens.
        stop_at_eos: whether a completion ends at the model's end tokens.
        until_verdict: whether a completion ends as soon as the verdicts of all judges can no longer change.
        control_tokens: whether control tokens such as `<|im_end|>` that an instruction holds stay `text`, or become `tokens` as
            in published code.
        dtype: the precision of weights and residual stream.
        batch_tokens: tokens in a batch, padding and new tokens included; None to choose by the free memory.
        published: rates that others published for these cells.

    Example:
        >>> from demur import load_study
        >>> study = load_study("demo", ["direction.pairs=64"])
        >>> study
        Study('demo', checkpoints: before, after; layers: [17]; interventions: ablate, add, affine)
        >>> study.digest == load_study("demo").digest
        False
        >>> study.deciding()["direction.pairs"]
        64
    """

    name: Annotated[Plain, TELLS_READERS]
    summary: Annotated[str, TELLS_READERS] = ""
    checkpoints: Annotated[dict[str, CheckpointSpec], KeysDecide(), Field(min_length=1)]
    prompts: Annotated[dict[str, PromptEntry], KeysDecide()] = {}
    instructions: Annotated[dict[str, InstructionSpec], KeysDecide()]
    direction: Annotated[DirectionSpec, KeysDecide()]
    selection: Annotated[SelectionSpec, KeysDecide()] = SelectionSpec()
    interventions: Annotated[list[InterventionSpec], KeysDecide()] = []
    claims: Annotated[list[ClaimSpec] | None, KeysDecide()] = None
    measurements: Annotated[
        list[MeasurementSpec], KeysDecide(), BeforeValidator(measurement_list), AfterValidator(named_once)
    ] = [MeasurementSpec(name="by-layer")]
    controls: Annotated[ControlSpec, KeysDecide(), Field(validate_default=True)] = ControlSpec()
    judges: Annotated[
        list[Judge],
        BeforeValidator(listed),
        AfterValidator(once),
        AfterValidator(own_names_differ("judge")),
        Decides(unordered, when=lambda study: bool(study.get("until_verdict"))),
        Field(min_length=1),
    ] = ["prefix"]
    engine: Annotated[str, Decides(), AfterValidator(part_name("engine"))] = "transformers"
    sections: Annotated[list[Section], TELLS_READERS, BeforeValidator(listed), AfterValidator(once)] = []
    split: Annotated[Literal["test", "validation"], Decides()] = "test"
    allow_overlap: Annotated[bool, DecidesNothing("it lets a study run that is otherwise refused")] = False
    max_new_tokens: Annotated[int, Decides(), Field(ge=1)] = 16
    stop_at_eos: Annotated[bool, Decides()] = True
    until_verdict: Annotated[bool, Decides()] = False
    control_tokens: Annotated[ControlTokens, Decides()] = "text"
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], Decides()] = "float32"
    batch_tokens: Annotated[int | None, DecidesNothing("a row's result does not depend on its batch"), Field(ge=1)] = None
    published: Annotated[list[Publication], TELLS_READERS] = []

    @model_validator(mode="before")
    @classmethod
    def _shorthand_is_written_out(cls, value: Any) -> Any:
        return with_spelling_arms(with_system_formats(with_named_formats(written_out(value))))

    @field_validator("controls", mode="before")
    @classmethod
    def _enough_null_directions(cls, value: Any, info: ValidationInfo) -> Any:
        """Fills in the null directions, if the study does not give them."""
        written = value.model_dump(exclude_unset=True) if isinstance(value, ControlSpec) else value
        checkpoints = info.data.get("checkpoints")
        if not isinstance(written, dict) or "random" in written or checkpoints is None:
            return value
        arms = sum(not is_edited(prompt) for spec in checkpoints.values() for prompt in spec.prompts)
        raw = any(edit.unit == "raw" and edit.coefficient is not None for edit in info.data.get("interventions", ()))
        measured = any(measures_nulls(one.name) for one in info.data.get("measurements", ()))
        return {**default_controls(arms, raw=raw, measured=measured and not written), **written}

    @model_validator(mode="after")
    def _names_fit(self) -> "Study":
        check_sets(self.instructions)
        # The study's name is also the name of its run folder, unless --out gives another.
        if self.name.startswith(".") or any(mark in self.name for mark in "/\\:") or len(self.name.encode()) > NAME_BYTES:
            raise ValueError(
                f"{self.name!r} is not a name for a study: no / \\ or :, no dot at the start, at most {NAME_BYTES} bytes"
            )
        self._check_names()
        check_edits_differ(spec.kind for spec in self.interventions)
        check_uses(self.interventions, self.direction, self.arms)
        self._check_null_cells()
        self._check_claims()
        check_checkpoints([(one.name, one.parsed()) for one in self.measurements], tuple(self.checkpoints))
        arms = arm_names(self.arms)
        for number, spec in enumerate(self.interventions):
            known = (("sources", spec.sources, arms), ("targets", spec.targets, arms))
            for key, wanted, names in (*known, ("on", spec.on, self.instructions)):
                for name in wanted or ():
                    if name not in names:
                        raise ValueError(f"interventions.{number}.{key} names {name!r}; {nearest(name, names)}")
        for number, publication in enumerate(self.published):
            check_publication(publication, f"published.{number}", self.checkpoints, self.prompts, self.instructions)
        return self

    def _check_claims(self) -> None:
        """Checks that claims are about checkpoints, arms and instruction sets of the study."""
        arms = arm_names(self.arms) if self.claims else []
        for number, claim in enumerate(self.claims or ()):
            for key, names in (("source", arms), ("target", arms), ("on", self.instructions)):
                name = getattr(claim, key)
                if name is not None and name not in names:
                    raise ValueError(f"claims.{number}.{key} names {name!r}; {nearest(name, names)}")

    def _check_null_cells(self) -> None:
        """Checks that null directions and resamples without completions are measured by something."""
        measured = any(measures_nulls(one.name) for one in self.measurements)
        if self.direction.resamples and not self.direction.resample_completions and not measured:
            raise ValueError(
                "direction.resample_completions is false, so nothing would be done with the resamples; add "
                '"refusal-probability" to the measurements, or leave resample_completions out'
            )
        most = self.controls.completions
        silent = next((kind for kind, count in self.controls.counts.items() if most is not None and count > most), None)
        if silent is not None and not measured:
            raise ValueError(
                f"controls.completions is {most}, so nothing would be done with the others of the {self.controls.counts[silent]} "
                f'{silent} directions; add "refusal-probability" to the measurements, or leave completions out'
            )

    def _check_names(self) -> None:
        """Checks that names of checkpoints and prompts can be parts of file names and differ from names of controls."""
        for names in (self.checkpoints, self.prompts):
            if len({name.casefold() for name in names}) < len(names):
                raise ValueError(f"{', '.join(names)}: two of these names differ only in capitals")
        controls = dict.fromkeys(("random", *(control_kind(kind).name for kind in self.controls.counts)))
        for name in (*self.checkpoints, *self.prompts):
            if len(name.encode()) > NAME_BYTES:
                raise ValueError(f"{name[:20]!r}... is longer than the {NAME_BYTES} bytes that a name may have")
            taken = next((control for control in controls if name.startswith(f"{control}-")), None)
            if taken is not None or not is_short_name(name):
                raise ValueError(
                    f"{name!r} is not a name for a checkpoint or prompt: use letters, digits, - and _, and no "
                    f"{taken or 'random'}- at the start"
                )
        if "baseline" in self.checkpoints:
            raise ValueError("'baseline' is what cells without an edit are called; give the checkpoint another name")

    @property
    def arms(self) -> dict[str, tuple[str, ...]]:
        """The short names of each checkpoint's prompt formats."""
        return arms_by_checkpoint({name: spec.prompts for name, spec in self.checkpoints.items()}, self.prompts)

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of the instruction sets in the order of reports: `harmful`, `harmless`, then the others."""
        return (*LABELS, *(name for name in self.instructions if name not in LABELS))

    def __repr__(self) -> str:
        lineage, edits = ", ".join(self.checkpoints), ", ".join(edit.kind for edit in self.interventions)
        return f"Study({self.name!r}, checkpoints: {lineage}; layers: {self.direction.layers}; interventions: {edits})"

    def deciding(self) -> dict[str, JsonValue]:
        """Everything that affects results, by dotted key; defaults are left out, and paths are resolved.

        Two studies with the same deciding facts have the same results, so a run of one can be resumed with the other.
        """
        return deciding_facts(type(self), self.model_dump(mode="json")).table()

    @property
    def digest(self) -> str:
        """A hash of 16 hex digits of everything that affects results, and of the version of the digest's rule."""
        return deciding_facts(type(self), self.model_dump(mode="json")).digest()

    def toml(self) -> str:
        """The study as TOML, with every default written out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def quantised(self, quantise: str) -> "Study":
        """The same study with the weights of every checkpoint quantised.

        Args:
            quantise: `8bit` or `4bit`.

        Raises:
            InputError: for any other value.
        """
        checkpoints = {name: {**spec, "quantise": quantise} for name, spec in self.model_dump()["checkpoints"].items()}
        return make_study({**self.model_dump(), "checkpoints": checkpoints}, f"study {self.name!r}")

    def limited(self, n: int) -> "Study":
        """The same study on fewer test instructions.

        Args:
            n: the largest number of test instructions of each label.

        Raises:
            InputError: if `n` is less than 1.
        """
        if n < 1:
            raise InputError(f"--limit must be at least 1, not {n}")
        specs = {k: v.model_copy(update={"test": min(n, v.test)}) for k, v in self.instructions.items()}
        return self.model_copy(update={"instructions": specs})


def make_study(data: Mapping[str, object], where: str = "study") -> Study:
    """A study from plain data.

    Args:
        data: the study's tables, as TOML or JSON gives them.
        where: what an error calls the study.

    Returns:
        The study, with every default written out.

    Raises:
        InputError: if the data are not a valid study; the message is one sentence about the first error.
    """
    try:
        written, numbers = written_out(data), edit_numbers(data)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    try:
        return Study.model_validate(written)
    except ValidationError as error:
        # An error names an intervention by its number in the data, where a list of coefficients is one intervention.
        known = {str(number): str(place) for number, place in enumerate(numbers)}
        said = re.sub(r"(?<=\binterventions\.)\d+", lambda found: known.get(found[0], found[0]), sentence(error, TABLES))
        raise InputError(f"{where}: {said}") from error


TABLES: dict[Place, type[BaseModel]] = {
    (): Study,
    ("checkpoints", "*"): CheckpointSpec,
    ("prompts", "*"): PromptSpec,
    ("instructions", "*"): InstructionSpec,
    ("direction",): DirectionSpec,
    ("selection",): SelectionSpec,
    ("interventions", "*"): InterventionSpec,
    ("interventions", "*", "when"): GateSpec,
    ("claims", "*"): ClaimSpec,
    ("controls",): ControlSpec,
    ("measurements", "*"): MeasurementSpec,
    ("published", "*"): Publication,
    ("published", "*", "rates", "*"): PublishedRate,
}
"""The model of each table of a study by its place, for error messages."""
