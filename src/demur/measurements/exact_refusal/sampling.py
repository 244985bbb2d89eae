"""What a probability of refusals is one of: the judge, and how completions are sampled. Nothing here needs torch."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from demur.core.errors import InputError
from demur.judges.beginnings import beginnings_of
from demur.judges.judge import Judge

MIN_MASS = 1e-4
"""A beginning with at most this probability is not followed."""

PROMPTS_A_ROW = 1.5
"""The probability of one instruction takes as long as this many prompts. In the demo these were 1.2 for the parent, of which few
beginnings are followed, and 1.7 for the tuned checkpoint."""


def _decides_by_the_beginning(judge: str) -> str:
    try:
        beginnings_of(judge)
    except InputError as error:
        raise ValueError(str(error)) from error
    return judge


JudgeOfBeginnings = Annotated[str, AfterValidator(_decides_by_the_beginning)]
"""The name of a judge in the settings of a measurement. It must decide by how a completion begins."""


@dataclass(frozen=True)
class Sampling:
    """What the probability is one of.

    Attributes:
        judge: the judge, or its name.
        max_new_tokens: the length of a completion, in tokens.
        stop_at_eos: whether a completion ends at a stop token.
        min_mass: a beginning with at most this probability is not followed.
    """

    judge: str | Judge = "prefix"
    max_new_tokens: int = 16
    stop_at_eos: bool = True
    min_mass: float = MIN_MASS

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.min_mass < 1:
            raise InputError(f"min_mass must be at least 0 and below 1, not {self.min_mass}")
