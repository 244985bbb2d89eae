"""A cell (target arm x instruction set x intervention) and its results under one judge, as typed values."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from demur.core.effects.null_distribution import Outcome
from demur.core.effects.paired_change import MCNEMAR
from demur.inputs.prompt_edits import is_edited

Family = Literal["confirmatory", "exploratory", "descriptive", "control"]
"""What the test of an edited cell counts for.

`confirmatory`: it is a claim of the study. `exploratory`: a change is expected, but it is no claim of the study. `descriptive`:
no change is expected. `control`: a null direction. Holm's correction is made within the first and within the second; the others
belong to no family of tests.
"""

Moved = Literal["", "weights", "prompt", "both"]
"""What differs between the arm of a direction and the arm that it is used in; empty if nothing does, or if it is not known."""

Reason = Literal[
    "",
    "could not be shown",
    "inconclusive",
    "no effect beyond delta",
    "inside the null distribution",
    "broken text",
    "opposite change",
    "a part is not shown",
    "no such cell",
]
"""Why a claim is not shown.

`could not be shown`: no result could have shown it, because too few verdicts can change or there are too few null directions.
`no effect beyond delta`: the change is smaller than delta. `inside the null distribution`: null directions do as much.
`broken text`: refusals are lost, but the completions are no text any more. `opposite change`: the change has the other sign.
`a part is not shown`: the claim has several parts, and one of them does not hold. `no such cell`: the run has no cell from which
it could be tested. `inconclusive`: none of these.
"""


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
        source_prompt: the prompt format under which the direction was read; None for a control, and in folders of earlier
            versions.
        control: whether the direction is a null direction.
        control_kind: the name of the kind of control; empty if the direction is no control.
        stands_beside: the direction that a control was made for.
        layer: the layer at which the direction was read; None for a subspace of several layers.
        pairs_seed: the seed by which the training instructions of its direction were drawn; None for the first ones of the set.
        resample_of: the direction from all training pairs, if its own is from a resample of them; else None.
        estimator: the estimator of its direction, empty for the study's first; several of a subspace are joined by `+`.
        dimension: the number of directions that the edit takes together; 1 for a single direction.
        layers: the layers at which the edit acts, None for the kind's default.
        sites: the sites at which it acts, `["all"]` for all sites of the architecture.
        coefficient: the number by which an added direction is multiplied.
        unit: the norm that a coefficient of 1 adds: 1 (`unit`), the direction's raw norm (`raw`), or the stream's mean norm
            (`residual`).
        positions: `all`, `prompt` or `generated`.
        settings: further settings of the edit, by name: those of its kind, and `when` with its gate as the
            study names it, if it has one.
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
    source_prompt: str | None = None
    control: bool = False
    control_kind: str = ""
    stands_beside: str | None = None
    layer: int | None = None
    pairs_seed: int | None = None
    resample_of: str | None = None
    estimator: str = ""
    dimension: int = 1
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
    def folded(self) -> bool:
        """Whether it is shown only as a part of a spread: it has no row, no test and no claim of its own."""
        return self.resample_of is not None or is_edited(self.prompt)

    @property
    def arm(self) -> tuple[str, str]:
        """Checkpoint and prompt format."""
        return self.target, self.prompt

    @property
    def moved(self) -> Moved:
        """What the arm that the direction was read in and the arm that it is used in do not share."""
        if self.source_prompt is None:
            return ""
        weights, prompt = self.source != self.target, self.source_prompt != self.prompt
        return "both" if weights and prompt else "weights" if weights else "prompt" if prompt else ""

    @property
    def crosses_formats(self) -> bool:
        """Whether the direction was read under another prompt format than the one that it is used under."""
        return self.moved in ("prompt", "both")

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
        p_value: two-sided p value of the test.
        p_holm: the p value after Holm's correction within the family; None for a cell that is in no family of tests.
        ci95: 95 % interval of the difference; None in summaries of earlier versions.
        test: the name of the test: exact McNemar, and a test between groups of near-duplicate instructions if there are any.
        groups: the number of these groups; None if no two instructions are alike.
        family: what the test counts for.
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
    p_holm: float | None
    ci95: tuple[float, float] | None = None
    test: str = MCNEMAR
    groups: int | None = None
    family: Family = "confirmatory"


class Sentence(Record):
    """A sentence of the report, and whether the data show the effect that it states."""

    text: str
    shown: bool


class Answer(Sentence):
    """A sentence that answers the question of a study.

    Attributes:
        cells: keys of the cells whose rates it states: the baseline first, then edits, then null directions.
    """

    cells: tuple[str, ...] = ()


class Null(Record):
    """The null directions of one kind that a claim was compared with.

    Attributes:
        kind: the kind of control.
        n: how many controls there were at the same setting and dose.
        place: how many of them changed the rate at least as much as the edit, with the expected sign.
        p: p value of the edit as one more draw from them (t prediction interval on log-odds); None for fewer than five.
        p_rank: p value by rank, (1 + place) / (1 + n).
        band: the rates between which 95 % of such null directions lie; None for fewer than five.
        reach: the lowest and the highest rate under one of them.
        outcome: what was compared: rates of verdicts, or mean probabilities of a refusal.
        value: the same of the edit, on the instructions on which it is known of all null directions; None in earlier summaries.
    """

    kind: str
    n: int
    place: int
    p: float | None = None
    p_rank: float | None = None
    band: tuple[float, float] | None = None
    reach: tuple[float, float] | None = None
    outcome: Outcome = "verdict"
    value: float | None = None


class Claim(Sentence):
    """The verdict on a hypothesis, the result for one edit, or the rate of one checkpoint without an edit.

    Attributes:
        id: the same for the same claim in every run of the study.
        short: the claim in few words, for a table; empty for a claim that is no hypothesis.
        about: what it is about: a named `hypothesis`, the `effect` of one edit, or a `rate`.
        verdict: `supported` if the expected change is shown; `contradicted` if a change of the opposite sign is significant after
            Holm's correction; otherwise `not shown`. `not tested` for a checkpoint without an edit, whose rate is only described,
            and for a hypothesis for which the run has no cell. A hypothesis is also `contradicted` if the change is smaller than
            delta.
        effect: the change in the rate, as a fraction; None for a claim about a checkpoint without an edit. For `base-refuses`,
            the rate on harmful instructions minus that on harmless ones.
        n: the number of instructions behind the effect.
        rates: the two rates of which the effect is the difference, without and with the edit.
        ci95: 95 % interval of the effect, for paired proportions (Tango 1998) and groups of instructions. It holds
            the direction fixed.
        ci95_pairs: 95 % interval of the effect over instructions and training pairs; None without resamples of the pairs.
        p: the larger of the p values of the change and against null directions, after Holm's correction within the family. For a
            change against the expected sense, the p value of the change. For a contradicted hypothesis, the p value of what
            contradicts it.
        null: the null directions that decide, None if there were none: the kind with the largest p value.
        cells: keys of the cells from which it was computed.
        family: whether the claim is one of the study's claims or exploratory.
        p_change: the p value of the change alone, after Holm's correction.
        nulls: the null directions of every kind that it was compared with.
        reason: why it is not shown or contradicted; empty for other verdicts.
        because: the same as a sentence without capital and full stop.
        delta: the change that is the margin of `p_no_effect`, as a fraction.
        p_no_effect: p value of "the change is smaller than delta" by two one-sided tests.
        least_detectable: the smallest true change that as many instructions show with a chance of 80 %, as a fraction; None if
            there is none. Like `least_p` and `p_no_effect`, it is computed for claims that are not shown.
        least_p: the smallest p value that the change could have had.
        settings: the number of settings in which a hypothesis was tested: arms, layers, doses. The numbers are those of the
            setting with the smallest p value, and p is multiplied by the number of settings.
        parts: the ids of the claims that a hypothesis consists of. It holds if all of them hold, and its p is their largest one.
        evidence: sentences that stand beside a hypothesis and do not decide about it.
    """

    id: str
    short: str = ""
    about: Literal["hypothesis", "effect", "rate"] = "effect"
    verdict: Literal["supported", "contradicted", "not shown", "not tested"]
    effect: float | None = None
    n: int | None = None
    rates: tuple[float, float] | None = None
    ci95: tuple[float, float] | None = None
    ci95_pairs: tuple[float, float] | None = None
    p: float | None = None
    null: Null | None = None
    cells: tuple[str, ...] = ()
    family: Family = "descriptive"
    p_change: float | None = None
    nulls: tuple[Null, ...] = ()
    reason: Reason = ""
    because: str = ""
    delta: float | None = None
    p_no_effect: float | None = None
    least_detectable: float | None = None
    least_p: float | None = None
    settings: int = 1
    parts: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
