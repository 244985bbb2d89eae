"""demur measures refusals of language-model checkpoints, finds the direction that carries them, and moves it between checkpoints.

Importing this package imports nothing heavy: names are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.api import Completion as Completion
    from demur.api import capture as capture
    from demur.api import extract_direction as extract_direction
    from demur.api import extract_directions as extract_directions
    from demur.api import generate as generate
    from demur.api import mean_activations as mean_activations
    from demur.candidates import candidate_directions as candidate_directions
    from demur.checkpoints import Checkpoint as Checkpoint
    from demur.checkpoints import load_checkpoint as load_checkpoint
    from demur.checkpoints import wrap as wrap
    from demur.controls import random_direction as random_direction
    from demur.criteria import refusal_scores as refusal_scores
    from demur.criteria import select_by_cosine as select_by_cosine
    from demur.criteria import select_by_refusal as select_by_refusal
    from demur.criteria import select_by_separation as select_by_separation
    from demur.directions import Direction as Direction
    from demur.errors import DemurError as DemurError
    from demur.errors import InputError as InputError
    from demur.errors import WorkError as WorkError
    from demur.formats import load_direction as load_direction
    from demur.formats import load_directions as load_directions
    from demur.formats import save_directions as save_directions
    from demur.instructions import load_instructions as load_instructions
    from demur.interventions import Intervention as Intervention
    from demur.interventions import ablate as ablate
    from demur.interventions import add as add
    from demur.judges import Verdict as Verdict
    from demur.judges import judge as judge
    from demur.losses import completion_losses as completion_losses
    from demur.losses import text_losses as text_losses
    from demur.prompts import Prompt as Prompt
    from demur.prompts import prompt_format as prompt_format
    from demur.refusal_tokens import find_refusal_tokens as find_refusal_tokens
    from demur.runner import Run as Run
    from demur.runner import open_run as open_run
    from demur.runner import run as run
    from demur.selection import jointly as jointly
    from demur.steering import steer as steer
    from demur.study import Study as Study
    from demur.study_files import load_study as load_study
    from demur.weight_edit import equivalence as equivalence

__version__ = "0.1.0"

_HOMES = {
    "api": ("Completion", "capture", "extract_direction", "extract_directions", "generate", "mean_activations"),
    "candidates": ("candidate_directions",),
    "checkpoints": ("Checkpoint", "load_checkpoint", "wrap"),
    "controls": ("random_direction",),
    "criteria": ("refusal_scores", "select_by_cosine", "select_by_refusal", "select_by_separation"),
    "directions": ("Direction",),
    "weight_edit": ("equivalence",),
    "errors": ("DemurError", "InputError", "WorkError"),
    "formats": ("load_direction", "load_directions", "save_directions"),
    "instructions": ("load_instructions",),
    "interventions": ("Intervention", "ablate", "add"),
    "judges": ("Verdict", "judge"),
    "losses": ("completion_losses", "text_losses"),
    "prompts": ("Prompt", "prompt_format"),
    "refusal_tokens": ("find_refusal_tokens",),
    "runner": ("Run", "open_run", "run"),
    "selection": ("jointly",),
    "steering": ("steer",),
    "study": ("Study",),
    "study_files": ("load_study",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'demur' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"demur.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
