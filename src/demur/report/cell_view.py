"""The cells of a summary for figures, tables and the page: always in the same order, with labels that are all different.

An entry is one cell under one judge, with its label, its change from the target's baseline, and the paired test of that change.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from demur.analysis.cell import JudgedCell, Moved
from demur.analysis.summary import PublishedRow, Summary
from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.core.number_format import percent
from demur.report.cell_labels import arm_labels, dose_label, setting_labels, setting_of
from demur.report.complete_summary import completed
from demur.report.outcomes.refusal_likelihood import Likelihood, likelihoods

NO_EDIT = "no intervention"
"""The words for a cell without an edit where a reader may not understand `baseline`."""


MOVED_WORDS: Mapping[Moved, str] = {
    "": "",
    "weights": "weights",
    "prompt": "prompt format",
    "both": "weights and prompt format",
}
"""The words for what a direction was moved across, from the arm in which it was read to the arm in which it is used."""


@dataclass(frozen=True)
class LabelShares:
    """The kinds of answers in a cell: how many completions got each label.

    Attributes:
        judge: the judge that gave the labels.
        counts: each label of the judge, in its order, with the number of completions that got it.
    """

    judge: str
    counts: tuple[tuple[str, int], ...]

    @property
    def n(self) -> int:
        """The number of completions with a label."""
        return sum(count for _, count in self.counts)

    def share(self, label: str) -> float:
        """The share of a label, as a fraction."""
        return dict(self.counts)[label] / self.n if self.n else 0.0

    @property
    def words(self) -> str:
        """Every label that was given, with its share."""
        given = (f"{percent(self.share(label), self.n)} {label}" for label, count in self.counts if count)
        return ", ".join(given)


@dataclass(frozen=True)
class Entry:
    """One cell under one judge.

    Attributes:
        cell: the cell with the results of the judge. Rates are fractions.
        words: the words for its edit, None if there is none.
        target: the checkpoint, and its prompt format if any checkpoint has several.
        direction: the label of the direction, `baseline` without an edit.
        variant: the same label, with the coefficient if an edit has several.
        dose: the coefficient in words, empty if there is none.
        change: the change in the rate from the baseline, as a fraction; None if there is no baseline.
        p_value: the p value of that change; None if it was not tested.
        p_holm: the p value after Holm's correction.
        published: the published rates of this cell.
        shares: the kinds of answers in this cell, from this judge or from the first judge that has more than two labels; None if
            no judge of the run has.
        likelihood: the mean probability of a refusal; None where it was not measured for this judge.
    """

    cell: JudgedCell
    words: EditWords | None
    target: str
    direction: str
    variant: str
    dose: str
    change: float | None
    p_value: float | None
    p_holm: float | None
    published: tuple[PublishedRow, ...] = ()
    shares: LabelShares | None = None
    likelihood: Likelihood | None = None

    @property
    def key(self) -> str:
        """The cell's key, which is the same under every judge."""
        return self.cell.key

    @property
    def judge(self) -> str:
        """The judge's name."""
        return self.cell.judge

    @property
    def instructions(self) -> str:
        """The name of the instruction set."""
        return self.cell.instructions

    @property
    def intervention(self) -> str:
        """The kind of edit as the study writes it, `none` for a baseline."""
        return self.cell.intervention

    @property
    def kind(self) -> str:
        """The kind of edit as its words call it, `none` for a baseline. A study may write `module:Class` instead."""
        return "none" if self.words is None else self.words.kind

    @property
    def edited(self) -> bool:
        """Whether there is an edit."""
        return self.cell.edited

    @property
    def done(self) -> str:
        """What was done to the direction, such as `added`; `no intervention` for a baseline."""
        return NO_EDIT if self.words is None else self.words.done

    @property
    def source(self) -> str | None:
        """The checkpoint that the direction came from, or the control's name; None for a baseline."""
        return self.cell.source

    @property
    def control(self) -> bool:
        """Whether the direction is a control."""
        return self.cell.control

    @property
    def moved(self) -> str:
        """What the direction was moved across, in words: `weights`, `prompt format`, both, or nothing."""
        return MOVED_WORDS[self.cell.moved]

    @property
    def edit(self) -> str:
        """The edit in words that no other edit of the run has, such as `ablate before`; `none` for a baseline."""
        return f"{self.cell.action} {self.variant}" if self.edited else "none"

    @property
    def n(self) -> int:
        """The number of completions with a verdict."""
        return self.cell.n

    @property
    def refusals(self) -> int:
        """How many of them the judge calls refusals."""
        return self.cell.refusals

    @property
    def rate(self) -> float:
        """Refusals as a fraction."""
        return self.cell.rate

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the rate."""
        return self.cell.ci95


def judges(summary: Summary) -> list[str]:
    """Judges in the study's order. Figures use the first one.

    Raises:
        InputError: if no cell was judged.
    """
    present = list(dict.fromkeys(cell.judge for cell in summary.cells))
    if not present:
        raise InputError("the summary holds no judged cell, so there is nothing to report; run the study first")
    named = [name for name in names_in(summary.study.get("judges")) if name in present]
    return named + [name for name in present if name not in named]


def entries(summary: Summary, judge: str | None = None) -> list[Entry]:
    """All entries, or those of one judge, in reading order: target, instruction set, baseline first, controls last."""
    summary = completed(summary)
    targets, labels = arm_labels(summary), setting_labels(summary)
    published: dict[tuple[str | None, str | None], tuple[PublishedRow, ...]] = {}
    for row in summary.published:
        published[row.key, row.judge] = (*published.get((row.key, row.judge), ()), row)
    baselines = {(*cell.place, cell.judge): cell.rate for cell in summary.cells if not cell.edited}
    tests = {(test.key, test.judge): test for test in summary.comparisons}
    labelling = [name for name in judges(summary) if len(summary.judge_labels[name]) > 2] if summary.cells else []
    shares = {
        (cell.key, cell.judge): _shares_of(cell, summary) for cell in summary.cells if cell.judge in labelling and cell.labels
    }
    likely = likelihoods(summary)
    found = []
    for cell in summary.cells:
        test = tests.get((cell.key, cell.judge))
        baseline = baselines.get((*cell.place, cell.judge))
        change = None
        if cell.edited and baseline is not None:
            # Rounded, so that 0.925 - 0.2 is 0.725 as it is in a test.
            change = round(cell.rate - baseline, 12) if test is None else test.difference
        direction, variant = labels[setting_of(cell)]
        found.append(
            Entry(
                cell,
                summary.edits[cell.action] if cell.edited else None,
                targets[cell.arm],
                direction,
                variant,
                dose_label(cell),
                change,
                None if test is None else test.p_value,
                None if test is None else test.p_holm,
                published.get((cell.key, cell.judge), ()),
                next((shares[cell.key, name] for name in (cell.judge, *labelling) if (cell.key, name) in shares), None),
                likely.get((cell.key, cell.judge)),
            )
        )
    return sorted((entry for entry in found if judge in (None, entry.judge)), key=_place_of(summary))


def _shares_of(cell: JudgedCell, summary: Summary) -> LabelShares:
    known = dict.fromkeys((*summary.judge_labels[cell.judge], *cell.labels))
    return LabelShares(cell.judge, tuple((label, cell.labels.get(label, 0)) for label in known))


def targets_of(found: Iterable[Entry]) -> list[str]:
    """Target labels in order, each once."""
    return list(dict.fromkeys(entry.target for entry in found))


def instruction_sets(found: Iterable[Entry]) -> list[str]:
    """Names of instruction sets in the order of the entries, which is that of the study for all entries of a summary."""
    return list(dict.fromkeys(entry.instructions for entry in found))


def is_verdict(refusal: object) -> bool:
    """Whether there is a verdict. If not, pandas has None or NaN, and NaN is not equal to itself."""
    return refusal is not None and refusal == refusal


def names_in(value: JsonValue) -> list[str]:
    """The texts in a list of a study's settings; empty if there is no list."""
    return [str(each) for each in value] if isinstance(value, list) else []


