"""One step of the argument about what fine-tuning changed."""

from demur.analysis.cell import Record


class Finding(Record):
    """One step of the argument.

    Attributes:
        subject: the pair of checkpoints.
        question: the question.
        answer: the answer in a sentence.
        evidence: the numbers that it rests on, with their null.
        shown: whether the data show it.
    """

    subject: str
    question: str
    answer: str
    evidence: str
    shown: bool
