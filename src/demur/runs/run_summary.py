"""Computes the summary of a run from its folder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from demur.analysis.arm_pairs import ArmPair, agreement_answers, arm_pairs, cosines_of_checkpoints
from demur.analysis.cell import Answer, Cell, JudgedCell
from demur.analysis.cell_phrases import Words
from demur.analysis.claims import claims
from demur.analysis.close_controls import close_controls
from demur.analysis.doses.coherence_gate import broken
from demur.analysis.doses.dose_answers import dose_answers
from demur.analysis.doses.dose_results import DoseResults, dose_results
from demur.analysis.edit_tests import EditTest, edit_tests
from demur.analysis.factor_effect import FactorEffect
from demur.analysis.harm.harm_answers import harm_answers
from demur.analysis.harm.harm_results import HarmResult, harm_results
from demur.analysis.headline import answers
from demur.analysis.hypotheses.hypothesis_claims import Sets, Tested, hypothesis_claims
from demur.analysis.hypotheses.post_hypotheses import Lineage
from demur.analysis.judging.judge_agreement import little_agreement
from demur.analysis.lineages.lineage_record import Lineage as Trends
from demur.analysis.lineages.lineage_trends import LineageVerdicts, lineage_of, trend_answers
from demur.analysis.manifest import DirectionFacts, Manifest
from demur.analysis.published_rates import published_rows, text_and_code
from demur.analysis.rates import Groups, Refusals, comparisons, judged_cells
from demur.analysis.study_facts import StudyFacts
from demur.analysis.summary import ByLayer, Cosines, Summary
from demur.analysis.weights_and_prompt import factor_answers, factor_effects
from demur.core.edit_words import EditWords
from demur.directions.stored_vectors import cosine_matrix, stored_vector
from demur.inputs.duplicates.near_duplicates import groups_of
from demur.inputs.prompt_edits import is_edited
from demur.inputs.registered_sets import MATCHED
from demur.interventions.edit_kind import edit_kind
from demur.measurements.by_layer import SeparationByLayer
from demur.measurements.by_layer_summary import located
from demur.runs.controls.measured_nulls import refusal_probabilities, unanswered_nulls
from demur.runs.database.damage import FILE
from demur.runs.extracting.zero_points import with_zero_points, zero_warnings
from demur.runs.judging_stored import (
    failure_warnings,
    family_warnings,
    served_warnings,
    thought_warnings,
    unparsed_warnings,
)
from demur.runs.labelling.stored_raters import rated
from demur.runs.measured_summaries import Measured
from demur.runs.measuring.measured_harm import measured_harm
from demur.runs.measuring.measured_texts import measured_texts
from demur.runs.measuring.spreads import Spreads, has_a_row
from demur.runs.rows import StoredMeasurement
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    from demur.runs.store import Store

_NAMED_VERSIONS = ("demur", "torch", "transformers")
"""The versions that a warning about several sessions names."""


_PUBLISHED_KINDS = ("ablate", "add")
"""The kinds of edit of the published works: Arditi et al. 2024 and the post. One that a study did not try gets a sentence too."""


def summarise(store: "Store", judges: Sequence[str], results: Results) -> Summary:
    """Compute everything that `summary.json` holds.

    Args:
        store: the run.
        judges: the judges of the study and those that were added. Sentences are about the first.
        results: all results of the run.

    Returns:
        The summary.

    Raises:
        InputError: if a kind of edit or a judge is not installed and the run does not describe it.
    """
    manifest, directions = store.manifest(), with_zero_points(store, [each for each in store.directions() if has_a_row(each)])
    study, cells, refusals = StudyFacts.of(manifest.study), results.rows, results.refusals()
    lineage = list(study.checkpoints)
    arms = [name for name, one in study.checkpoints.items() for prompt in one.prompts if not is_edited(prompt)]
    measured = Measured.of(store, arms)
    judged = judged_cells(cells, refusals, judges, results.labels(), results.failed())
    groups = instruction_groups(store, cells, manifest)
    compared = comparisons(cells, refusals, judges, groups, study.claims)
    probabilities = refusal_probabilities(measured.records, judges[0])
    unanswered, unknown = unanswered_nulls(manifest, [cell.key for cell in results.cells], probabilities)
    nulls = [cell for cell in unanswered if cell.control]
    doses = dose_results(judged, refusals, judges[0], directions, measured_texts(measured.records), probabilities, groups)
    harm = harm_results(cells, measured_harm(measured.records), refusals, judges[0], probabilities)
    tests = edit_tests(judged, compared, refusals, judges[0], groups, probabilities, nulls, broken(doses.coherence))
    spreads = Spreads.of(store, results, refusals, unanswered, compared, judges, groups, probabilities)
    factors = [one for judge in judges for one in factor_effects(judged, refusals, judge, lineage, groups)]
    used, published = edit_words(cells, manifest), _words(_PUBLISHED_KINDS, cells, manifest)
    matched, pairs = _are_matched(study), arm_pairs(measured.summaries)
    tested = _tested(study, judged, tests, refusals, judges[0], used, groups, pairs)
    cosines, along = _along(store, directions, lineage, LineageVerdicts(judged, refusals, judges[0], groups))
    labellers, agreed, corrected = rated(results, manifest, judges, groups)
    return Summary(
        study=manifest.study,
        created=manifest.created,
        versions=manifest.versions,
        judges={judge.name: judge.version for judge in manifest.judges},
        judge_labels={judge.name: judge.labels for judge in manifest.judges},
        edits=used,
        sessions=manifest.sessions,
        warnings=(
            *_warnings(store, manifest, results, judges, directions),
            *measured.warnings,
            *unknown,
            *little_agreement(agreed),
        ),
        environment=manifest.environment,
        checkpoints=manifest.checkpoints,
        arms=manifest.arms,
        instructions=manifest.instructions,
        cells=tuple(judged),
        selection=manifest.selection,
        directions=tuple(directions),
        cosines=cosines,
        by_layer=_by_layer(measured.records, study.direction.layers, lineage),
        measurements=measured.summaries,
        comparisons=tuple(compared),
        pairs=spreads.pairs,
        spellings=spreads.prompts,
        factors=tuple(factors),
        lineage=along,
        doses=doses,
        harmfulness=tuple(harm),
        labellers=labellers,
        agreement=agreed,
        corrected=corrected,
        answers=(
            *answers(judged, tested.tests, refusals, judges[0], lineage, {**published, **used}, groups=groups, matched=matched),
            *spreads.answers(judged, tested.tests, used),
            *_further_answers(along, doses, harm, factors, pairs, judged, judges[0], used, study),
        ),
        claims=(*tested.claims, *claims(judged, tested.tests, judges[0], used, spreads.pairs)),
        published=tuple(published_rows(manifest.study, judged, directions)),
        text_and_code=tuple(text_and_code(manifest.study)),
    )


def _further_answers(
    along: Trends | None,
    doses: DoseResults,
    harm: Sequence[HarmResult],
    factors: Sequence[FactorEffect],
    pairs: Sequence[ArmPair],
    judged: Sequence[JudgedCell],
    judge: str,
    words: Mapping[str, EditWords],
    study: StudyFacts,
) -> list[Answer]:
    """Answers about the lineage, doses, harm, weights and prompt formats, and cosines."""
    return [
        *trend_answers(along),
        *dose_answers(doses.curves, judged, judge, words),
        *harm_answers(harm),
        *factor_answers([one for one in factors if one.judge == judge]),
        *agreement_answers(pairs, study.direction.layers),
    ]


def _warnings(
    store: "Store", manifest: Manifest, results: Results, judges: Sequence[str], directions: Sequence[DirectionFacts]
) -> list[str]:
    """What a reader of the numbers should know, but for the measurements."""
    completions = sum(store.progress().values())
    return [
        *_unfinished(results.cells, manifest, completions),
        *manifest.warnings,
        *(manifest.selection.notes if manifest.selection is not None else ()),
        *_several_sessions(manifest),
        *thought_warnings(store, results.cells, manifest.arms),
        *failure_warnings(results.failures, completions, judges),
        *unparsed_warnings(results.verdicts, judges),
        *served_warnings(store, judges),
        *family_warnings(manifest, judges),
        *zero_warnings(results.rows, directions),
        *close_controls(directions),
    ]


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


def _tested(
    study: StudyFacts,
    judged: Sequence[JudgedCell],
    tests: Sequence[EditTest],
    refusals: Refusals,
    judge: str,
    words: Words,
    groups: Groups,
    pairs: Sequence[ArmPair],
) -> Tested:
    """The hypotheses about the study's checkpoints, and the tests corrected together with them."""
    roles = {name: checkpoint.role for name, checkpoint in study.checkpoints.items()}
    cosines = cosines_of_checkpoints(pairs, study.direction.layers)
    sets = Sets(groups, _are_matched(study))
    return hypothesis_claims(Lineage.of(roles), judged, tests, refusals, judge, words, sets, cosines)


