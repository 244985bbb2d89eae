"""Logs of Inspect: `.json`, and `.eval`, which is a zip archive with one JSON file for each sample.

Source: UKGovernmentBEIS/inspect_ai, log/_log.py (EvalLog, EvalSample), log/_recorders/eval.py (the archive) and log/_condense.py
(`attachment://` in place of long texts). A sample has an id, an epoch, an input, and an output with choices.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from demur.core.errors import InputError
from demur.inputs.completions.completion_rows import CompletionRow, CompletionRows, Json, left_out
from demur.inputs.conversations import content_text, conversation

_ATTACHED = "attachment://"
_MOST_BYTES = 4 * 2**30
"""An archive whose samples unpack to more is refused."""


def fits(found: Json) -> bool:
    """Whether this is the content of a log in JSON."""
    return isinstance(found, dict) and "eval" in found and "status" in found and isinstance(found.get("version"), int)


def read(found: Mapping[str, Json]) -> CompletionRows:
    """The completions of a log in JSON."""
    samples = found.get("samples")
    return _rows(samples if isinstance(samples, list) else [], found["status"])


def read_archive(path: Path) -> CompletionRows:
    """The completions of an `.eval` file.

    Raises:
        InputError: for a file that is not such an archive, and for one that this version of Python cannot unpack.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.startswith("samples/")]
            if sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise InputError(f"{str(path)!r} unpacks to more than {_MOST_BYTES >> 30} GiB; convert a part of it to .json")
            status = (
                json.loads(archive.read("header.json")).get("status") if "header.json" in archive.namelist() else "unfinished"
            )
            return _rows(_samples(archive, entries), status)
    except NotImplementedError as error:
        raise InputError(
            f"{str(path)!r} is packed in a way that this Python cannot unpack ({error}); convert it with inspect log convert "
            "--to json"
        ) from error
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a log of Inspect: {error}") from error


def _samples(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> Iterator[Json]:
    for entry in entries:
        yield json.loads(archive.read(entry))


def _rows(samples: Iterator[Json] | Sequence[Json], status: Json) -> CompletionRows:
    rows: list[CompletionRow] = []
    reasons: Counter[str] = Counter()
    seen = 0
    for sample in samples:
        seen += 1
        choices = (sample.get("output") or {}).get("choices") or []
        asked = _asked(sample)
        attached = sample.get("attachments") or {}
        texts = [_resolved(content_text((choice.get("message") or {}).get("content")), attached) for choice in choices]
        if sample.get("error") or not any(text is not None for text in texts):
            reasons["with an error" if sample.get("error") else "without a text"] += 1
            continue
        for number, text in enumerate(texts):
            if text is not None:
                facts = {"id": sample.get("id"), "epoch": sample.get("epoch"), "sample": number}
                rows.append(CompletionRow(text, _resolved(asked, attached), facts))
    notes = left_out(reasons, seen)
    if status != "success":
        notes += (f"the log's status is {status!r}, so samples may be missing",)
    return CompletionRows("a log of Inspect", tuple(rows), notes)


def _asked(sample: Mapping[str, Json]) -> str | None:
    """The input, if it is a text or one turn of the user; of a conversation, the last turn that is the user's."""
    given = sample.get("input")
    if isinstance(given, str):
        return given
    turns = [turn for turn in given or () if isinstance(turn, dict) and turn.get("role") == "user"]
    found = conversation(turns[-1:])
    return None if found is None else found.request


def _resolved(text: str | None, attached: Mapping[str, Json]) -> str | None:
    """A text, which may be an attachment of its sample; None if the sample does not have it."""
    if text is None or not text.startswith(_ATTACHED):
        return text
    found = attached.get(text.removeprefix(_ATTACHED))
    return found if isinstance(found, str) else None
