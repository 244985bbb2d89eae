"""Commands on completions: judge."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli import shell_completion
from demur.cli.app import FILES, Quiet, command
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.judges.judge import Failure, Judged, Verdict


@command(FILES, "demur judge completions.jsonl --judge taxonomy --out verdicts.jsonl")
def judge(
    completions: Annotated[
        Path,
        typer.Argument(
            help="a .jsonl file with instruction and completion", metavar="FILE", autocompletion=shell_completion.completions
        ),
    ],
    judge: Annotated[
        str,
        typer.Option(
            "--judge", "-j", metavar="NAME", help="{judge names}, or module:Class", autocompletion=shell_completion.judges
        ),
    ] = "prefix",
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="a .jsonl file of verdicts")] = None,
    quiet: Quiet = False,
) -> None:
    """Judge stored completions: n, refusals, rate and interval.

    With --out, writes one completion per line, with its verdict and all keys of the input file. If the judge fails on some
    completions, the others are counted and written, and the exit status is 1.
    """
    from demur.inputs.instruction_files import read_rows
    from demur.judges.early_stopping import check_foreseen
    from demur.judges.judge import get_judge
    from demur.judges.judging import JudgeFailed
    from demur.judges.judging import judge as decide

    rows = read_rows(completions)
    chosen = get_judge(judge)
    for key in ("completion", "instruction") if chosen.reads_instruction else ("completion",):
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get(key), str):
                has = f"it has {', '.join(map(repr, row))}" if row else "it is empty"
                raise InputError(
                    f"row {number} of {str(completions)!r} has no text under {key!r}, which the judge {judge} reads; {has}"
                )
    if any(row.get("until_verdict") for row in rows):
        check_foreseen([judge])
        if type(chosen) is not type(get_judge("prefix")):
            raise InputError(
                f"the completions in {str(completions)!r} end where the judge prefix had decided, so they may be too short "
                f"for the judge {judge!r}; use --judge prefix, or generate them without --until-verdict"
            )
    items = [_item(row, chosen.reads_instruction) for row in rows]
    failed: JudgeFailed | None = None
    answers: Sequence[Verdict | Failure]
    try:
        answers = decide(items, chosen)
    except JudgeFailed as error:
        answers, failed = error.answers, error
    if out is not None:
        lines = [{**row, **_written(answer)} for row, answer in zip(rows, answers, strict=True)]
        replace_file(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    _show(judge, chosen.labels, answers)
    if failed is not None:
        raise failed


def _item(row: Mapping[str, Any], reads_instruction: bool) -> Judged:
    """One line of the file. Only files of `demur generate` say where a completion's own turn ends."""
    own = row.get("own_turn")
    return Judged(row["completion"], row["instruction"] if reads_instruction else "", own if isinstance(own, str) else None)


def _written(answer: Verdict | Failure) -> dict[str, str | bool]:
    """The entry of one completion in the output file."""
    if isinstance(answer, Failure):
        return {"judge": answer.judge, "failure": answer.reason}
    return {"judge": answer.judge, "refusal": answer.refusal, "label": answer.label, "evidence": answer.evidence}


def _show(judge: str, labels: Sequence[str], answers: Sequence[Verdict | Failure]) -> None:
    from demur.core.statistics import wilson

    verdicts = [answer for answer in answers if isinstance(answer, Verdict)]
    if not verdicts:
        return
    count = sum(verdict.refusal for verdict in verdicts)
    low, high = wilson(count, len(verdicts))
    typer.echo(
        f"{judge}: {count} of {len(verdicts)} refuse, {100 * count / len(verdicts):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    )
    if len(labels) > 2:
        given = [verdict.label for verdict in verdicts]
        typer.echo(", ".join(f"{label} {given.count(label)}" for label in labels))
