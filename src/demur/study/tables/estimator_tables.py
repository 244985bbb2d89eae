"""Estimators of a study beyond the first one: each is a name, or a table with the number of directions that it gives."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from demur.study.named_parts import part_name
from demur.study.spec_fields import Decides, Table

MOST = 64
"""No estimator gives more directions of one layer: edits would be slow, and few would be told apart from noise."""


class EstimatorSpec(Table):
    """One estimator: its name, and how many directions it gives at each layer. Written as a bare name if it gives one."""

    name: Annotated[str, Decides(), AfterValidator(part_name("estimator"))]
    directions: Annotated[int, Decides(), Field(ge=1, le=MOST)] = 1

    @model_validator(mode="before")
    @classmethod
    def _a_text_is_the_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _bare_where_it_can_be(self, written: SerializerFunctionWrapHandler) -> Any:
        return self.name if self.directions == 1 else written(self)


def short_name(estimator: str) -> str:
    """An estimator's name as a part of names of directions, which are names of files: for `module:Class`, the class."""
    return re.sub(r"[^\w-]+", "-", estimator.rpartition(":")[2])


def written_out(direction: Any) -> Any:
    """The table `[direction]` with a list of estimators written out: the first is `estimator`, the rest are further ones."""
    if not isinstance(direction, dict) or not isinstance(direction.get("estimator"), list):
        return direction
    first, *rest = direction["estimator"] or [None]
    if "further_estimators" in direction:
        raise ValueError("estimator is a list and further_estimators is given too; give one of them")
    if first is None:
        raise ValueError("estimator is an empty list; give at least one name")
    if not isinstance(first, str):
        raise ValueError(
            f"the first estimator is {first!r}; it has to be the name of one that gives one direction, because measurements are "
            "made with it"
        )
    return {**direction, "estimator": first, "further_estimators": rest}


def differ(first: str, further: list[EstimatorSpec]) -> None:
    """Check that no estimator is named twice, and that their short names differ.

    Raises:
        ValueError: with the name that two have.
    """
    taken = {short_name(first)}
    for one in further:
        if short_name(one.name) in taken:
            raise ValueError(f"the estimator {short_name(one.name)!r} is listed twice; list it once")
        taken.add(short_name(one.name))
