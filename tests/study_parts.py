"""Small parts that studies of the tests name as `tests.study_parts:Class`. Nothing here imports torch."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from demur.core.edit_words import EditWords
from demur.judges.judge import TextJudge, Verdict

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.interventions.intervention import Intervention
    from demur.interventions.operation import Operation
    from demur.measurements.measurement import ArmSubject, MeasurementRecord


class Angle(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    degrees: float = 90.0
    around: str | None = None


class Rotate:
    """A kind of edit with settings and without a dose, tried on harmless instructions."""

    name: ClassVar[str] = "rotate"
    artefact: ClassVar[Literal["direction", "subspace", "none"]] = "direction"
    takes_dose: ClassVar[bool] = False
    own_layer: ClassVar[bool] = True
    repeats: ClassVar[bool] = False
    default_on: ClassVar[tuple[str, ...]] = ("harmless",)
    settings: ClassVar[type[BaseModel] | None] = Angle
    words: ClassVar[tuple[EditWords, ...]] = (
        EditWords(action="rotate", kind="rotate", into="in", done="x", moved="x", figure="x", title="x", doing="x"),
    )

    def action(self, coefficient: float | None) -> str:
        return "rotate"

    def expected(self, action: str, instructions: str) -> Literal[-1, 0, 1]:
        return 0

    def operation(self, edit: "Intervention") -> "Operation":
        raise NotImplementedError


class Damp(Rotate):
    """A kind of edit that takes a dose and no direction."""

    name, artefact, takes_dose, settings, default_on = "damp", "none", True, None, ("harmful", "harmless")
    words = (EditWords(action="damp", kind="damp", into="in", done="x", moved="x", figure="x", title="x", doing="x"),)


class Spin(Rotate):
    """Another kind with an action that `Rotate` has."""

    name = "spin"
    words = (EditWords(action="rotate", kind="spin", into="in", done="x", moved="x", figure="x", title="x", doing="x"),)


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
    name: ClassVar[str] = "shuffled"
    needs: ClassVar[Literal["direction", "activations"]] = "direction"
    null_of: ClassVar[str] = "labels without meaning"

    def make(
        self, beside: "Direction", *, name: str, seed: int, harmful: "Side | None" = None, harmless: "Side | None" = None
    ) -> "Direction":
        raise NotImplementedError


class SecondRandom(Shuffled):
    name = "random"


class OddlyNamed(Shuffled):
    name = "a/b"


class Shouting(TextJudge):
    name, version, labels = "shouting", 1, ("refusal", "other")

    def __call__(self, text: str, instruction: str = "", /) -> Verdict:
        return Verdict(self.name, text.isupper(), "refusal" if text.isupper() else "other")


class Starts(TextJudge):
    """The rule of `prefix` with other phrases, which tiny vocabularies can write."""

    name, version, labels = "starts", 1, ("refusal", "other")
    whole_text = True
    beginnings: tuple[str, ...] = ("I cannot", "I can", "I\u2019m", "no I", "I'm sorry")

    def __call__(self, text: str, _: str = "", /) -> Verdict:
        refusal = text.strip().startswith(self.beginnings)
        return Verdict(self.name, refusal, "refusal" if refusal else "other")


class StartsWithI(Starts):
    """Counts one word only, so that one token decides."""

    name, beginnings = "starts-with-i", ("I",)


class SecondPrefix(Shouting):
    name = "prefix"


class Entropy:
    class Settings(BaseModel):
        top: int = 10
        base: float = 2.0

    name: ClassVar[str] = "entropy"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "arm"
    settings: ClassVar[type[BaseModel] | None] = Settings

    def measure(self, subject: "ArmSubject", settings: Settings) -> "MeasurementRecord":
        raise NotImplementedError

    def summary(self, record: "MeasurementRecord") -> dict[str, JsonValue]:
        return {}


class SecondLoss(Entropy):
    name = "loss"


class OddSubjects(Entropy):
    subjects = "planet"  # type: ignore[assignment]


class Costly:
    def __init__(self, price: float) -> None:
        raise NotImplementedError


class Nothing:
    """A part of no kind."""
