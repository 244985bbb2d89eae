"""Responses of OpenAI's API, one a line: the output of a batch, and plain response objects.

Source: platform.openai.com/docs, Batch API (`custom_id`, `response.body`, `error`), Chat Completions (`choices[].message`),
Completions (`choices[].text`) and Responses (`output[].content[]`). The requests are in another file, so the instructions are not
known. A refusal that the API reports beside the text (`message.refusal`) is the completion where there is no text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from demur.inputs.completions.completion_rows import CompletionRow, CompletionRows, Json, left_out
from demur.inputs.conversations import content_text

_BODIES = ("choices", "output")


def fits(rows: Sequence[Json]) -> bool:
    """Whether these are the lines of a batch's output, or responses."""
    return all(isinstance(row, dict) and (_is_batch(row) or _is_body(row)) for row in rows)


def read(rows: Sequence[Json]) -> CompletionRows:
    """The completions; a response with several choices gives several."""
    found: list[CompletionRow] = []
    reasons: Counter[str] = Counter()
    filtered = 0
    for row in rows:
        body, reason = _body(row)
        texts = _texts(body)
        filtered += any(
            isinstance(one, dict) and one.get("finish_reason") == "content_filter" for one in body.get("choices") or ()
        )
        if not any(text is not None for text in texts):
            reasons[reason or "without text"] += 1
        for number, text in enumerate(texts):
            if text is not None:
                found.append(CompletionRow(text, None, {"id": row.get("custom_id", row.get("id")), "sample": number}))
    notes = left_out(reasons, len(rows))
    if filtered:
        notes += (f"{filtered} of {len(rows)} entries were cut by the API's content filter",)
    return CompletionRows("an OpenAI batch output", tuple(found), notes)


def _is_batch(row: Mapping[str, Json]) -> bool:
    return "custom_id" in row and "response" in row


def _is_body(row: Mapping[str, Json]) -> bool:
    return row.get("object") in ("chat.completion", "text_completion", "response") and any(key in row for key in _BODIES)


def _body(row: Mapping[str, Json]) -> tuple[Mapping[str, Json], str | None]:
    """The response object, and the reason if the request failed."""
    if not _is_batch(row):
        return row, None
    response = row["response"] if isinstance(row["response"], dict) else {}
    body = response.get("body")
    if row.get("error") or response.get("status_code", 200) != 200 or not isinstance(body, dict) or body.get("error"):
        return {}, "failed requests"
    return body, None


def _texts(body: Mapping[str, Json]) -> list[str | None]:
    if isinstance(body.get("choices"), list):
        return [_choice(choice) for choice in body["choices"] if isinstance(choice, dict)]
    if isinstance(body.get("output"), list):
        parts = [
            part
            for item in body["output"]
            if isinstance(item, dict) and item.get("type") == "message"
            for part in item.get("content") or ()
            if isinstance(part, dict)
        ]
        texts = [part.get("text") or part.get("refusal") for part in parts]
        return ["".join(text for text in texts if isinstance(text, str))] if parts else []
    return []


def _choice(choice: Mapping[str, Json]) -> str | None:
    message = choice.get("message")
    if not isinstance(message, dict):
        return choice["text"] if isinstance(choice.get("text"), str) else None
    text = content_text(message.get("content"))
    return text or (message["refusal"] if isinstance(message.get("refusal"), str) else text)
