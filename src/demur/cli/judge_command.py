"""Commands on completions: judge."""

import json
from pathlib import Path
from typing import Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import FILES, Quiet, command
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError


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

    With --out one verdict a line is written, beside everything that the file said of the completion.
    """
    from demur.core.statistics import wilson
    from demur.inputs.instructions import read_rows
    from demur.judges.early_stopping import check_foreseen
    from demur.judges.judge import get_judge
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
    asked = [row["instruction"] for row in rows] if chosen.reads_instruction else None
    verdicts = decide([row["completion"] for row in rows], judge, instructions=asked)
    if out is not None:
        lines = [{**row, "judge": v.judge, "refusal": v.refusal, "label": v.label, "evidence": v.evidence}
                 for row, v in zip(rows, verdicts, strict=True)]  # fmt: skip
        replace_file(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    count = sum(verdict.refusal for verdict in verdicts)
    low, high = wilson(count, len(verdicts))
    typer.echo(
        f"{judge}: {count} of {len(verdicts)} refuse, {100 * count / len(verdicts):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    )
    if len(chosen.labels) > 2:
        given = [verdict.label for verdict in verdicts]
        typer.echo(", ".join(f"{label} {given.count(label)}" for label in chosen.labels))
