"""What a summary says of agreement between judges and people, and of rates corrected for the errors of judges."""

from typing import Literal

from demur.analysis.cell import Record

ErrorsFrom = Literal["arm and edit", "arm", "run"]
"""The completions on which sensitivity and specificity of a judge were estimated: those with the same arm and edit, those of the
same arm, or all."""


class Labeller(Record):
    """A person who labelled completions of the run.

    Attributes:
        name: the labeller's name.
        judge: the judge whose labels the labeller gave.
        labelled: the number of labelled completions.
        skipped: the number of skipped completions.
        refusal_labels: those of the labels that count as refusals.
    """

    name: str
    judge: str
    labelled: int
    skipped: int
    refusal_labels: tuple[str, ...] = ("refusal",)


class Agreement(Record):
    """How far two raters agree on the completions that both judged. A rater is a judge or a labeller.

    Attributes:
        first: the first rater.
        second: the second rater.
        labellers: which of the two are people.
        target: the checkpoint of these completions; None for all of the run.
        prompt: its prompt format; None for all of the run.
        edit: the action of the edit, `none` without one, with `control` behind it for null directions; None for all of the arm.
        of: whether all labels are compared, or only a refusal against the rest.
        n: the number of completions.
        kappa: Cohen's kappa; None where both give one label only. If a labeller takes part, completions are weighted so that the
            sample stands for all completions.
        ci95: its 95 % interval: a bootstrap over instructions; None for fewer than six.
        agreement: the share of completions with the same label, weighted in the same way.
        labels: the labels of the rows and columns of `table`.
        table: counts of completions, without weights; rows are labels of the first rater.
    """

    first: str
    second: str
    labellers: tuple[str, ...] = ()
    target: str | None = None
    prompt: str | None = None
    edit: str | None = None
    of: Literal["labels", "refusal"]
    n: int
    kappa: float | None
    ci95: tuple[float, float] | None
    agreement: float
    labels: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]


class CorrectedRate(Record):
    """The refusal rate of some cells under a judge, as the judge gives it and corrected for its errors.

    The cells are those of one arm and one instruction set with the same action; null directions are apart.

    Attributes:
        judge: the judge.
        target: the checkpoint.
        prompt: its prompt format.
        instructions: the instruction set.
        edit: as in `Agreement`.
        cells: the keys of the cells.
        n: completions with a verdict.
        refusals: how many of them the judge calls refusals.
        rate: refusals as a fraction of n.
        ci95: 95 % Wilson interval of the rate.
        labelled: how many of these completions people labelled.
        prediction_powered: the rate of the judge plus the weighted mean of label minus verdict; None for too few labels.
        prediction_powered_ci95: its 95 % interval.
        errors_from: where sensitivity and specificity were estimated; None if there are too few labels in the whole run.
        sensitivity: the share of refusals that the judge finds.
        specificity: the share of other completions that it does not call refusals.
        rogan_gladen: the rate corrected by sensitivity and specificity; None where the judge does no better than a guess.
        rogan_gladen_ci95: its 95 % interval.
    """

    judge: str
    target: str
    prompt: str
    instructions: str
    edit: str
    cells: tuple[str, ...]
    n: int
    refusals: int
    rate: float
    ci95: tuple[float, float]
    labelled: int
    prediction_powered: float | None = None
    prediction_powered_ci95: tuple[float, float] | None = None
    errors_from: ErrorsFrom | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    rogan_gladen: float | None = None
    rogan_gladen_ci95: tuple[float, float] | None = None
