"""How many requests run at a time: more until the server says that there are too many, then half as many.

The rule is additive increase and multiplicative decrease, as in TCP congestion control (RFC 5681): one more for each answer until
the first refusal, then one more for each round of answers.
"""

from dataclasses import dataclass


@dataclass
class AdaptiveLimit:
    """The number of requests at a time.

    Attributes:
        most: the most there may be.
        now: the present number; at least 1.
        resume_at: no request begins before this time.
        refused: whether the server has refused one yet.
    """

    most: int
    now: float
    resume_at: float = 0.0
    refused: bool = False
    _cut_at: float = -1.0

    @classmethod
    def starting(cls, start: int, most: int) -> "AdaptiveLimit":
        """A limit that begins with `start` requests at a time."""
        return cls(most, float(min(start, most)))

    def accept(self) -> None:
        """A request was answered."""
        self.now = min(self.most, self.now + (1 / self.now if self.refused else 1))

    def refuse(self, sent_at: float, at: float, wait: float) -> None:
        """The server refused a request, because there were too many.

        Requests that were sent before the last cut do not cut again, because they belong to the same crowd.

        Args:
            sent_at: when the request was sent.
            at: the time now, on the same clock.
            wait: how many seconds no request may begin.
        """
        self.refused = True
        self.resume_at = max(self.resume_at, at + wait)
        if sent_at > self._cut_at:
            self.now, self._cut_at = max(1.0, self.now / 2), at