def _place_of(summary: Summary) -> Callable[[Entry], tuple[Any, ...]]:
    """A sort key over entries."""
    checkpoints, judged = list(summary.checkpoints), judges(summary)
    arms = list(dict.fromkeys((arm.checkpoint, arm.prompt) for arm in summary.arms))
    prompts = list(dict.fromkeys(prompt for _, prompt in arms))
    origins = {each.name: each.prompt for each in summary.directions}
    sets = list(summary.instructions)
    seeds = list(dict.fromkeys(cell.pairs_seed for cell in summary.cells))
    kinds = ["none", *dict.fromkeys(words.kind for words in summary.edits.values())]

    def index(known: Sequence[Any], value: object) -> int:
        return known.index(value) if value in known else len(known)

    def place(entry: Entry) -> tuple[Any, ...]:
        cell = entry.cell
        return (
            index(checkpoints, cell.target),
            index(arms, cell.arm),
            index(kinds, entry.kind),
            index(sets, entry.instructions),
            entry.control,
            index(checkpoints, entry.source),
            entry.source or "",
            index(prompts, origins.get(cell.direction or "")),
            -1 if cell.layer is None else cell.layer,
            seeds.index(cell.pairs_seed),
            0.0 if cell.coefficient is None else cell.coefficient,
            entry.variant,
            index(judged, entry.judge),
        )

    return place
