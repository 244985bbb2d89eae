"""Small parts that studies of the tests name as `tests.study_parts:Class`. Nothing here imports torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from demur.core.edit_words import EditWords
from demur.judges.judge import TextJudge, Verdict

WORDS = {"into": "in", "done": "x", "moved": "x", "figure": "x", "title": "x", "doing": "x"}


class Angle(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    degrees: float = 90.0
    around: str | None = None


class Rotate:
    """A kind of edit with settings and without a dose, tried on harmless instructions."""

    name = "rotate"
    artefact: Literal["direction", "subspace", "none"] = "direction"
    takes_dose = False
    own_layer = True
    repeats = False
    default_on = ("harmless",)
    settings = Angle
    words = (EditWords(action="rotate", kind="rotate", **WORDS),)

    def action(self, coefficient):
        return "rotate"

    def expected(self, action, instructions):
        return 0

    def operation(self, edit):
        raise NotImplementedError


class Damp(Rotate):
    """A kind of edit that takes a dose and no direction."""

    name, artefact, takes_dose, settings, default_on = "damp", "none", True, None, ("harmful", "harmless")
    words = (EditWords(action="damp", kind="damp", **WORDS),)


class Spin(Rotate):
    """Another kind with an action that `Rotate` has."""

    name = "spin"
    words = (EditWords(action="rotate", kind="spin", **WORDS),)


class OddArtefact(Rotate):
    artefact = "cake"  # type: ignore[assignment]


class Project(Rotate):
    name, artefact, settings = "project", "subspace", None


class Loose(Rotate):
    class Settings(BaseModel):
        degrees: float = 1.0

    name, settings = "loose", Settings


class Listed(Rotate):
    class Settings(BaseModel):
        model_config = ConfigDict(frozen=True)

        degrees: list[float] = [1.0]

    name, settings = "listed", Settings


class Clash(Rotate):
    class Settings(BaseModel):
        unit: str = "x"

    name, settings = "clash", Settings


class Shuffled:
    name, needs, null_of = "shuffled", "direction", "labels without meaning"

    def make(self, beside, *, name, seed, harmful=None, harmless=None):
        raise NotImplementedError


class SecondRandom(Shuffled):
    name = "random"


class OddlyNamed(Shuffled):
    name = "a/b"


class Shouting(TextJudge):
    name, version, labels = "shouting", 1, ("refusal", "other")

    def __call__(self, text, instruction="", /):
        return Verdict(self.name, text.isupper(), "refusal" if text.isupper() else "other")


class SecondPrefix(Shouting):
    name = "prefix"


class Entropy:
    class Settings(BaseModel):
        top: int = 10
        base: float = 2.0

    name, version, subjects, settings = "entropy", 1, "arm", Settings

    def measure(self, subject, settings):
        raise NotImplementedError

    def summary(self, record):
        return {}


class SecondLoss(Entropy):
    name = "loss"


class OddSubjects(Entropy):
    subjects = "planet"


class Costly:
    def __init__(self, price):
        raise NotImplementedError


class Nothing:
    """A part of no kind."""
