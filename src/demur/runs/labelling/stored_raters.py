"""The judges and the labellers of a run as raters, from what its folder holds."""

from collections.abc import Sequence

from demur.analysis.judging.judge_agreement import agreements
from demur.analysis.judging.judge_correction import corrected_rates
from demur.analysis.judging.raters import Place, Rater, Sampled
from demur.analysis.judging.rating_records import Agreement, CorrectedRate, Labeller
from demur.analysis.manifest import Manifest
from demur.analysis.rates import Groups
from demur.runs.labelling.label_records import LabelledSample
from demur.runs.stored_records import Results


def rated(
    results: Results, manifest: Manifest, judges: Sequence[str], groups: Groups
) -> tuple[tuple[Labeller, ...], tuple[Agreement, ...], tuple[CorrectedRate, ...]]:
    """Who labelled, how far judges and labellers agree, and corrected rates.

    Args:
        results: cells, verdicts and labels of the run.
        manifest: what the run stores about itself.
        judges: the judges of the run.
        groups: the group of each instruction.
    """
    sample = results.people
    people = _people(sample)
    if len(judges) + len(people) < 2:
        return (), (), ()
    machines = _judges(results, manifest, judges)
    sampled = Sampled(
        {(row.cell, row.position): row.stratum for row in sample.frame}, {one.name: one.size for one in sample.strata}
    )
    return (
        tuple(_labeller(person, sample) for person in people),
        tuple(agreements([*machines, *people], results.cells, groups, sampled)),
        tuple(corrected_rates(machines, people, results.cells, groups, sampled)),
    )


def _judges(results: Results, manifest: Manifest, judges: Sequence[str]) -> list[Rater]:
    given: dict[str, dict[Place, str]] = {name: {} for name in judges}
    for row in results.verdicts:
        if row.judge in given:
            given[row.judge][row.cell, row.position] = row.label
    return [
        Rater(facts.name, False, facts.labels, facts.refusal_labels, given[facts.name])
        for facts in manifest.judges
        if facts.name in given
    ]


def _people(sample: LabelledSample) -> list[Rater]:
    design = sample.design
    if design is None:
        return []
    given: dict[str, dict[Place, str]] = {}
    for one in sample.labels:
        if one.label is not None:
            given.setdefault(one.labeller, {})[one.cell, one.position] = one.label
    return [Rater(name, True, design.labels, design.refusal_labels, said) for name, said in sorted(given.items())]


def _labeller(person: Rater, sample: LabelledSample) -> Labeller:
    skipped = sum(one.labeller == person.name and one.label is None for one in sample.labels)
    judge = "" if sample.design is None else sample.design.judge
    return Labeller(
        name=person.name, judge=judge, labelled=len(person.given), skipped=skipped, refusal_labels=person.refusal_labels
    )
