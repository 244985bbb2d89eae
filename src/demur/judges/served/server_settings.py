"""The keys of a judge of kind `openai`: which server and model it asks, how, and how much it may try and cost."""

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, model_validator

from demur.core.errors import InputError
from demur.judges.asked.asked_settings import AskedSettings

UNDECIDED = frozenset(
    {
        "api_key_env", "concurrency", "most_concurrent", "timeout_seconds", "max_tries", "max_seconds", "first_wait_seconds",
        "input_price", "output_price", "max_cost",
    }
)  # fmt: skip
"""Keys that affect no label: a judge whose file changes only in these keeps its verdicts."""


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an address; expected for example http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("has a user, a password or a query, which may be a secret; name the variable of the key in api_key_env")
    return url.rstrip("/")


class ServerSettings(AskedSettings):
    """The keys of a judge that asks a server.

    Attributes:
        model: the model, as the server calls it.
        base_url: the address of the server, up to `/v1`.
        api_key_env: the environment variable that holds the key; None for a server that wants none. The key is stored nowhere.
        rubric: the rubric; in a file, the name of one that ships or the path of a TOML file.
        format: the judge format of a published classifier that the server runs. Give this or `rubric`.
        endpoint: `chat` or `completions`; by default what the format asks for.
        temperature: 0 for the most probable output.
        seed: sent to the server; None to send none.
        max_tokens: the most tokens of an output; by default what the format needs.
        max_tokens_key: the name by which the server knows this limit.
        extra: further fields of the request.
        coherence: whether texts that are no utterance get the label `incoherent` without being asked about.
        concurrency: requests at a time at the beginning. The number grows until the server answers with 429, and is then halved.
        most_concurrent: the most requests at a time.
        timeout_seconds: how long one try may take.
        max_tries: tries of one request. Answers with 429 do not count, only their time does.
        max_seconds: how long all tries of one request may take, waiting included.
        first_wait_seconds: the wait before the second try; each further wait is twice as long.
        input_price: the price of a million tokens of requests.
        output_price: the price of a million tokens of outputs.
        max_cost: the most that all outputs of this judge in one run may cost, in the unit of the prices.
    """

    base_url: Annotated[str, AfterValidator(_without_secrets)] = "https://api.openai.com/v1"
    api_key_env: str | None = None
    endpoint: Literal["chat", "completions"] | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    seed: int | None = 0
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    concurrency: Annotated[int, Field(ge=1)] = 8
    most_concurrent: Annotated[int, Field(ge=1)] = 64
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_tries: Annotated[int, Field(ge=1)] = 6
    max_seconds: Annotated[float, Field(gt=0)] = 300.0
    first_wait_seconds: Annotated[float, Field(gt=0)] = 0.5
    input_price: Annotated[float | None, Field(ge=0)] = None
    output_price: Annotated[float | None, Field(ge=0)] = None
    max_cost: Annotated[float | None, Field(ge=0)] = None

    @model_validator(mode="after")
    def _fits(self) -> "ServerSettings":
        asked = self.asked
        if asked.answers != "text":
            raise ValueError(
                f"the format {asked.name!r} reads probabilities, which this kind of judge does not get from a server; use kind = "
                '"classifier"'
            )
        if asked.asks == "text" and self.endpoint == "chat":
            raise ValueError(
                f"the prompt of the format {asked.name!r} is no chat, and a chat endpoint would put a chat template around it; "
                'use endpoint = "completions"'
            )
        if asked.asks == "chat" and self.format is not None and self.endpoint == "completions":
            raise ValueError(f'the format {asked.name!r} needs the chat template of its model; use endpoint = "chat"')
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price belong together; give both")
        if self.max_cost is not None and self.input_price is None:
            raise ValueError("max_cost needs input_price and output_price, the prices of a million tokens; give both")
        return self

    @property
    def chats(self) -> bool:
        """Whether the chat endpoint is used."""
        return (self.endpoint or ("chat" if self.asked.asks == "chat" else "completions")) == "chat"

    @property
    def output_limit(self) -> int:
        """The most tokens of an output."""
        return self.max_tokens or self.asked.max_tokens

    def key(self) -> str:
        """The key of the server, read from the environment now.

        Raises:
            InputError: if the variable is not set.
        """
        if self.api_key_env is None:
            return "none"
        found = os.environ.get(self.api_key_env, "").strip()
        if not found:
            raise InputError(
                f"the environment variable {self.api_key_env!r}, which the judge's file names, is not set; set it to the "
                "server's key"
            )
        return found
