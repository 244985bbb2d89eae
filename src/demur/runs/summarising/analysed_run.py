"""Everything that is computed from the results of a run, in the order in which one part needs another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from demur.analysis.arm_pairs import ArmPair, agreement_answers, arm_pairs, cosines_of_checkpoints
from demur.analysis.cell import Answer, Cell, Claim, Comparison, JudgedCell
from demur.analysis.claims import claims
from demur.analysis.diff.diff_details import DiffDetails
from demur.analysis.diff.pair_results import PairResult, pair_results
from demur.analysis.doses.coherence_gate import broken
from demur.analysis.doses.dose_answers import dose_answers
from demur.analysis.doses.dose_results import DoseResults, dose_results
from demur.analysis.edit_tests import edit_tests
from demur.analysis.factor_effect import FactorEffect
from demur.analysis.harm.harm_answers import harm_answers
from demur.analysis.harm.harm_results import HarmResult, harm_results
from demur.analysis.headline import answers
from demur.analysis.hypotheses.evidence import with_spreads
from demur.analysis.hypotheses.hypothesis_claims import Sets, Tested, hypothesis_claims
from demur.analysis.hypotheses.post_hypotheses import Lineage as Roles
from demur.analysis.lineages.lineage_record import Lineage
from demur.analysis.lineages.lineage_trends import LineageVerdicts, lineage_of, trend_answers
from demur.analysis.manifest import DirectionFacts, Manifest
from demur.analysis.rates import Groups, Refusals, comparisons, judged_cells
from demur.analysis.study_facts import StudyFacts
from demur.analysis.summary import Cosines
from demur.analysis.weights_and_prompt import factor_answers, factor_effects
from demur.core.edit_words import EditWords
from demur.directions.stored_vectors import cosine_matrix, stored_vector
from demur.inputs.duplicates.near_duplicates import groups_of
from demur.inputs.prompt_edits import is_edited
from demur.inputs.registered_sets import MATCHED
from demur.interventions.edit_kind import edit_kind
from demur.runs.controls.measured_nulls import refusal_probabilities, unanswered_nulls
from demur.runs.database.damage import FILE
from demur.runs.extracting.zero_points import with_zero_points
from demur.runs.measured_summaries import Measured
from demur.runs.measuring.measured_details import diff_details
from demur.runs.measuring.measured_harm import measured_harm
from demur.runs.measuring.measured_pairs import measured_pairs
from demur.runs.measuring.measured_texts import measured_texts
from demur.runs.measuring.spreads import Spreads, has_a_row
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    from demur.runs.store import Store

_PUBLISHED_KINDS = ("ablate", "add")
"""The kinds of edit of the published works: Arditi et al. 2024 and the post. One that a study did not try gets a sentence too."""


@dataclass(frozen=True)
class AnalysedRun:
    """The parts of a run's summary that are computed from its results.

    Attributes:
        manifest: the facts about the run.
        study: the facts of its study.
        judge: the first judge, which sentences and claims are about.
        directions: the directions that have a row.
        refusals: the verdicts.
        groups: the group of each instruction; near-duplicates are one group.
        measured: the measurements.
        cells: the judged cells.
        compared: each edited cell compared with its target without an edit.
        tested: the hypotheses, and the tests of the edits.
        doses: coherence of the edited texts, doses for half of the refusals, comparisons at one dose.
        harm: whether directions tell harm or refusal.
        diff: what patches, mixtures and swaps between two checkpoints do to refusals.
        diff_details: what else was measured between two checkpoints.
        spreads: spreads over training pairs and over spellings of the prompts.
        factors: what weights do and what prompt formats do.
        words: the words for each action of the run's edits.
        pairs: the directions of each pair of arms.
        cosines: the cosines between the directions.
        lineage: what changes along the checkpoints; None for fewer than three.
        unknown: warnings about null directions that were not measured.
    """

    manifest: Manifest
    study: StudyFacts
    judge: str
    directions: Sequence[DirectionFacts]
    refusals: Refusals
    groups: Groups
    measured: Measured
    cells: Sequence[JudgedCell]
    compared: Sequence[Comparison]
    tested: Tested
    doses: DoseResults
    harm: Sequence[HarmResult]
    diff: Sequence[PairResult]
    diff_details: DiffDetails
    spreads: Spreads
    factors: Sequence[FactorEffect]
    words: dict[str, EditWords]
    pairs: Sequence[ArmPair]
    cosines: Cosines
    lineage: Lineage | None
    unknown: Sequence[str]

    @classmethod
    def of(cls, store: "Store", judges: Sequence[str], results: Results) -> Self:
        """Analyse a run.

        Args:
            store: the run.
            judges: the judges of the study and those that were added.
            results: all results of the run.

        Raises:
            InputError: if a kind of edit is not installed and the run does not describe it.
        """
        manifest, first = store.manifest(), judges[0]
        directions = with_zero_points(store, [each for each in store.directions() if has_a_row(each)])
        study, refusals = StudyFacts.of(manifest.study), results.refusals()
        arms = [name for name, one in study.checkpoints.items() for prompt in one.prompts if not is_edited(prompt)]
        measured, words = Measured.of(store, arms), edit_words(results.rows, manifest)
        cells = judged_cells(results.rows, refusals, judges, results.labels(), results.failed())
        groups = instruction_groups(store, results.rows, manifest)
        compared = comparisons(results.rows, refusals, judges, groups, study.claims)
        probabilities = refusal_probabilities(measured.records, first)
        unanswered, unknown = unanswered_nulls(manifest, [cell.key for cell in results.cells], probabilities)
        doses = dose_results(cells, refusals, first, directions, measured_texts(measured.records), probabilities, groups)
        nulls = [cell for cell in unanswered if cell.control]
        tests = edit_tests(cells, compared, refusals, first, groups, probabilities, nulls, broken(doses.coherence))
        pairs, lineage = arm_pairs(measured.summaries), list(study.checkpoints)
        roles = Roles.of({name: checkpoint.role for name, checkpoint in study.checkpoints.items()})
        near, sets = cosines_of_checkpoints(pairs, study.direction.layers), Sets(groups, _are_matched(study))
        cosines = _cosines(store, [each for each in directions if not each.control])
        return cls(
            manifest=manifest,
            study=study,
            judge=first,
            directions=directions,
            refusals=refusals,
            groups=groups,
            measured=measured,
            cells=cells,
            compared=compared,
            tested=hypothesis_claims(roles, cells, tests, refusals, first, words, sets, near),
            doses=doses,
            harm=harm_results(results.rows, measured_harm(measured.records), refusals, first, probabilities),
            diff=pair_results(measured_pairs(measured.records)),
            diff_details=diff_details(measured.records),
            spreads=Spreads.of(store, results, refusals, unanswered, compared, judges, groups, probabilities),
            factors=[one for judge in judges for one in factor_effects(cells, refusals, judge, lineage, groups)],
            words=words,
            pairs=pairs,
            cosines=cosines,
            lineage=lineage_of(LineageVerdicts(cells, refusals, first, groups), lineage, directions, _by_pair(cosines)),
            unknown=unknown,
        )

    def answers(self) -> list[Answer]:
        """The results of the run in a few sentences."""
        # A kind of edit of the published works that the study did not try gets a sentence too, which says so.
        words = {**_words(_PUBLISHED_KINDS, self.cells, self.manifest), **self.words}
        tests, names = self.tested.tests, list(self.study.checkpoints)
        return [
            *answers(
                self.cells, tests, self.refusals, self.judge, names, words, groups=self.groups, matched=_are_matched(self.study)
            ),
            *self.spreads.answers(self.cells, tests, self.words),
            *trend_answers(self.lineage),
            *dose_answers(self.doses.curves, self.cells, self.judge, self.words),
            *harm_answers(self.harm),
            *factor_answers([one for one in self.factors if one.judge == self.judge]),
            *agreement_answers(self.pairs, self.study.direction.layers),
        ]

    def claims(self) -> tuple[Claim, ...]:
        """The hypotheses, then one sentence with a verdict for each checkpoint and each edit."""
        effects = claims(self.cells, self.tested.tests, self.judge, self.words, self.spreads.pairs)
        return (*with_spreads(self.tested.claims, self.spreads.pairs, self.judge), *effects)


def instruction_groups(store: "Store", cells: Sequence[Cell], manifest: Manifest) -> dict[str, list[int]]:
    """The group of each instruction of each set, by position: near-duplicates are one group.

    An instruction that no completion was stored for yet is a group of its own.
    """
    found = {}
    for name, facts in manifest.instructions.items():
        texts: dict[int, str] = {}
        for cell in (cell for cell in cells if cell.instructions == name):
            if len(texts) < facts.n:
                texts |= {row.position: row.instruction for row in store.completions(cell.key)}
        size = max((facts.n, *(position + 1 for position in texts)))
        found[name] = groups_of([texts.get(position, f"missing{position}") for position in range(size)])
    return found


def edit_words(cells: Sequence[Cell], manifest: Manifest) -> dict[str, EditWords]:
    """The words for every action of the kinds of edit in a run, kind by kind in the order of its cells.

    Raises:
        InputError: if a kind is neither installed nor described in the run.
    """
    return _words(dict.fromkeys(cell.intervention for cell in cells if cell.edited), cells, manifest)


def _words(kinds: Iterable[str], cells: Sequence[Cell], manifest: Manifest) -> dict[str, EditWords]:
    found: dict[str, EditWords] = {}
    for kind in kinds:
        actions = {cell.action for cell in cells if cell.intervention == kind}
        known = {words.kind for action, words in manifest.edits.items() if action in actions}
        stored = [words for words in manifest.edits.values() if words.kind in known]
        found |= {words.action: words for words in stored or edit_kind(kind).words}
    return found


def _are_matched(study: StudyFacts) -> bool:
    sources = [study.instructions[label].source for label in ("harmful", "harmless") if label in study.instructions]
    return len(sources) == 2 and (sources[0], sources[1]) in MATCHED


def _cosines(store: "Store", directions: Sequence[DirectionFacts]) -> Cosines:
    stored = {each.name: content for each in directions if (content := store.direction_file(each.name)) is not None}
    vectors = [stored_vector(content, f"direction {name} in {store.folder / FILE}") for name, content in stored.items()]
    return Cosines(names=tuple(stored), matrix=tuple(map(tuple, cosine_matrix(vectors))))


def _by_pair(cosines: Cosines) -> dict[tuple[str, str], float]:
    rows = zip(cosines.names, cosines.matrix, strict=True)
    return {(one, other): value for one, row in rows for other, value in zip(cosines.names, row, strict=True)}
