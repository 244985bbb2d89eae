"""The criteria by which `demur select` chooses a place. Imports nothing heavy, so that help and completion can list them."""

from typing import Literal, get_args

Criterion = Literal["arditi", "cosmic", "separation"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
