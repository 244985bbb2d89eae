"""Computes the summary of a run from its folder."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.analysis.cautions.harmless_changes import harmless_changes
from demur.analysis.cautions.unsure_directions import unsure_directions
from demur.analysis.diff.findings import findings
from demur.analysis.judging.judge_agreement import little_agreement
from demur.analysis.published_rates import published_rows, text_and_code
from demur.analysis.summary import ByLayer, Summary
from demur.measurements.by_layer import SeparationByLayer
from demur.measurements.by_layer_summary import located
from demur.runs.labelling.stored_raters import rated
from demur.runs.rows import StoredMeasurement
from demur.runs.stored_records import Results
from demur.runs.summarising.analysed_run import AnalysedRun
from demur.runs.summarising.run_warnings import run_warnings

if TYPE_CHECKING:
    from demur.runs.store import Store


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
    run = AnalysedRun.of(store, judges, results)
    manifest = run.manifest
    labellers, agreed, corrected = rated(results, manifest, judges, run.groups)
    warnings = run_warnings(store, manifest, results, judges, run.directions)
    return Summary(
        study=manifest.study,
        created=manifest.created,
        versions=manifest.versions,
        judges={judge.name: judge.version for judge in manifest.judges},
        judge_labels={judge.name: judge.labels for judge in manifest.judges},
        edits=run.words,
        sessions=manifest.sessions,
        warnings=(*warnings, *_of_results(run, store), *run.measured.warnings, *run.unknown, *little_agreement(agreed)),
        environment=manifest.environment,
        checkpoints=manifest.checkpoints,
        arms=manifest.arms,
        instructions=manifest.instructions,
        cells=tuple(run.cells),
        selection=manifest.selection,
        directions=tuple(run.directions),
        cosines=run.cosines,
        by_layer=_by_layer(run.measured.records, run.study.direction.layers, list(run.study.checkpoints)),
        measurements=run.measured.summaries,
        comparisons=tuple(run.compared),
        pairs=run.spreads.pairs,
        spellings=run.spreads.prompts,
        factors=tuple(run.factors),
        lineage=run.lineage,
        doses=run.doses,
        harmfulness=tuple(run.harm),
        diff=tuple(run.diff),
        diff_details=run.diff_details,
        changed=tuple(findings(run.diff, run.diff_details)),
        labellers=labellers,
        agreement=agreed,
        corrected=corrected,
        answers=tuple(run.answers()),
        claims=run.claims(),
        published=tuple(published_rows(manifest.study, run.cells, run.directions)),
        text_and_code=tuple(text_and_code(manifest.study)),
    )


def _of_results(run: AnalysedRun, store: "Store") -> list[str]:
    """Warnings that need the comparisons of a run."""
    unsure = unsure_directions(run.pairs, run.study.direction.layers, store.directions())
    return [*unsure, *harmless_changes(run.cells, run.compared, run.judge)]


def _by_layer(measured: Sequence[StoredMeasurement], layers: Sequence[int], lineage: Sequence[str]) -> ByLayer | None:
    found = located([one.record for one in measured if one.of(SeparationByLayer)], layers, lineage)
    return None if found is None else ByLayer.model_validate(found)
