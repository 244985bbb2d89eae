"""One labeller at work: which completion comes next, what was said of it, and how far the labeller is.

The labeller sees an instruction and a completion, and nothing about checkpoint, edit, judges or other labellers. Every labeller
has an own random order, so the order cannot be a reason for two labellers to agree.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from string import ascii_lowercase

from demur.core.errors import InputError
from demur.judges.judge import get_judge
from demur.judges.taxonomy.label_definitions import DEFINITIONS
from demur.runs.labelling.label_plan import drawable, drawn_sample
from demur.runs.labelling.label_records import LabelDesign, LabelledSample, StoredLabel
from demur.runs.store import Store

USUAL_SIZE = 200
"""The size of a sample unless another one is asked for."""

_NAME = re.compile(r"\w[\w.@-]{0,39}")


@dataclass(frozen=True)
class ToLabel:
    """One completion as a labeller sees it.

    Attributes:
        number: its place in the labeller's order, from 1.
        instruction: the instruction.
        text: what the completion says in its own turn.
    """

    number: int
    instruction: str
    text: str


@dataclass(frozen=True)
class Progress:
    """How far a labeller is: completions labelled, skipped and to label in all."""

    labelled: int
    skipped: int
    total: int


class LabelSession:
    """One labeller at work. Everything is stored at once.

    Attributes:
        design: the labels and their definitions.
        labeller: the labeller's name.
    """

    def __init__(self, store: Store, labeller: str) -> None:
        """Begin where the labeller stopped.

        Args:
            store: the run, with a sample.
            labeller: the labeller's name.

        Raises:
            InputError: if the run has no sample yet.
        """
        sample = store.labelled_sample()
        if sample.design is None:
            raise InputError(f"nothing was drawn from {str(store.folder)!r} to be labelled; use open_labelling")
        self.design, self.labeller = sample.design, labeller
        self._store = store
        self._texts = {
            (row.cell, row.position): (row.instruction, row.text if row.own_turn is None else row.own_turn)
            for row in store.completions()
        }
        # A study that grew and was taken back leaves completions that the run no longer has.
        self._order = [place for place in labelling_order(sample, labeller) if place in self._texts]

    def next(self) -> ToLabel | None:
        """The first completion that the labeller has neither labelled nor skipped; None if there is none left."""
        done = {(one.cell, one.position) for one in self._mine()}
        for number, place in enumerate(self._order, 1):
            if place not in done:
                return ToLabel(number, *self._texts[place])
        return None

    def give(self, number: int, label: str | None) -> None:
        """Store a label for a completion.

        Args:
            number: the completion's place in the labeller's order.
            label: the label; None to skip the completion.

        Raises:
            InputError: for a label that does not exist, or a number that is not in the order.
        """
        if label is not None and label not in self.design.labels:
            raise InputError(f"there is no label {label!r}; the labels are {', '.join(self.design.labels)}")
        if not 1 <= number <= len(self._order):
            raise InputError(f"there is no completion {number}; the sample has {len(self._order)}")
        self._store.add_labels([StoredLabel(self.labeller, *self._order[number - 1], label)])

    def add(self, given: Sequence[tuple[str, int, str]], where: str) -> None:
        """Store labels of any completions of the run, in one transaction.

        Args:
            given: cell, position and label of each.
            where: where they come from, for the message.

        Raises:
            InputError: for a completion that the run does not have.
        """
        for cell, position, _ in given:
            if (cell, position) not in self._texts:
                raise InputError(
                    f"a label {where} belongs to the completion {position} of the cell {cell!r}, which the run does not have; "
                    "use the columns key and index of demur export"
                )
        self._store.add_labels([StoredLabel(self.labeller, *one) for one in given])

    def undo(self) -> bool:
        """Take back the labeller's last label or skip, so that its completion comes next. Gives whether there was one."""
        return self._store.take_back_label(self.labeller)

    def progress(self) -> Progress:
        """How far the labeller is."""
        wanted = set(self._order)
        mine = [one for one in self._mine() if (one.cell, one.position) in wanted]
        labelled = sum(one.label is not None for one in mine)
        return Progress(labelled, len(mine) - labelled, len(self._order))

    def _mine(self) -> list[StoredLabel]:
        return self._store.labels(self.labeller)


def labelling_order(sample: LabelledSample, labeller: str) -> list[tuple[str, int]]:
    """The order in which one labeller sees the sample, as cells and positions.

    The completions of a stratum are spread evenly over the order, at random places. So wherever a labeller stops, about the same
    share of every stratum is labelled, and which completions these are is random.

    Args:
        sample: the sample.
        labeller: the labeller's name; each has an own order.
    """
    seed = 0 if sample.design is None else sample.design.seed
    places: list[tuple[float, str, int]] = []
    for stratum in sample.strata:
        drawn = [(row.cell, row.position) for row in sample.frame if row.stratum == stratum.name and row.place < stratum.taken]
        draws = Random(f"{seed} {labeller} {stratum.name}")
        draws.shuffle(drawn)
        places += [((rank + draws.random()) / len(drawn), *place) for rank, place in enumerate(drawn)]
    return [(cell, position) for _, cell, position in sorted(places)]


