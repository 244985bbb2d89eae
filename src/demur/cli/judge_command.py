"""Commands on completions: judge."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import FILES, MaxCost, Quiet, command
from demur.cli.printing import note
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError, WorkError
from demur.core.thought_marks import thought_at_end
from demur.judges.judge import UNPARSED, Failure, Judged, Verdict

if TYPE_CHECKING:
    from demur.inputs.completions.completion_files import CompletionFile
    from demur.judges.asked.model_outputs import OutputMemory
    from demur.judges.judge import Judge
    from demur.judges.judging import JudgeFailed


@command(
    FILES,
    "demur judge completions.jsonl --judge taxonomy --out verdicts.jsonl",
    "demur judge answers.csv --completion-column response --instruction-column prompt -j taxonomy",
)
def judge(
    completions: Annotated[
        Path,
        typer.Argument(
            help="a file with instruction and completion, or of another program, see docs/judges.md",
            metavar="FILE",
            autocompletion=shell_completion.completions,
        ),
    ],
    judge: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            "-j",
            metavar="NAME",
            help="{judge names}, module:Class, or a TOML file; prefix unless given; may be repeated",
            autocompletion=shell_completion.judges,
        ),
    ] = None,
    instruction_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="the column of the instructions, if it is not called instruction")
    ] = None,
    completion_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="the column of the completions, if it is not called completion")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="a .jsonl file of verdicts")] = None,
    max_cost: MaxCost = None,
    quiet: Quiet = False,
) -> None:
    """Judge stored completions: n, refusals, rate and interval.

    With --out, writes one line for each completion and judge, with the verdict and all keys of the input file. If a judge fails
    on some completions, the others are counted and written, and the exit status is 1. Answers of a judge's model are kept in
    FILE.outputs as they come, and the same command goes on from there.
    """
    from demur.inputs.completions.completion_files import read_completions
    from demur.judges.judging import check_judge, limited

    chosen = {name: limited(check_judge(name), max_cost) for name in dict.fromkeys(judge or ["prefix"])}
    reading = [name for name, one in chosen.items() if one.reads_instruction]
    found = read_completions(
        completions,
        instruction_column=instruction_column,
        completion_column=completion_column,
        asks=f"the judge {reading[0]}" if reading else None,
    )
    for text in found.notes:
        note(text)
    if any(row.get("until_verdict") for row in found.rows):
        for name in chosen:
            _refuse_short(completions, name)
    answers, failures = _answers(found, chosen, _kept(out))
    if out is not None:
        _write(out, found, answers)
    for name, given in answers.items():
        _show(chosen[name].name if name.endswith(".toml") else name, chosen[name].labels, given)
    if len(failures) > 1:
        raise WorkError("; ".join(map(str, failures)))
    for failed in failures:
        raise failed


def _kept(out: Path | None) -> "OutputMemory | None":
    """The outputs of models that are kept beside the output file; None without one."""
    from demur.judges.asked.output_file import OutputFile

    if out is None:
        return None
    kept = OutputFile(out.with_name(out.name + ".outputs"))
    if kept.outputs:
        note(f"{len(kept.outputs):,} outputs of before are in {str(kept.path)!r}; what they answer is not asked again")
    return kept


def _answers(
    found: "CompletionFile", chosen: "Mapping[str, Judge]", kept: "OutputMemory | None"
) -> "tuple[dict[str, Sequence[Verdict | Failure]], list[JudgeFailed]]":
    """What each judge says of each completion, and the failures of judges that failed on some."""
    from demur.judges.judge import answers as decide
    from demur.judges.judging import JudgeFailed

    answers: dict[str, Sequence[Verdict | Failure]] = {}
    failures = []
    for name, one in chosen.items():
        answers[name] = decide(one, _items(found, one.reads_instruction), kept)
        if any(isinstance(answer, Failure) for answer in answers[name]):
            failures.append(JudgeFailed(one, answers[name]))
    return answers, failures


def _items(found: "CompletionFile", reads_instruction: bool) -> list[Judged]:
    """The completions as a judge gets them. Only files of `demur generate` say where a completion's own turn ends."""
    items = []
    for row, text, asked in zip(found.rows, found.completions, found.instructions, strict=True):
        own = row.get("own_turn") if row.get("completion") == text else None
        prompt = row.get("prompt")
        thought = thought_at_end(prompt) if isinstance(prompt, str) else ""
        items.append(Judged(text, (asked or "") if reads_instruction else "", own if isinstance(own, str) else None, thought))
    return items


def _refuse_short(completions: Path, judge: str) -> None:
    """Refuse a judge other than prefix for completions that end where prefix had decided."""
    from demur.judges.early_stopping import check_foreseen
    from demur.judges.judge import get_judge

    check_foreseen([judge])
    if type(get_judge(judge)) is not type(get_judge("prefix")):
        raise InputError(
            f"the completions in {str(completions)!r} end where the judge prefix had decided, so they may be too short "
            f"for the judge {judge!r}; use --judge prefix, or generate them without --until-verdict"
        )


def _write(out: Path, found: "CompletionFile", answers: "Mapping[str, Sequence[Verdict | Failure]]") -> None:
    """Write one line for each completion and judge."""
    lines = [{**row, **_written(given[place])} for place, row in enumerate(found.rows) for given in answers.values()]
    replace_file(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _written(answer: Verdict | Failure) -> dict[str, str | bool | None]:
    """The entry of one completion in the output file."""
    if isinstance(answer, Failure):
        return {"judge": answer.judge, "failure": answer.reason}
    found: dict[str, str | bool | None] = {
        "judge": answer.judge,
        "refusal": answer.refusal,
        "label": answer.label,
        "evidence": answer.evidence,
    }
    if answer.output is None:
        return found
    # An output without a label says nothing about refusal.
    called = None if answer.label == UNPARSED else answer.refusal
    return {**found, "refusal": called, "output": answer.output.text, "model": answer.output.model}


def _show(judge: str, labels: Sequence[str], answers: Sequence[Verdict | Failure]) -> None:
    from demur.core.statistics import wilson

    given = [answer for answer in answers if isinstance(answer, Verdict)]
    verdicts = [answer for answer in given if answer.label != UNPARSED]
    if len(verdicts) < len(given):
        note(f"{judge}: no label can be read in {len(given) - len(verdicts):,} of {len(given):,} outputs; they are in no rate")
    if not verdicts:
        return
    count = sum(verdict.refusal for verdict in verdicts)
    low, high = wilson(count, len(verdicts))
    typer.echo(
        f"{judge}: {count} of {len(verdicts)} refuse, {100 * count / len(verdicts):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    )
    if len(labels) > 2:
        counted = [verdict.label for verdict in given]
        typer.echo(", ".join(f"{label} {counted.count(label)}" for label in labels))
