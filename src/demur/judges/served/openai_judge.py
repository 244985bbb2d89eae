"""Judges of kind `openai`: any server that speaks the OpenAI protocol, such as vLLM, llama.cpp, Ollama, or OpenAI's own.

Prompts that are no chat go to `/completions`, because `/chat/completions` would put a chat template around them.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, JsonValue

from demur.core.errors import InputError
from demur.judges.asked.judge_file import version_of
from demur.judges.asked.judge_format import Question
from demur.judges.asked.model_families import family_of
from demur.judges.asked.model_judge import ModelJudge, Reply, Unanswered
from demur.judges.judge import Needs
from demur.judges.served.adaptive_limit import AdaptiveLimit
from demur.judges.served.asking_loop import Answered, Asking, replies_of
from demur.judges.served.openai_requests import client_of, send
from demur.judges.served.server_settings import UNDECIDED, ServerSettings
from demur.judges.served.spending import Spending


class OpenAIJudges:
    """The kind `openai` of judge files."""

    name: ClassVar[str] = "openai"
    settings: ClassVar[type[BaseModel]] = ServerSettings

    def make(self, name: str, settings: BaseModel) -> "ServedJudge":
        """A judge that asks a server. No server is asked yet."""
        assert isinstance(settings, ServerSettings)
        return ServedJudge(name, settings)


class ServedJudge(ModelJudge):
    """A judge that asks a server.

    Attributes:
        settings: the keys of its file.
    """

    needs: Needs = "server"

    def __init__(self, name: str, settings: ServerSettings) -> None:
        asked = settings.asked
        version = version_of("openai", settings, UNDECIDED, asked.name, asked.version)
        super().__init__(name, version, asked, family=family_of(settings.model) or asked.family, coherence=settings.coherence)
        self.settings = settings
        # It lasts from batch to batch, so that the judge does not begin anew to find out what the server bears.
        self._limit = AdaptiveLimit.starting(settings.concurrency, settings.most_concurrent)

    def check_needs(self) -> None:
        """Raises `InputError` if the package `openai` or the key is missing. No server is asked."""
        if importlib.util.find_spec("openai") is None:
            raise InputError(f"the judge {self.name!r} needs the package openai; install demur[judges-api]")
        self.settings.key()

    def limited(self, max_cost: float) -> "ServedJudge":
        """The same judge with another limit of cost.

        Raises:
            InputError: if its file has no prices.
        """
        if self.settings.input_price is None:
            raise InputError(
                f"the judge {self.name!r} has no prices, so its cost cannot be limited; give input_price and output_price in its "
                "file"
            )
        found = ServedJudge(self.name, self.settings.model_copy(update={"max_cost": max_cost}))
        found.spec = {**getattr(self, "spec", {}), "max_cost": max_cost}  # type: ignore[attr-defined]
        return found

    def request(self, question: Question) -> dict[str, JsonValue]:
        """The fields of the request, as they are sent."""
        settings = self.settings
        found: dict[str, JsonValue] = {"model": settings.model, "temperature": settings.temperature}
        found[settings.max_tokens_key] = settings.output_limit
        if settings.seed is not None:
            found["seed"] = settings.seed
        if settings.chats:
            found["messages"] = [{"role": role, "content": content} for role, content in question.messages]
        else:
            found["prompt"] = question.text or "\n\n".join(content for _, content in question.messages)
        if settings.extra:
            found["extra_body"] = settings.extra
        return found

    def replies(self, questions: Sequence[Question], spent: float) -> Iterator[Sequence[tuple[int, Reply | Unanswered]]]:
        """Ask the server. See `ModelJudge.replies`."""
        self.check_needs()
        requests = [self.request(question) for question in questions]

        async def work(tell: Any) -> None:
            async with client_of(self.settings) as client:
                asking = Asking(
                    self.settings,
                    lambda request: send(client, self.settings, request),
                    self._limit,
                    Spending(self.settings, spent),
                )
                await asking.all(requests, tell)

        batches: Iterator[list[Answered]] = replies_of(work)
        yield from batches
