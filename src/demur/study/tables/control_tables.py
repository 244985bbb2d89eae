"""The table `[controls]` of a study: null directions."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from demur.core.effects.null_distribution import FEWEST
from demur.directions.controls.control import control_kind, names_control, names_like
from demur.study.spec_fields import Decides, Table, unknown_key

BY_DEFAULT, MOST_BY_DEFAULT = 20, 40
"""How many null directions of a kind a study that measures a probability gets without asking; the second is for many arms."""


def default_controls(arms: int, *, raw: bool, measured: bool) -> dict[str, int]:
    """The null directions of a study that does not give any.

    Args:
        arms: the number of arms.
        raw: whether a dose is in units of a direction's own norm. Only null directions of the same norm are then a null for it.
        measured: whether the study measures a refusal probability. Null directions then cost little.

    Returns:
        The entries of `[controls]`: `FEWEST` random directions, or as many for each arm if doses depend on the norm, up to
        `BY_DEFAULT`; each arm has at least one. Where the probability is measured, `BY_DEFAULT` random directions and as many
        from shuffled labels, because random directions alone are too easily beaten. There are `FEWEST` for each arm of these
        too, up to `MOST_BY_DEFAULT`. No more of a kind get completions than without the measurement, so a run can get it later.

    Example:
        >>> default_controls(2, raw=False, measured=False), default_controls(40, raw=True, measured=False)
        ({'random': 5}, {'random': 40})
        >>> default_controls(2, raw=True, measured=True)
        {'random': 20, 'shuffled-labels': 20, 'completions': 10}
    """
    enough = FEWEST * (arms if raw else 1)
    answered = max(arms, min(enough, BY_DEFAULT))
    if not measured:
        return {"random": answered}
    count = max(arms, BY_DEFAULT, min(enough, MOST_BY_DEFAULT))
    return {"random": count, "shuffled-labels": count, "completions": answered}


class ControlSpec(Table):
    """Null directions: how many of each kind, and the seed of their draws. Every other key is the name of a kind.

    `completions` is the number of each kind with which completions are made; all of them unless given. Of the others only the
    refusal probability is measured, which costs less.
    A kind with `-orthogonal` after its name makes the same null directions without their part along the real direction.
    Control k of a kind has the place and norm of arm k's direction. If there are more controls than arms, the arms are repeated.
    A study without this table gets enough null directions that an effect can be shown; see `default_controls`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0)]] = Field(init=False)

    random: Annotated[int, Decides(), Field(ge=0)] = FEWEST
    seed: Annotated[int, Decides()] = 0
    completions: Annotated[int | None, Decides(), Field(ge=0)] = None

    @model_validator(mode="before")
    @classmethod
    def _keys_are_kinds_of_controls(cls, value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields and not names_control(str(key)):
                raise unknown_key(str(key), list(dict.fromkeys((*cls.model_fields, *names_like(str(key))))))
        return value

    @model_validator(mode="after")
    def _names_differ(self) -> "ControlSpec":
        names: dict[str, str] = {}
        for kind in self.counts:
            name = control_kind(kind).name
            if name in names:
                raise ValueError(f"the kinds {names[name]!r} and {kind!r} both call their directions {name}-1; use one of them")
            names[name] = kind
        return self

    @property
    def counts(self) -> dict[str, int]:
        """The number of controls of each kind, without kinds that have none."""
        counts = {"random": self.random, **(self.__pydantic_extra__ or {})}
        return {kind: count for kind, count in counts.items() if count}

    def answered(self, number: int) -> bool:
        """Whether completions are made with control `number` of a kind, counted from 0."""
        return self.completions is None or number < self.completions
