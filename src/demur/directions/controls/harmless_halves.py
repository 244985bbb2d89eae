"""`halves`: the difference of means of two random halves of the harmless instructions."""

from typing import TYPE_CHECKING, ClassVar, Literal

from demur.core.errors import InputError
from demur.directions.controls.seeded_draws import activations_of, generator_of, group_contrast, scaled_like, texts_of

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts

LEAST = 4
"""With fewer instructions, a half is a single one."""


class HarmlessHalves:
    """The control `halves`: harmless against harmless. Nothing harmful is in it, only how the instructions happen to differ."""

    name: ClassVar[str] = "halves"
    needs: ClassVar[Literal["direction", "activations"]] = "activations"
    null_of: ClassVar[str] = "the difference of two halves of the harmless instructions"

    def most(self, harmful: "TrainingTexts", harmless: "TrainingTexts") -> int | None:  # noqa: ARG002
        """No limit, because instructions have very many halves.

        Raises:
            InputError: for fewer than four harmless instructions.
        """
        if len(harmless.instructions) < LEAST:
            raise InputError(
                f"the control {self.name!r} needs {LEAST} harmless training instructions, and there are "
                f"{len(harmless.instructions)}; raise direction.pairs"
            )
        return None

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,
        harmless: "Side | None" = None,
        number: int = 0,  # noqa: ARG002
    ) -> "Direction":
        """Divide the harmless instructions at random, the first half rounded down, and take the difference of means."""
        import torch

        self.most(texts_of(harmful), texts_of(harmless))
        rows = activations_of(harmless)
        order = torch.randperm(len(rows), generator=generator_of(seed, name))
        raw = group_contrast(rows, order[: len(rows) // 2])
        return scaled_like(raw, beside, name=name, method="difference of two halves of the harmless instructions")