def _along(
    store: "Store", directions: Sequence[DirectionFacts], lineage: Sequence[str], verdicts: LineageVerdicts
) -> tuple[Cosines, Trends | None]:
    """The cosines between the directions, and what changes along the checkpoints."""
    cosines = _cosines(store, [each for each in directions if not each.control])
    rows = zip(cosines.names, cosines.matrix, strict=True)
    pairs = {(one, other): value for one, row in rows for other, value in zip(cosines.names, row, strict=True)}
    return cosines, lineage_of(verdicts, lineage, directions, pairs)


def _are_matched(study: StudyFacts) -> bool:
    sources = [study.instructions[label].source for label in ("harmful", "harmless") if label in study.instructions]
    return len(sources) == 2 and (sources[0], sources[1]) in MATCHED


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


def _unfinished(cells: Sequence[Cell], manifest: Manifest, stored: int) -> list[str]:
    """A warning if completions are missing, so that a reader knows what the figures cover."""
    planned = sum(manifest.instructions[cell.instructions].n for cell in cells)
    if stored >= planned:
        return []
    return [
        f"This run is not finished: {stored:,} of {planned:,} completions are stored. All figures and sentences cover only "
        "these; long prompts are generated first."
    ]


def _several_sessions(manifest: Manifest) -> list[str]:
    parts = [
        ", ".join(f"{name} {session.versions[name]}" for name in _NAMED_VERSIONS) + f" on {session.device}"
        for session in manifest.sessions
    ]
    took_part = list(dict.fromkeys(parts))
    if len(took_part) < 2:
        return []
    return [f"More than one version or device took part in this run: {'; '.join(took_part)}."]


def _cosines(store: "Store", directions: Sequence[DirectionFacts]) -> Cosines:
    stored = {each.name: content for each in directions if (content := store.direction_file(each.name)) is not None}
    vectors = [stored_vector(content, f"direction {name} in {store.folder / FILE}") for name, content in stored.items()]
    return Cosines(names=tuple(stored), matrix=tuple(map(tuple, cosine_matrix(vectors))))


def _by_layer(measured: Sequence[StoredMeasurement], layers: Sequence[int], lineage: Sequence[str]) -> ByLayer | None:
    # The arrays of another version may mean something else.
    wanted = SeparationByLayer.name, SeparationByLayer.version
    found = located([one.record for one in measured if (one.name, one.version) == wanted], layers, lineage)
    return None if found is None else ByLayer.model_validate(found)
