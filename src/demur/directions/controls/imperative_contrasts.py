"""`imperatives`: imperatives against questions, among the harmless instructions."""

import re
from typing import TYPE_CHECKING, ClassVar, Literal

from demur.core.errors import InputError
from demur.directions.controls.seeded_draws import activations_of, generator_of, scaled_like, texts_of

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.directions.estimators.estimator import Side
    from demur.inputs.training_texts import TrainingTexts

LEAST = 8
"""The smallest number of imperatives, and of questions. With fewer, single instructions would decide."""

_ASKING = re.compile(
    "who|whom|whose|what|which|when|where|why|how|is|are|am|was|were|do|does|did|can|could|will|would|shall|should|may|might|must|"
    "have|has|had|isn't|aren't|don't|doesn't|didn't|can't|couldn't|won't|wouldn't"
)
"""First words of a question: question words and auxiliary verbs."""
_TELLING = re.compile(
    "i|i'm|i'd|i've|we|we're|you|he|she|it|they|this|that|these|those|there|the|a|an|my|our|your|his|her|its|their|if|in|on|at|"
    "for|with|as|to"
)
"""First words of a statement or of a clause before the request, so that such an instruction is neither."""


def sentence_form(instruction: str) -> Literal["imperative", "question", "other"]:
    """Whether an instruction tells or asks, by a simple rule for English.

    A question ends with a question mark (quotes and brackets behind it do not count), or begins with a question word or an
    auxiliary verb, as in "Could you ...". Any other instruction is an imperative, unless it begins with a pronoun, an article, a
    preposition or "if", as statements do.

    Example:
        >>> [sentence_form(text) for text in ("Write a poem.", "Could you write a poem", "I need a poem.", "A poem?")]
        ['imperative', 'question', 'other', 'question']
    """
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", instruction.replace("\u2019", "'").casefold())
    if instruction.rstrip(" \t\n\"'\u201d\u2019)]*").endswith("?") or (words and _ASKING.fullmatch(words[0])):
        return "question"
    return "other" if not words or _TELLING.fullmatch(words[0]) else "imperative"


class ImperativeContrasts:
    """The control `imperatives`: a difference of form, not of content.

    Each control compares a random half of the imperatives with a random half of the questions. So the controls of one direction
    resemble each other, and a few say what many say.
    """

    name: ClassVar[str] = "imperatives"
    needs: ClassVar[Literal["direction", "activations"]] = "activations"
    null_of: ClassVar[str] = "the difference of imperatives and questions among the harmless instructions"

    def most(self, harmful: "TrainingTexts", harmless: "TrainingTexts") -> int | None:  # noqa: ARG002
        """No limit, because random halves of both forms are compared.

        Raises:
            InputError: for fewer than eight imperatives or questions.
        """
        self._forms(harmless)
        return None

    def make(
        self,
        beside: "Direction",
        *,
        name: str,
        seed: int,
        harmful: "Side | None" = None,  # noqa: ARG002
        harmless: "Side | None" = None,
        number: int = 0,  # noqa: ARG002
    ) -> "Direction":
        """Take the mean of a half of the imperatives minus the mean of a half of the questions."""
        import torch

        rows, generator = activations_of(harmless), generator_of(seed, name)
        means = []
        for places in self._forms(texts_of(harmless)):
            order = torch.randperm(len(places), generator=generator)[: len(places) // 2]
            means.append(rows[torch.tensor(places)[order]].mean(0))
        return scaled_like(means[0] - means[1], beside, name=name, method="imperatives against questions, harmless")

    def _forms(self, texts: "TrainingTexts") -> tuple[list[int], list[int]]:
        """The places of the imperatives and of the questions."""
        forms = list(map(sentence_form, texts.instructions))
        places = tuple([place for place, form in enumerate(forms) if form == wanted] for wanted in ("imperative", "question"))
        if min(map(len, places)) < LEAST:
            raise InputError(
                f"the control {self.name!r} needs {LEAST} imperatives and {LEAST} questions, but of the {len(forms)} harmless "
                f"training instructions {len(places[0])} are imperatives and {len(places[1])} are questions; raise "
                "direction.pairs, or leave this control out"
            )
        return places[0], places[1]
