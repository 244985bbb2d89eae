"""Completes summaries of earlier versions: the only place where missing words for edits, actions, labels and claims are filled in."""

from collections.abc import Mapping
from typing import Any

from demur.analysis.summary import Summary
from demur.core.edit_words import EditWords
from demur.core.registry import registry
from demur.judges.judge import get_judge

_EARLIER = ("add", "ablate")
"""The kinds of edits that earlier versions knew, in the order in which their reports show them."""


def parsed_summary(facts: Mapping[str, Any]) -> Summary:
    """The typed summary of what `summary.json` holds, also where an earlier version wrote it.

    Args:
        facts: the parsed JSON. Its form is not known before it has been checked here, hence `Any`.

    Returns:
        The summary with everything that a report needs.

    Raises:
        InputError: where it names a kind of edit or a judge that is neither described in it nor installed.
    """
    claims = [{"id": "", "verdict": "supported" if each["shown"] else "not shown", **each} for each in facts.get("claims", [])]
    return completed(Summary.model_validate({**facts, "claims": claims}))


def completed(summary: Summary) -> Summary:
    """The summary with words for every edit, an action in every edited cell and the labels of every judge.

    Args:
        summary: a summary of this or an earlier version.

    Returns:
        The same summary where nothing is missing. What is missing is asked of the kinds of edits and judges that are installed.

    Raises:
        InputError: where one of them is not installed.
    """
    known = {words.kind for words in summary.edits.values()}
    kinds = dict.fromkeys(cell.intervention for cell in summary.cells if cell.edited and cell.intervention not in known)
    unlabelled = dict.fromkeys(cell.judge for cell in summary.cells if cell.judge not in summary.judge_labels)
    unnamed = any(cell.edited and not cell.action for cell in summary.cells)
    if not (kinds or unlabelled or unnamed):
        return summary
    missing: dict[str, EditWords] = {}
    for kind in sorted(kinds, key=lambda kind: _EARLIER.index(kind) if kind in _EARLIER else len(_EARLIER)):
        missing |= {words.action: words for words in registry("edit").get(kind).words}
    cells = [
        cell.model_copy(update={"action": registry("edit").get(cell.intervention).action(cell.coefficient)})
        if cell.edited and not cell.action
        else cell
        for cell in summary.cells
    ]
    labels = {name: get_judge(name).labels for name in unlabelled}
    return summary.model_copy(
        update={
            "edits": {**summary.edits, **missing},
            "cells": tuple(cells),
            "judge_labels": {**summary.judge_labels, **labels},
        }
    )
