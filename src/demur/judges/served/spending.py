"""What requests to a server cost, and a limit that no request may pass."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from demur.judges.served.server_settings import ServerSettings

_MILLION = 1_000_000


@dataclass
class Spending:
    """Counts costs. A request is only sent if the limit holds even if the request costs the most that it can.

    Attributes:
        settings: prices and limit.
        spent: what finished requests cost, those of earlier sessions included.
        reserved: the most that the running requests can cost.
    """

    settings: ServerSettings
    spent: float = 0.0
    reserved: float = 0.0

    def most(self, request: Mapping[str, JsonValue]) -> float:
        """The most that a request can cost. No tokenizer makes more tokens than a text has bytes, and each message adds a few."""
        said = request.get("prompt") or request.get("messages") or ""
        texts = [said] if isinstance(said, str) else [str(one.get("content")) for one in said if isinstance(one, dict)]  # type: ignore[union-attr]
        return self.cost(sum(len(text.encode()) + 16 for text in texts), self.settings.output_limit)

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """The cost by the prices of the spec; 0 without prices."""
        prices = self.settings.input_price or 0.0, self.settings.output_price or 0.0
        return (input_tokens * prices[0] + output_tokens * prices[1]) / _MILLION

    def allows(self, request: Mapping[str, JsonValue]) -> bool:
        """Whether the limit holds if this request is sent too."""
        limit = self.settings.max_cost
        return limit is None or self.spent + self.reserved + self.most(request) <= limit

    def reserve(self, request: Mapping[str, JsonValue]) -> None:
        """Count a request that is about to be sent."""
        self.reserved += self.most(request)

    def settle(self, request: Mapping[str, JsonValue], cost: float) -> None:
        """Count a request that is finished, with what it cost."""
        self.reserved -= self.most(request)
        self.spent += cost
