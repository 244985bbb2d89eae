"""What directions must say of themselves before a format can hold them: refusals that the writers share.

A fact that was only filled in for a file that did not say it is never written down as if it were known.
"""

from collections.abc import Sequence
from pathlib import Path

from demur.core.errors import InputError
from demur.directions.direction import Direction

TOLD = ("layer", "position")
"""Facts that a caller may say of a file that does not."""


def the_one(directions: Sequence[Direction], path: Path) -> Direction:
    """The only direction of a file that holds one. Raises `InputError` for several."""
    if len(directions) > 1:
        raise InputError(f"{path.name!r} holds one direction, but {len(directions)} were given; choose by layer and position")
    return directions[0]


def require(direction: Direction, *facts: str) -> None:
    """Raises `InputError` where the file that the direction was read from does not say one of the facts."""
    for fact in facts:
        if not direction.says(fact):
            way_out = f"give it with {fact}=... or --{fact}" if fact in TOLD else "post and lm-eval-ablation do without"
            raise InputError(
                f"direction {direction.name!r} was read from a file that does not say its {fact}, which this format writes down; "
                f"{way_out}"
            )


def block_before(direction: Direction) -> int:
    """The block whose output the direction stands behind; -1 for the input of the first block.

    The output of one block is the input of the next: `resid_post` of a layer and `resid_pre` of the one after it are one point.
    Raises `InputError` for `resid_mid`, which lies inside a block, and for a layer that is not known.
    """
    require(direction, "layer")
    if direction.site == "resid_mid":
        raise InputError(
            f"direction {direction.name!r} is of resid_mid, inside block {direction.layer}; this format knows the stream between "
            "blocks only: extract it at resid_pre or resid_post"
        )
    return direction.layer if direction.site == "resid_post" else direction.layer - 1


def one_a_block(directions: Sequence[Direction], first: int, why: str) -> dict[int, Direction]:
    """The directions by the block they stand behind, in order, each of known raw norm.

    Raises `InputError` for two behind one block, and for one behind an earlier block than `first`, saying why.
    """
    by_block: dict[int, Direction] = {}
    for direction in directions:
        block = block_before(direction)
        require(direction, "raw norm")
        if block < first:
            raise InputError(f"direction {direction.name!r} is of layer {direction.layer}, {direction.site}, but {why}")
        if block in by_block:
            raise InputError(
                f"directions {by_block[block].name!r} and {direction.name!r} both stand behind block {block}, and this format "
                "holds one a block; choose by layer and position"
            )
        by_block[block] = direction
    return dict(sorted(by_block.items()))