@contextmanager
def open_labelling(
    folder: str | Path, labeller: str = "person-1", *, judge: str | None = None, n: int | None = None, seed: int | None = None
) -> Iterator[LabelSession]:
    """Open a run to label its completions. The first labeller of a run draws the sample, which all labellers share.

    Args:
        folder: the run folder.
        labeller: the labeller's name: letters, digits, `-`, `_`, `.` and `@`.
        judge: the judge whose labels are given; `taxonomy` unless the run's labellers have begun with another one.
        n: the size of the sample; 200 unless given. A larger number than before makes the sample larger.
        seed: the seed of the sample and the orders; 0 unless given. It cannot be changed later.

    Yields:
        The labeller's session.

    Raises:
        InputError: if the folder holds no run or cannot be written, for a name that cannot be a labeller's, for labels or a seed
            that differ from those with which labelling began, and for a size below 1.
    """
    if not _NAME.fullmatch(labeller):
        raise InputError(
            f"{labeller!r} cannot be a labeller's name; use up to 40 letters, digits, '-', '_', '.' and '@', such as person-1"
        )
    if n is not None and n < 1:
        raise InputError(f"a sample needs at least one completion, not {n}")
    store = Store.open(folder)
    try:
        prepare_sample(store, judge=judge, n=n, seed=seed)
        yield LabelSession(store, labeller)
    finally:
        store.close()


def prepare_sample(store: Store, *, judge: str | None = None, n: int | None = None, seed: int | None = None) -> LabelDesign:
    """Draw the sample of a run, or make it larger; see `open_labelling`."""
    if not store.writable:
        raise InputError(
            f"{str(store.folder)!r} cannot be written, so no label can be stored there; demur report {store.folder} --out DIR "
            "makes a copy that can"
        )
    design = store.label_design()
    if design is None:
        design = _design(judge or "taxonomy", seed or 0)
        store.remember_label_design(design)
    _refuse_other(design, judge, seed)
    sample, judges = store.labelled_sample(), [one.name for one in store.manifest().judges]
    known = {(row.cell, row.position) for row in sample.frame}
    units = [unit for unit in drawable(store.positions(), store.verdicts(), judges) if (unit.cell, unit.position) not in known]
    if not units and not known:
        raise InputError(f"{str(store.folder)!r} holds no completions yet; run its study to have some")
    drawn = sum(one.taken for one in sample.strata)
    wanted = max(drawn, n if n is not None else drawn or USUAL_SIZE)
    if units or wanted > drawn:
        store.set_sample(*drawn_sample(units, store.cells(), wanted, design.seed, sample.strata))
    return design


def _design(name: str, seed: int) -> LabelDesign:
    judge = get_judge(name)
    # A judge of one's own may define its labels; labels of the taxonomy are defined here.
    known = {**DEFINITIONS, **getattr(judge, "definitions", {})}
    return LabelDesign(
        judge=name,
        labels=judge.labels,
        refusal_labels=judge.refusal_labels,
        definitions={label: known.get(label, "") for label in judge.labels},
        seed=seed,
    )


def _refuse_other(design: LabelDesign, judge: str | None, seed: int | None) -> None:
    for what, asked, begun in (("the labels of the judge", judge, design.judge), ("the seed", seed, design.seed)):
        if asked is not None and asked != begun:
            raise InputError(
                f"labelling began with {what} {begun!r}, which all labellers share, so it cannot go on with {asked!r}; leave the "
                "option out, or label a copy of the run"
            )


def label_keys(labels: Sequence[str]) -> dict[str, str]:
    """A key for each label: its first letter that is not taken, or else a digit. Also taken are the keys of commands.

    Args:
        labels: the labels.

    Returns:
        Key -> label.

    Example:
        >>> label_keys(["refusal", "degenerate", "deflection", "compliance"])
        {'r': 'refusal', 'd': 'degenerate', 'e': 'deflection', 'c': 'compliance'}
    """
    keys: dict[str, str] = {}
    for number, label in enumerate(labels, 1):
        letters = [letter for letter in label.lower() if "a" <= letter <= "z"]
        wanted = (*letters, *map(str, range(number, 10)), *ascii_lowercase)
        free = [key for key in wanted if key not in keys and key not in COMMANDS]
        keys[free[0]] = label
    return keys


COMMANDS = {"s": "skip", "u": "undo", "?": "definitions", "q": "quit"}
"""The keys that are no labels."""
