"""The jobs that decide gates: with which threshold, and which prompts of their arm open them."""

from collections.abc import Collection
from dataclasses import dataclass

from demur.runs.controls.control_jobs import direction_key
from demur.runs.extracting.cell_needs import GateName, gate_key, gates_of
from demur.study.plan import Plan


@dataclass(frozen=True)
class GateJob:
    """Compare the prompts of an arm with a condition direction. Finds the threshold on training instructions if none is given.

    Attributes:
        arm: the target arm's name.
        checkpoint: its checkpoint, whose weights are needed.
        direction: the name of the condition direction.
        settings: the settings of the gate.
    """

    arm: str
    checkpoint: str
    direction: str
    settings: str

    @property
    def key(self) -> str:
        """Names the job."""
        return f"gate of {self.arm} {self.settings}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The checkpoints that must be loaded."""
        return (self.checkpoint,)

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the stored inputs."""
        return (direction_key(self.direction),)

    @property
    def gives(self) -> tuple[str, ...]:
        """Keys of what is stored afterwards."""
        return (gate_key((self.arm, self.settings)),)


def gate_names(plan: Plan) -> list[GateName]:
    """The gates of a plan, each once, in the order of its cells."""
    return list(dict.fromkeys(name for cell in (*plan.cells, *plan.null_cells) for name in gates_of(cell)))


def gate_jobs(plan: Plan, stored: Collection[GateName]) -> list[GateJob]:
    """A job for each gate that is not stored yet.

    Args:
        plan: the plan.
        stored: the gates that are stored.
    """
    cells = (cell for cell in (*plan.cells, *plan.null_cells) for name in gates_of(cell) if name not in stored)
    jobs = (
        GateJob(cell.target.name, cell.target.checkpoint, cell.gate.direction.name, cell.gate.settings)
        for cell in cells
        if cell.gate is not None
    )
    return list(dict.fromkeys(jobs))
