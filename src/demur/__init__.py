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
    from demur.checkpoints import Checkpoint as Checkpoint
    from demur.checkpoints import load_checkpoint as load_checkpoint
    from demur.checkpoints import wrap as wrap
    from demur.controls import random_direction as random_direction
    from demur.directions import Direction as Direction
    from demur.directions import load_direction as load_direction
    from demur.errors import DemurError as DemurError
    from demur.errors import InputError as InputError
    from demur.errors import WorkError as WorkError
    from demur.instructions import load_instructions as load_instructions
    from demur.interventions import Intervention as Intervention
    from demur.interventions import ablate as ablate
    from demur.interventions import add as add
    from demur.judges import Verdict as Verdict
    from demur.judges import judge as judge
    from demur.prompts import Prompt as Prompt
    from demur.prompts import prompt_format as prompt_format
    from demur.runner import Run as Run
    from demur.runner import open_run as open_run
    from demur.runner import run as run
    from demur.steering import steer as steer
    from demur.study import Study as Study
    from demur.study import load_study as load_study

__version__ = "0.1.0"

_HOMES = {
    "api": ("Completion", "capture", "extract_direction", "extract_directions", "generate", "mean_activations"),
    "checkpoints": ("Checkpoint", "load_checkpoint", "wrap"),
    "controls": ("random_direction",),
    "directions": ("Direction", "load_direction"),
    "errors": ("DemurError", "InputError", "WorkError"),
    "instructions": ("load_instructions",),
    "interventions": ("Intervention", "ablate", "add"),
    "judges": ("Verdict", "judge"),
    "prompts": ("Prompt", "prompt_format"),
    "runner": ("Run", "open_run", "run"),
    "steering": ("steer",),
    "study": ("Study", "load_study"),
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
