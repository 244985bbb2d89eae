"""What a run selected on validation instructions, and everything that was measured for it."""

from collections.abc import Mapping, Sequence

from demur.analysis.cell import Record


class SelectedPlace(Record):
    """One candidate place of the directions, over all arms that decide.

    Attributes:
        position: the token position, counted from the prompt's end.
        layer: the layer.
        share: the change of the log-odds of a refusal in the expected direction, as a share of the difference between harmful
            and harmless instructions; 1 is a full change.
        n: validation instructions of each kind that the share was measured on.
        kl: the change of next tokens after harmless instructions under the edits that should keep them, in nats; None if it was
            not measured.
        change: the mean change of the refusal rate in the expected direction, from completions; None if it was not measured.
        broken: the largest rise of the share of broken completions; None if it was not measured.
        dropped: why the place cannot be chosen; empty if it can.
    """

    position: int
    layer: int
    share: float
    n: int
    kl: float | None = None
    change: float | None = None
    broken: float | None = None
    dropped: str = ""

    @property
    def place(self) -> tuple[int, int]:
        """(position, layer)."""
        return self.position, self.layer


class TriedDose(Record):
    """One coefficient of one intervention, tried at the selected place.

    Attributes:
        intervention: the number of the intervention in the study, from 0.
        kind: its kind.
        unit: the unit of the coefficient.
        coefficient: the coefficient.
        change: the change of the refusal rate in the expected direction, averaged over the deciding arms.
        broken: the largest rise of the share of broken completions.
        n: completions of each arm.
    """

    intervention: int
    kind: str
    unit: str
    coefficient: float
    change: float
    broken: float
    n: int


class SelectionArm(Record):
    """What an arm says about the selection.

    Attributes:
        arm: its name.
        harmful: its refusal rate on harmful validation instructions without an edit.
        harmless: that on harmless ones.
        tokens: the tokens with which its refusals begin.
        problem: why it does not take part; empty if it does.
    """

    arm: str
    harmful: float
    harmless: float
    tokens: tuple[str, ...] = ()
    problem: str = ""


class SelectionRecord(Record):
    """The settings that a run selected.

    Attributes:
        judge: the judge that counted refusals.
        instructions: validation instructions of each kind.
        position: the selected position.
        layer: the selected layer.
        coefficients: the selected coefficients, by the number of their intervention.
        arms: what each arm says.
        places: every candidate place.
        doses: every coefficient that was tried.
        notes: what a reader of the numbers should know, in sentences.
        fingerprints: the weights that were used, by checkpoint.
    """

    judge: str
    instructions: int
    position: int
    layer: int
    coefficients: dict[int, float] = {}
    arms: tuple[SelectionArm, ...] = ()
    places: tuple[SelectedPlace, ...] = ()
    doses: tuple[TriedDose, ...] = ()
    notes: tuple[str, ...] = ()
    fingerprints: dict[str, str] = {}

    def renumbered(self, numbers: Mapping[int, Sequence[int]]) -> "SelectionRecord":
        """The same record with other numbers of interventions.

        Args:
            numbers: for each intervention of the record its new number, or its new numbers if it stands for several.
        """
        return self.model_copy(
            update={
                "coefficients": {new: dose for old, dose in self.coefficients.items() for new in numbers[old]},
                "doses": tuple(one.model_copy(update={"intervention": numbers[one.intervention][0]}) for one in self.doses),
            }
        )
