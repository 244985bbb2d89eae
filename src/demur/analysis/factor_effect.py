"""The effect of weights or prompt format on refusals, as a typed value."""

from typing import Literal

from demur.analysis.cell import Record

Factor = Literal["weights", "prompt", "interaction"]


class FactorEffect(Record):
    """The effect of one factor on refusals.

    Attributes:
        factor: `weights`: the second checkpoint against the first, mean over both formats. `prompt`: the second format against
            the first, mean over both checkpoints. `interaction`: how much more the weights change under the second format.
        checkpoints: the first and the last checkpoint of the study.
        prompts: two prompt formats that both have.
        instructions: the instruction set.
        judge: the judge.
        n: the number of instructions that have a verdict in all four cells.
        effect: the change of the refusal rate, as a fraction; for an interaction, the difference of two changes.
        ci95: its 95 % interval over instructions (Agresti and Min 2005, carried over from differences to these means). With
            near-duplicate instructions it also contains the interval between groups.
    """

    factor: Factor
    checkpoints: tuple[str, str]
    prompts: tuple[str, str]
    instructions: str
    judge: str
    n: int
    effect: float
    ci95: tuple[float, float]
