"""Sends one request by the `openai` client, and says of each failure whether it is worth another try, and after how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from demur.core.errors import InputError, short
from demur.judges.asked.model_judge import Reply
from demur.judges.served.server_settings import ServerSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_TRY_AGAIN = (408, 409, 429)
_USELESS = (401, 403, 404)
"""The server will refuse every other request as well."""


@dataclass
class Trouble(Exception):
    """A try that failed.

    Attributes:
        reason: why, in words.
        again: whether another try may help.
        wait: how many seconds the server asks to wait; None if it does not say.
        crowded: whether the server had too many requests.
        hopeless: whether all other requests would fail too.
    """

    reason: str
    again: bool = True
    wait: float | None = None
    crowded: bool = False
    hopeless: bool = False


def client_of(settings: ServerSettings) -> "AsyncOpenAI":
    """A client for the server. It tries each request once, because demur counts and times the tries itself.

    Raises:
        InputError: if the package is missing or the key is not set.
    """
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise InputError('a judge of kind "openai" needs the package openai; install demur[judges-api]') from error
    return AsyncOpenAI(api_key=settings.key(), base_url=settings.base_url, max_retries=0, timeout=settings.timeout_seconds)


async def send(client: "AsyncOpenAI", settings: ServerSettings, request: Mapping[str, JsonValue]) -> Reply:
    """Send a request once.

    Args:
        client: what `client_of` gives.
        settings: the judge's settings.
        request: the fields of the request.

    Returns:
        What the model answered.

    Raises:
        Trouble: for everything else.
    """
    import asyncio

    import openai

    # Any: the two endpoints take many typed fields, and the request is checked data.
    create: Any = client.chat.completions.create if settings.chats else client.completions.create
    try:
        # The client's own time limit starts anew with each piece of an answer, so a server could stall for ever.
        answer = await asyncio.wait_for(create(**request), settings.timeout_seconds)
    except (TimeoutError, openai.APITimeoutError) as error:
        raise Trouble(f"the server did not answer within {settings.timeout_seconds:g} seconds") from error
    except openai.APIStatusError as error:
        raise _refused(error, settings) from error
    except openai.APIConnectionError as error:
        raise Trouble(f"the server at {settings.base_url} cannot be reached, or closed the connection") from error
    except (openai.OpenAIError, ValueError) as error:  # an answer that is no JSON
        raise Trouble("the server answered with something that is not in the format of the OpenAI protocol") from error
    return _reply(answer, settings)


def _refused(error: Any, settings: ServerSettings) -> Trouble:
    status = int(error.status_code)
    said = _clean(str(getattr(error, "message", error)), settings)
    reason = f"the server answered with status {status}: {said}"
    again = status in _TRY_AGAIN or status >= 500
    wait = wait_asked(error.response.headers) if again else None
    return Trouble(reason, again, wait, crowded=status == 429, hopeless=status in _USELESS)


def _clean(text: str, settings: ServerSettings) -> str:
    """A server's message on one line, without the key: some servers repeat the key that they refuse."""
    key = settings.key()
    said = " ".join(text.split())
    # A key of few letters would be found inside ordinary words, and no server has such keys.
    return short(said.replace(key, "[key]") if settings.api_key_env is not None else said, 200)


def wait_asked(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The seconds that a server asks to wait, in `retry-after-ms` or `Retry-After` (seconds or a date); None if it does not.

    Args:
        headers: the headers of its answer.
        now: the time now; the clock's unless given.
    """
    try:
        if (thousandths := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(thousandths) / 1000)
        if (asked := headers.get("retry-after")) is None:
            return None
        if asked.strip().replace(".", "", 1).isdigit():
            return float(asked)
        return max(0.0, (parsedate_to_datetime(asked) - (now or datetime.now(UTC))).total_seconds())
    except (ValueError, TypeError, OverflowError):  # nonsense in a header is no wait
        return None


def _reply(answer: Any, settings: ServerSettings) -> Reply:
    try:
        choice = answer.choices[0]
        text = choice.message.content if settings.chats else choice.text
        stopped = choice.finish_reason
    except (AttributeError, IndexError, TypeError) as error:
        raise Trouble("the server answered with something that is not in the format of the OpenAI protocol") from error
    if stopped == "content_filter":
        raise Trouble("the server's content filter withheld the answer", again=False)
    if not isinstance(text, str) or not text.strip():
        # An empty answer is no label. Some tools score it as one.
        raise Trouble("the server answered with an empty text")
    usage, model = getattr(answer, "usage", None), getattr(answer, "model", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) else None for count in counts)
    return Reply(_hidden(text, settings), str(model or settings.model), read, written)


def _hidden(text: str, settings: ServerSettings) -> str:
    return text if settings.api_key_env is None else text.replace(settings.key(), "[key]")
