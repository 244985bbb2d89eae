"""Samples of lm-evaluation-harness (`samples_TASK_DATE.jsonl`, written with `--log_samples`).

Source: EleutherAI/lm-evaluation-harness, lm_eval/evaluator.py and lm_eval/loggers/evaluation_tracker.py. `resps` holds for each
request the raw texts of its repeats, `arguments` the prompt. A task with several filters writes each document once for each of
them, with the same `resps`; they are read once. Requests for log-likelihoods have no text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from demur.core.errors import InputError
from demur.inputs.completions.completion_rows import CompletionRow, CompletionRows, Json, left_out
from demur.inputs.conversations import conversation


def fits(rows: Sequence[Json]) -> bool:
    """Whether these are samples of the harness."""
    return all(isinstance(row, dict) and {"doc_id", "resps", "arguments"} <= set(row) for row in rows)


def read(rows: Sequence[Json]) -> CompletionRows:
    """The completions; a document with several repeats gives several.

    Raises:
        InputError: if no document has a text, because the task asks for log-likelihoods.
    """
    first: dict[Json, Mapping[str, Json]] = {}
    for row in rows:
        first.setdefault((str(row["doc_id"]), str(row.get("doc_hash"))), row)
    found: list[CompletionRow] = []
    reasons: Counter[str] = Counter()
    for row in first.values():
        texts = [text for request in row["resps"] for text in (request if isinstance(request, list) else [request])]
        if not texts or not all(isinstance(text, str) for text in texts):
            reasons["with log-likelihoods in place of a text"] += 1
            continue
        prompt = _prompt(row["arguments"])
        found += [CompletionRow(text, prompt, {"doc_id": row["doc_id"], "sample": n}) for n, text in enumerate(texts)]
    if not found:
        raise InputError("the samples of lm-eval hold log-likelihoods and no texts; judge the samples of a task that generates")
    notes = left_out(reasons, len(first))
    if len(first) < len(rows):
        notes += (f"{len(rows)} samples are of {len(first)} documents, each written once for every filter; each is judged once",)
    return CompletionRows("samples of lm-eval", tuple(found), notes)


def _prompt(arguments: Json) -> str | None:
    """The prompt of the first request: `{"gen_args_0": {"arg_0": ...}}`, or a list of pairs in earlier versions."""
    first = next(iter(arguments.values()), None) if isinstance(arguments, dict) else next(iter(arguments or ()), None)
    prompt = first.get("arg_0") if isinstance(first, dict) else next(iter(first or ()), None)
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    turns = conversation(prompt)
    if turns is not None and not turns.left_out:
        return turns.request
    return prompt if isinstance(prompt, str) else None
