"""The cell: target arm x instruction set x intervention, and what one judge found in it. Typed from the store to the report."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class Record(BaseModel):
    """A frozen value that is written as JSON. Unknown keys are kept out; a missing key takes its default."""

    # Every key is written, so the JSON Schema of what is written requires every key.
    model_config = ConfigDict(extra="ignore", frozen=True, json_schema_serialization_defaults_required=True)


class Cell(Record):
    """The unit of work, of storage and of resumption.

    Attributes:
        key: the same in every process; names the cell in the store and in the summary.
        target: the checkpoint that is edited and answers.
        prompt: the name of the prompt format.
        instructions: the instruction set: `harmful` or `harmless`.
        intervention: the kind of edit: `none`, `ablate`, `add` or another registered kind.
        action: the action of the kind, as in `EditWords.action`; the kind itself if it has one action.
        expected: the expected sign of the change in the refusal rate: -1, 1, or 0 if no change is expected.
        direction: the name of the direction, None if the edit takes none.
        source: the checkpoint that the direction came from, or the control's name.
        control: whether the direction is a null direction.
        control_kind: what the kind of control calls itself, empty where it is none.
        stands_beside: the direction that a control was made for.
        layer: the layer at which the direction was read.
        layers: the layers at which the edit acts, None for the kind's default.
        sites: the sites at which it acts, `["all"]` for all that the family has.
        coefficient: the dose of an addition.
        unit: what a coefficient of 1 adds: `unit`, `raw` or `residual`.
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
    """An edited cell against its own target without an edit, on the same instructions, under one judge.

    Attributes:
        key: the edited cell.
        judge: the judge.
        n: instructions that have a verdict in both cells.
        baseline_rate: the rate without the edit, over these.
        rate: the rate with the edit, over these.
        difference: `rate` minus `baseline_rate`.
        gained: instructions that became refusals.
        lost: instructions that stopped being refusals.
        p_value: two-sided exact McNemar test.
        p_holm: the same after Holm's correction over all edited cells of the judge.
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
    """A sentence of the report, and whether the data show the effect in it."""

    text: str
    shown: bool


class Null(Record):
    """The null directions that a claim was compared with.

    Attributes:
        kind: the kind of control.
        n: how many controls there were at the same setting.
        place: how many of them changed the rate at least as much in the expected sense; 0 if the edit changed it most.
    """

    kind: str
    n: int
    place: int


class Claim(Sentence):
    """The result for one edit, or for one checkpoint without an edit.

    Attributes:
        id: the same for the same claim in every run of the study.
        verdict: `supported` where the edit is shown to make the expected change; `contradicted` where a change in the other sense
            holds after Holm's correction; else `not shown`. `not tested` for a checkpoint without an edit: its rate is described.
        effect: the change of the rate, as a fraction; None for a claim about a checkpoint without an edit.
        ci95: 95 % interval of the effect, for paired proportions (Newcombe 1998, method 10).
        p: the p value of the effect after Holm's correction.
        null: the null directions it was compared with, None if there were none.
        cells: keys of the cells that it rests on.
    """

    id: str
    verdict: Literal["supported", "contradicted", "not shown", "not tested"]
    effect: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    null: Null | None = None
    cells: tuple[str, ...] = ()
