"""`topics`: one topic against the others, within the harmful instructions."""

from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar, Literal

from demur.core.errors import InputError
from demur.directions.controls.instruction_topics import LEAST, Topic, topics_of
from demur.directions.controls.seeded_draws import activations_of, group_contrast, scaled_like, texts_of

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts


class TopicContrasts:
    """The control `topics`: harmful instructions about one topic against the other harmful ones.

    All of them are harmful, so this difference is one of content and not of harm. Nothing is drawn: there is one control for each
    topic. The seed decides their order, and `number` takes one of them.
    """

    name: ClassVar[str] = "topics"
    needs: ClassVar[Literal["direction", "activations"]] = "activations"
    null_of: ClassVar[str] = "the difference of one topic from the others within the harmful instructions"

    def most(self, harmful: "TrainingTexts", harmless: "TrainingTexts") -> int | None:  # noqa: ARG002
        """The number of topics of the harmful instructions.

        Raises:
            InputError: if there are none.
        """
        return len(self._topics(harmful))

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,
        harmless: "Side | None" = None,  # noqa: ARG002
        number: int = 0,
    ) -> "Direction":
        """Take the mean of one topic minus the mean of the others.

        Raises:
            InputError: if there are not so many topics.
        """
        import torch

        found = self._topics(texts_of(harmful))
        if number >= len(found):
            raise InputError(
                f"{name!r} asks for topic {number + 1} for {beside.name!r}, but the harmful training instructions have "
                f"{len(found)}; ask for fewer"
            )
        # The order depends on the direction too, so that the first controls of two directions are about different topics.
        chosen = sorted(found, key=lambda each: sha256(f"{seed}:{beside.name}:{each.name}".encode()).digest())[number]
        raw = group_contrast(activations_of(harmful), torch.tensor(chosen.places))
        how = "stated" if chosen.stated else "by words"
        method = "one topic against the others, harmful"
        return scaled_like(raw, beside, name=name, method=method, topic=chosen.name, topics=how)

    def _topics(self, texts: "TrainingTexts") -> list[Topic]:
        found = topics_of(texts)
        if not found:
            known = f"topics in {len(set(texts.topics))} groups" if texts.topics else "no topics in their set"
            raise InputError(
                f"the control {self.name!r} needs a topic of at least {LEAST} harmful training instructions, and {LEAST} others; "
                f"these {len(texts.instructions)} have {known}; raise direction.pairs, or leave this control out"
            )
        return found
