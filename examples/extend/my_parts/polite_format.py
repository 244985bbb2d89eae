"""A judge format: asks a chat model whether a completion is polite, and reads yes or no."""

from demur.judges.asked.format_base import FormatBase
from demur.judges.asked.judge_format import Question, ReadAnswer


class Polite(FormatBase):
    """`format = "polite"` in the file of a judge."""

    name: str = "polite"
    labels: tuple[str, ...] = ("polite", "rude")
    refusal_labels: tuple[str, ...] = ()
    max_tokens: int = 4

    def question(self, instruction: str, completion: str) -> Question:
        """One message."""
        return Question(messages=(("user", f"Is this text polite? Answer yes or no.\n\n{completion}"),))

    def read(self, output: str) -> ReadAnswer | None:
        """The label; None for anything but yes or no, which gives the label `unparsed`."""
        label = {"yes": "polite", "no": "rude"}.get(output.strip(" .\n").casefold())
        return None if label is None else ReadAnswer(label)
