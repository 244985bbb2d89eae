"""Which two arms are measured together."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from demur.study.plan import Arm, Plan


@dataclass(frozen=True)
class Pairing:
    """Two arms that are measured together.

    Attributes:
        subject: the name of the pair.
        first: the arm of the earlier checkpoint of the study.
        second: the arm of the later one.
        one_format: whether both checkpoints are asked in the format of the second arm.
    """

    subject: str
    first: Arm
    second: Arm
    one_format: bool = False


def pairings(plan: Plan) -> Iterator[Pairing]:
    """Every two arms of a plan, and then every two checkpoints in one format.

    Measurements that need the same tokens on both sides are made of the second kind. It has the formats that both checkpoints
    have, or those of the later checkpoint if they have none in common.

    Args:
        plan: the plan.

    Yields:
        The pairs, in the order of the study.
    """
    for first, second in combinations(plan.main_arms, 2):
        yield Pairing(f"{first.name} with {second.name}", first, second)
    for earlier, later in combinations(plan.study.checkpoints, 2):
        before, after = ([arm for arm in plan.main_arms if arm.checkpoint == name] for name in (earlier, later))
        formats = {_format(arm): arm for arm in before}
        for second in [arm for arm in after if _format(arm) in formats] or after:
            subject = f"{earlier} with {later} under {second.prompt}"
            yield Pairing(subject, formats.get(_format(second), before[0]), second, one_format=True)


def _format(arm: Arm) -> tuple[str, str, str | None]:
    return arm.prompt, arm.spec, arm.system
