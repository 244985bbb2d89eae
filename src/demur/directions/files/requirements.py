"""Checks that all writers share: which facts of a direction must be known before a file can be written.

A fact that was missing in the direction's own file is never written to another file as if it were known.
"""

from collections.abc import Sequence
from pathlib import Path

from demur.core.errors import InputError
from demur.directions.direction import Direction

CAN_BE_GIVEN = ("layer", "position")
"""Facts that a caller may give if they are missing in the file."""


def the_one(directions: Sequence[Direction], path: Path) -> Direction:
    """The direction for a file that has only one.

    Raises:
        InputError: for several directions.
    """
    if len(directions) > 1:
        raise InputError(f"{path.name!r} holds one direction, but {len(directions)} were given; choose by layer and position")
    return directions[0]


def require(direction: Direction, *facts: str) -> None:
    """Check that facts of a direction are known.

    Raises:
        InputError: for the first fact that the file of the direction does not have.
    """
    for fact in facts:
        if not direction.says(fact):
            way_out = (
                f"give it with {fact}=... or --{fact}"
                if fact in CAN_BE_GIVEN
                else "the formats post and lm-eval-ablation do not need it"
            )
            raise InputError(
                f"direction {direction.name!r} was read from a file that does not say its {fact}, which this format needs; "
                f"{way_out}"
            )


def block_before(direction: Direction) -> int:
    """The block at whose output the direction was read; -1 for the input of the first block.

    The output of one block is the input of the next: `resid_post` of a layer and `resid_pre` of the next one are the same point.

    Raises:
        InputError: for `resid_mid`, which is inside a block, and for a layer that is not known.
    """
    require(direction, "layer")
    if direction.site == "resid_mid":
        raise InputError(
            f"direction {direction.name!r} is of resid_mid, inside block {direction.layer}; this format has only points between "
            "blocks; extract it at resid_pre or resid_post"
        )
    return direction.layer if direction.site == "resid_post" else direction.layer - 1


def one_a_block(directions: Sequence[Direction], first: int, why: str) -> dict[int, Direction]:
    """The directions by the block at whose output they were read, in order.

    Args:
        directions: the directions.
        first: the first block that the format allows.
        why: the reason for that limit, for the error.

    Raises:
        InputError: for two directions at one block, one before `first`, and one whose raw norm is not known.
    """
    by_block: dict[int, Direction] = {}
    for direction in directions:
        block = block_before(direction)
        require(direction, "raw norm")
        if block < first:
            raise InputError(f"direction {direction.name!r} is of layer {direction.layer}, {direction.site}, but {why}")
        if block in by_block:
            raise InputError(
                f"directions {by_block[block].name!r} and {direction.name!r} are both of the output of block {block}, and this "
                "format has one for each block; choose by layer and position"
            )
        by_block[block] = direction
    return dict(sorted(by_block.items()))
