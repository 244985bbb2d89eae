"""Commands on files: judge, directions."""

import json
from pathlib import Path
from typing import Annotated

import typer

from demur.cli.base import Quiet, command
from demur.errors import InputError
from demur.files import replace_file


@command
def judge(
    completions: Annotated[Path, typer.Argument(help="a .jsonl file with instruction and completion")],
    judge: Annotated[str, typer.Option("--judge", "-j", help="prefix or substring")] = "prefix",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="verdicts.jsonl")] = None,
    quiet: Quiet = False,
) -> None:
    """Judge stored completions: prints n, refusals, rate and interval, and writes one verdict a line with --out."""
    from demur.instructions import read_rows
    from demur.judges import judge as decide
    from demur.statistics import wilson

    rows = read_rows(completions)
    missing = next((n for n, row in enumerate(rows, 1) if not isinstance(row.get("completion"), str)), None)
    if missing is not None:
        raise InputError(f"row {missing} of {str(completions)!r} has no text under 'completion'")
    verdicts = decide([row["completion"] for row in rows], judge)
    if out is not None:
        lines = [{**row, "judge": v.judge, "refusal": v.refusal, "label": v.label, "evidence": v.evidence}
                 for row, v in zip(rows, verdicts, strict=True)]  # fmt: skip
        replace_file(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    count = sum(verdict.refusal for verdict in verdicts)
    low, high = wilson(count, len(verdicts))
    typer.echo(
        f"{judge}: {count} of {len(verdicts)} refuse, {100 * count / len(verdicts):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    )


@command
def directions(
    files: Annotated[list[Path], typer.Argument(help="direction files: .safetensors, or .pt with one tensor")],
    quiet: Quiet = False,
) -> None:
    """Norms and pairwise cosines of directions. Example: demur directions base.safetensors chat.safetensors"""
    from demur.directions import cosines, load_direction

    loaded = [load_direction(path) for path in files]
    matrix = cosines(loaded)
    for number, direction in enumerate(loaded, 1):
        place = f"layer {direction.layer} {direction.site}" if direction.provenance.get("file") is None else "layer unknown"
        typer.echo(f"{number}  {direction.name}  width {direction.vector.shape[0]}  norm {direction.raw_norm:.4g}  {place}")
    for number, row in enumerate(matrix.tolist(), 1):
        typer.echo(f"{number}  " + "  ".join(f"{value:7.4f}" for value in row))
