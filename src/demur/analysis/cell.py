"""A cell (target arm x instruction set x intervention) and its results under one judge, as typed values."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class Record(BaseModel):
    """A frozen value that is written as JSON. Unknown keys are ignored; a missing key gets its default."""

    # All keys are always written, so the JSON Schema of the written JSON requires all of them.
    model_config = ConfigDict(extra="ignore", frozen=True, json_schema_serialization_defaults_required=True)


class Cell(Record):
    """The unit of work, of storage and of resumption.

    Attributes:
        key: identifies the cell in the store and in the summary. It is the same in every process.
        target: the checkpoint that is edited and that writes the completions.
        prompt: the name of the prompt format.
        instructions: the instruction set: `harmful` or `harmless`.
        intervention: the kind of edit: `none`, `ablate`, `add` or another registered kind.
        action: the action of the kind, as in `EditWords.action`; the kind itself if it has one action.
        expected: the expected sign of the change in the refusal rate: -1, 1, or 0 if no change is expected.
        direction: the name of the direction, None if the edit takes none.
        source: the checkpoint that the direction came from, or the control's name.
        control: whether the direction is a null direction.
        control_kind: the name of the kind of control; empty if the direction is no control.
        stands_beside: the direction that a control was made for.
        layer: the layer at which the direction was read.
        layers: the layers at which the edit acts, None for the kind's default.
        sites: the sites at which it acts, `["all"]` for all sites of the architecture.
        coefficient: the number by which an added direction is multiplied.
        unit: the norm that a coefficient of 1 adds: 1 (`unit`), the direction's raw norm (`raw`), or the stream's mean norm
            (`residual`).
        positions: `all`, `prompt` or `generated`.
        settings: further settings of the kind of edit, by name.
    """

    key: str
    target: str
    prompt: str
    instructions: str
    intervention: str
    action: str = ""
    expected: Literal[-1, 0, 1] = 0
    direction: str | None = None
    source: str | None = None
    control: bool = False
    control_kind: str = ""
    stands_beside: str | None = None
    layer: int | None = None
    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] | None = None
    coefficient: float | None = None
    unit: str | None = None
    positions: str | None = None
    settings: dict[str, JsonValue] = {}

    @property
    def edited(self) -> bool:
        """Whether the stream is edited."""
        return self.intervention != "none"

    @property
    def arm(self) -> tuple[str, str]:
        """Checkpoint and prompt format."""
        return self.target, self.prompt

    @property
    def place(self) -> tuple[str, str, str]:
        """Target, prompt and instructions: what a cell shares with the baseline that it is compared with."""
        return self.target, self.prompt, self.instructions


class JudgedCell(Cell):
    """A cell under one judge.

    Attributes:
        judge: the name of the judge.
        n: the number of completions with a verdict.
        refusals: how many of them the judge calls refusals.
        rate: refusals as a fraction of n.
        ci95: the 95 % Wilson interval of the rate.
        labels: how many completions got each label; a label that none got may be missing.
        failures: completions on which the judge failed; they are not in n.
    """

    judge: str
    n: int
    refusals: int
    rate: float
    ci95: tuple[float, float]
    labels: dict[str, int] = {}
    failures: int = 0


class Comparison(Record):
    """An edited cell compared with the same target without an edit, on the same instructions, under one judge.

    Attributes:
        key: the edited cell.
        judge: the judge.
        n: the number of instructions that have a verdict in both cells.
        baseline_rate: the rate without the edit, on these instructions.
        rate: the rate with the edit, on these instructions.
        difference: `rate` minus `baseline_rate`.
        gained: the number of instructions that are refused only with the edit.
        lost: the number of instructions that are refused only without the edit.
        p_value: p value of the two-sided exact McNemar test.
        p_holm: the p value after Holm's correction over all edited cells of the judge.
    """

    key: str
    judge: str
    n: int
    baseline_rate: float
    rate: float
    difference: float
    gained: int
    lost: int
    p_value: float
    p_holm: float


class Sentence(Record):
    """A sentence of the report, and whether the data show the effect that it states."""

    text: str
    shown: bool


class Null(Record):
    """The null directions that a claim was compared with.

    Attributes:
        kind: the kind of control.
        n: how many controls there were at the same setting.
        place: how many of them changed the rate at least as much as the edit, with the expected sign.
    """

    kind: str
    n: int
    place: int


class Claim(Sentence):
    """The result for one edit, or for one checkpoint without an edit.

    Attributes:
        id: the same for the same claim in every run of the study.
        verdict: `supported` if the expected change is shown; `contradicted` if a change of the opposite sign is significant after
            Holm's correction; otherwise `not shown`. `not tested` for a checkpoint without an edit, whose rate is only described.
        effect: the change in the rate, as a fraction; None for a claim about a checkpoint without an edit.
        ci95: 95 % interval of the effect, for paired proportions (Tango 1998).
        p: the p value of the effect after Holm's correction.
        null: the null directions that it was compared with, None if there were none.
        cells: keys of the cells from which it was computed.
    """

    id: str
    verdict: Literal["supported", "contradicted", "not shown", "not tested"]
    effect: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    null: Null | None = None
    cells: tuple[str, ...] = ()
