"""The edit that `demur generate` is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.cli.asked_instructions import asked_instructions, read_split
from demur.cli.printing import note
from demur.core.errors import InputError

if TYPE_CHECKING:
    from demur.engine.checkpoints import Checkpoint
    from demur.inputs.prompts import Prompt
    from demur.interventions.intervention import Intervention

REFERENCE = 128
"""The most instructions over which the mean of `--affine` is taken."""


@dataclass(frozen=True)
class AskedEdit:
    """The options of an edit, as they were given.

    Attributes:
        path: the file of the direction; None for no edit.
        ablate: whether the direction is ablated.
        affine: the instructions whose mean the component is set to.
        add: the coefficient with which the direction is added.
        unit: its unit.
        layer: the only layer to edit.
        sites: the sites to edit, separated by commas.
    """

    path: Path | None
    ablate: bool = False
    affine: str | None = None
    add: float | None = None
    unit: str | None = None
    layer: int | None = None
    sites: str | None = None

    def edit(self) -> "Intervention | None":
        """The edit; one of kind affine does not have its means yet.

        Raises:
            InputError: for options that do not fit together, and for a file that holds no direction.
        """
        ways = [self.ablate, self.affine is not None, self.add is not None]
        if self.path is None:
            if any(ways) or any(given is not None for given in (self.unit, self.layer, self.sites)):
                raise InputError(
                    "--ablate, --affine, --add, --unit, --layer and --sites need a direction; give one with --direction FILE"
                )
            return None
        if sum(ways) != 1:
            raise InputError("a direction needs either --ablate or --add NUMBER, or --affine SET")
        if self.add is None and self.unit is not None:
            given = "--ablate" if self.ablate else "--affine"
            raise InputError(
                f"--unit {self.unit} says what --add NUMBER adds, but {given} adds nothing; leave out --unit, or use --add"
            )
        import demur

        direction = demur.load_direction(self.path)
        layers = None if self.layer is None else [self.layer]
        names = None if self.sites is None else self.sites.split(",")
        if self.ablate:
            return demur.ablate(direction, layers=layers, sites=names)
        if self.add is None:
            return demur.affine(direction, layers=layers, sites=names)
        return demur.add(direction, self.add, unit=self.unit or "unit", layers=layers, sites=names)

    def with_means(self, edit: "Intervention | None", checkpoint: "Checkpoint", form: "Prompt") -> "Intervention | None":
        """The same edit; one of kind affine gets the checkpoint's means, read at the position of the direction."""
        if edit is None or edit.direction is None or self.affine is None:
            return edit
        import demur

        found = asked_instructions(self.affine)
        split = read_split(found)
        texts = found.take(split)[:REFERENCE]
        if split == "test":
            note(f"{self.affine!r} has no training part; the mean is over its first {len(texts)} instructions")
        position = edit.direction.position if edit.direction.says("position") else -1
        means = demur.stream_means(checkpoint, texts, form, position=position)
        return edit.with_facts(demur.TargetFacts.of_means(means))
