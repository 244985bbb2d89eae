"""demur measures how often language models refuse, finds the direction that carries refusal, and tests it in other checkpoints.

Importing this package imports nothing heavy: names are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.core.errors import DemurError as DemurError
    from demur.core.errors import InputError as InputError
    from demur.core.errors import WorkError as WorkError
    from demur.core.registry import register as register
    from demur.directions.controls.random_directions import random_direction as random_direction
    from demur.directions.direction import Direction as Direction
    from demur.directions.direction import from_raw as from_raw
    from demur.directions.files.load_and_save import load_direction as load_direction
    from demur.directions.files.load_and_save import load_directions as load_directions
    from demur.directions.files.load_and_save import save_directions as save_directions
    from demur.directions.subspace import Subspace as Subspace
    from demur.directions.subspace import load_subspace as load_subspace
    from demur.directions.subspace import subspace as subspace
    from demur.engine.capture import capture as capture
    from demur.engine.capture import mean_activations as mean_activations
    from demur.engine.checkpoints import Checkpoint as Checkpoint
    from demur.engine.checkpoints import load_checkpoint as load_checkpoint
    from demur.engine.checkpoints import wrap as wrap
    from demur.engine.conditions.find_gate import find_gate as find_gate
    from demur.engine.generate import Completion as Completion
    from demur.engine.generate import generate as generate
    from demur.engine.steer import steer as steer
    from demur.inputs.instructions import load_instructions as load_instructions
    from demur.inputs.prompts import Prompt as Prompt
    from demur.inputs.prompts import prompt_format as prompt_format
    from demur.interventions.affine_edit import affine as affine
    from demur.interventions.facts.affine_file import load_affine as load_affine
    from demur.interventions.facts.affine_file import save_affine as save_affine
    from demur.interventions.gates.gate import Gate as Gate
    from demur.interventions.gates.gated_edit import when as when
    from demur.interventions.intervention import Intervention as Intervention
    from demur.interventions.intervention import ablate as ablate
    from demur.interventions.intervention import add as add
    from demur.interventions.intervention import edit as edit
    from demur.interventions.stream_means import StreamMeans as StreamMeans
    from demur.interventions.target_facts import TargetFacts as TargetFacts
    from demur.judges.judge import Verdict as Verdict
    from demur.judges.judging import judge as judge
    from demur.measurements.cross_entropy import completion_losses as completion_losses
    from demur.measurements.cross_entropy import text_losses as text_losses
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability as BoundedProbability
    from demur.measurements.exact_refusal.refusal_probability import bounded_refusal_probability as bounded_refusal_probability
    from demur.measurements.exact_refusal.refusal_probability import refusal_probability as refusal_probability
    from demur.measurements.extraction import extract_direction as extract_direction
    from demur.measurements.extraction import extract_directions as extract_directions
    from demur.measurements.facts.leace_facts import leace_facts as leace_facts
    from demur.measurements.gradient.optimised_cone import optimise_cone as optimise_cone
    from demur.measurements.gradient.optimised_direction import optimise_direction as optimise_direction
    from demur.measurements.null_directions import control_directions as control_directions
    from demur.measurements.reference_means import stream_means as stream_means
    from demur.measurements.refusal_tokens import find_refusal_tokens as find_refusal_tokens
    from demur.measurements.selection.candidates import candidate_directions as candidate_directions
    from demur.measurements.selection.ranking import jointly as jointly
    from demur.measurements.selection.sweep import refusal_scores as refusal_scores
    from demur.measurements.selection.sweep import select_by_cosine as select_by_cosine
    from demur.measurements.selection.sweep import select_by_refusal as select_by_refusal
    from demur.measurements.selection.sweep import select_by_separation as select_by_separation
    from demur.measurements.token_projections import TokenProjections as TokenProjections
    from demur.measurements.token_projections import project as project
    from demur.measurements.weight_equivalence import equivalence as equivalence
    from demur.models import families as families
    from demur.models.layouts import Layout as Layout
    from demur.runs.compare import compare as compare
    from demur.runs.diffing.diff_run import diff as diff
    from demur.runs.exports.export import export as export
    from demur.runs.pair import pair as pair
    from demur.runs.run import Run as Run
    from demur.runs.run import open_run as open_run
    from demur.runs.runner import run as run
    from demur.runs.selecting.select import select as select
    from demur.runs.sharding.merge import merge as merge
    from demur.study.plan_text import plan as plan
    from demur.study.spec import Study as Study
    from demur.study.study_files import load_study as load_study

__version__ = "0.1.0"

_HOMES = {
    "core.errors": ("DemurError", "InputError", "WorkError"),
    "core.registry": ("register",),
    "directions.controls.random_directions": ("random_direction",),
    "directions.direction": ("Direction", "from_raw"),
    "directions.subspace": ("Subspace", "load_subspace", "subspace"),
    "directions.files.load_and_save": ("load_direction", "load_directions", "save_directions"),
    "engine.capture": ("capture", "mean_activations"),
    "engine.checkpoints": ("Checkpoint", "load_checkpoint", "wrap"),
    "engine.conditions.find_gate": ("find_gate",),
    "engine.generate": ("Completion", "generate"),
    "engine.steer": ("steer",),
    "inputs.instructions": ("load_instructions",),
    "inputs.prompts": ("Prompt", "prompt_format"),
    "interventions.affine_edit": ("affine",),
    "interventions.facts.affine_file": ("load_affine", "save_affine"),
    "interventions.gates.gate": ("Gate",),
    "interventions.gates.gated_edit": ("when",),
    "interventions.intervention": ("Intervention", "ablate", "add", "edit"),
    "interventions.stream_means": ("StreamMeans",),
    "interventions.target_facts": ("TargetFacts",),
    "judges.judge": ("Verdict",),
    "judges.judging": ("judge",),
    "measurements.cross_entropy": ("completion_losses", "text_losses"),
    "measurements.exact_refusal.refusal_probability": (
        "BoundedProbability",
        "bounded_refusal_probability",
        "refusal_probability",
    ),
    "measurements.extraction": ("extract_direction", "extract_directions"),
    "measurements.facts.leace_facts": ("leace_facts",),
    "measurements.gradient.optimised_cone": ("optimise_cone",),
    "measurements.gradient.optimised_direction": ("optimise_direction",),
    "measurements.null_directions": ("control_directions",),
    "measurements.reference_means": ("stream_means",),
    "measurements.refusal_tokens": ("find_refusal_tokens",),
    "measurements.selection.candidates": ("candidate_directions",),
    "measurements.selection.ranking": ("jointly",),
    "measurements.selection.sweep": ("refusal_scores", "select_by_cosine", "select_by_refusal", "select_by_separation"),
    "measurements.token_projections": ("TokenProjections", "project"),
    "measurements.weight_equivalence": ("equivalence",),
    "models": ("families",),
    "models.layouts": ("Layout",),
    "runs.compare": ("compare",),
    "runs.diffing.diff_run": ("diff",),
    "runs.exports.export": ("export",),
    "runs.pair": ("pair",),
    "runs.run": ("Run", "open_run"),
    "runs.runner": ("run",),
    "runs.selecting.select": ("select",),
    "runs.sharding.merge": ("merge",),
    "study.plan_text": ("plan",),
    "study.spec": ("Study",),
    "study.study_files": ("load_study",),
}
"""The module that defines each public name. `families` is a module itself, so its package is given."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'demur' has no attribute {name!r}")
    from importlib import import_module

    home = f"demur.{_HOME_OF[name]}"
    value = import_module(f"{home}.{name}") if _HOME_OF[name] == "models" else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
