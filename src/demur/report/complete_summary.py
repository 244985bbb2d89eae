"""Completes summaries of earlier versions.

Missing words for edits, actions of cells, labels of judges and facts of claims are filled in here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any

from demur.analysis.cell import JudgedCell
from demur.analysis.summary import Summary
from demur.core.edit_words import EditWords
from demur.interventions.edit_kind import action_of, edit_kind
from demur.judges.judge import get_judge


# Any: JSON of any version, which this function checks.
def parsed_summary(facts: Mapping[str, Any]) -> Summary:
    """The typed summary from the content of `summary.json`, which an earlier version may have written.

    Args:
        facts: the parsed JSON. Its form is not known before it has been checked here, hence `Any`.

    Returns:
        The summary with everything that a report needs.

    Raises:
        InputError: if it names a kind of edit or a judge that is neither described in it nor installed.
    """
    claims = [{"id": "", "verdict": "supported" if each["shown"] else "not shown", **each} for each in facts.get("claims", [])]
    return completed(Summary.model_validate({**facts, "claims": claims}))


def completed(summary: Summary) -> Summary:
    """The summary with words for every edit, an action in every edited cell and the labels of every judge.

    Args:
        summary: a summary of this or an earlier version.

    Returns:
        The same summary if nothing is missing. Missing parts are taken from the kinds of edits and judges that are installed. The
        words for edits are in reading order: edits at the direction's own layer come before edits at every layer. Otherwise the
        summary's order is kept.

    Raises:
        InputError: if one of them is not installed.
    """
    kinds = dict.fromkeys(cell.intervention for cell in summary.cells if cell.edited and not _described(cell, summary.edits))
    missing: list[EditWords] = [words for kind in kinds for words in edit_kind(kind).words]
    ordered = sorted((*summary.edits.values(), *missing), key=lambda words: not words.own_layer)
    unlabelled = dict.fromkeys(cell.judge for cell in summary.cells if cell.judge not in summary.judge_labels)
    unnamed = any(cell.edited and not cell.action for cell in summary.cells)
    if not (unlabelled or unnamed) and ordered == list(summary.edits.values()):
        return summary
    return summary.model_copy(
        update={
            "edits": {words.action: words for words in ordered},
            "cells": tuple(_with_action(cell) for cell in summary.cells),
            "judge_labels": {**summary.judge_labels, **{name: get_judge(name).labels for name in unlabelled}},
        }
    )


def _described(cell: JudgedCell, known: Mapping[str, EditWords]) -> bool:
    # If a study names a kind as `module:Class`, its cells have that name and its words have another. Both have the same action.
    return cell.action in known if cell.action else cell.intervention in {words.kind for words in known.values()}


def _with_action(cell: JudgedCell) -> JudgedCell:
    if not cell.edited or cell.action:
        return cell
    return cell.model_copy(update={"action": action_of(edit_kind(cell.intervention), cell.coefficient, cell.settings)})
