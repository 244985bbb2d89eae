"""What a reader of a run's numbers should know, in sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.analysis.cell import Cell
from demur.analysis.close_controls import close_controls
from demur.analysis.manifest import DirectionFacts, Manifest
from demur.runs.extracting.large_coordinates import large_coordinates
from demur.runs.extracting.zero_points import zero_warnings
from demur.runs.judging_stored import (
    failure_warnings,
    family_warnings,
    served_warnings,
    thought_warnings,
    unparsed_warnings,
)
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    from demur.runs.store import Store

_NAMED_VERSIONS = ("demur", "torch", "transformers")
"""The versions that a warning about several sessions names."""


def run_warnings(
    store: "Store", manifest: Manifest, results: Results, judges: Sequence[str], directions: Sequence[DirectionFacts]
) -> list[str]:
    """The warnings of a run, but for those of its measurements and of the agreement of its judges.

    Args:
        store: the run.
        manifest: its facts.
        results: all its results.
        judges: its judges.
        directions: its directions that have a row.
    """
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
        *large_coordinates(store, directions),
        *close_controls(directions),
    ]


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
