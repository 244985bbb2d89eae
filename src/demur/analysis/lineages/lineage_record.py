"""What changes along the checkpoints of a study, as typed values; `lineage_trends` computes them."""

from demur.analysis.cell import Record


class Trend(Record):
    """The trend of the refusal rate along the checkpoints, without an edit.

    Attributes:
        instructions: the instruction set.
        prompt: the prompt format; empty if the checkpoints share none, so that each is asked under its first one.
        n: the number of instructions that have a verdict at every checkpoint.
        slope: the change from the first to the last checkpoint along a straight line, as a fraction.
        ci95: its 95 % interval.
        p: two-sided p value of "no trend".
        p_holm: the same after Holm's correction over the trends of the run.
    """

    instructions: str
    prompt: str
    n: int
    slope: float
    ci95: tuple[float, float]
    p: float
    p_holm: float


class Reach(Record):
    """What the direction of one checkpoint changes in the other checkpoints, on average.

    Attributes:
        source: the checkpoint that the direction comes from.
        action: the action of the edit.
        dose: its coefficient in words; empty if it has none.
        instructions: the instruction set.
        targets: the number of other checkpoints.
        n: the number of instructions that have a verdict in all of these cells.
        change: the mean change of the refusal rate from that without an edit, as a fraction.
        ci95: its 95 % interval over instructions.
        own: the change in the source itself, None if it was not measured.
    """

    source: str
    action: str
    dose: str
    instructions: str
    targets: int
    n: int
    change: float
    ci95: tuple[float, float]
    own: float | None = None


class Lineage(Record):
    """A study's checkpoints in order, and what changes along them.

    Attributes:
        checkpoints: their names, in the order of the study.
        trends: one trend for each instruction set and prompt format.
        reaches: one entry for each edit, instruction set and checkpoint.
        cosine_to_previous: the cosine between the direction of each checkpoint and that of the one before it; None for the first,
            and for a checkpoint without a direction.
        cosine_to_last: the same with the last checkpoint.
    """

    checkpoints: tuple[str, ...]
    trends: tuple[Trend, ...] = ()
    reaches: tuple[Reach, ...] = ()
    cosine_to_previous: tuple[float | None, ...] = ()
    cosine_to_last: tuple[float | None, ...] = ()
