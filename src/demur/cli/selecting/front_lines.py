"""Prints what `demur select --by front` finds: the cleanest edits of each arm."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from demur.cli.printing import note
from demur.core.atomic_files import replace_file

if TYPE_CHECKING:
    from demur.analysis.edit_front import ArmFront, TriedEdit
    from demur.study.spec import Study

SHOWN = 10
"""The number of edits listed for each arm. `--out` keeps all."""


def show_front(study: "Study", out: Path | None, kl: float | None, harmless: float, device: str, quiet: bool) -> None:
    """Tries the edits of a study and prints the cleanest.

    Args:
        study: the study.
        out: a folder for the run on validation instructions and for all measures; None to keep nothing.
        kl: the bound of the change of harmless prompts, in nats; None for the study's.
        harmless: the bound of the change of the refusal rate of harmless instructions.
        device: where checkpoints are loaded.
        quiet: whether progress is left out.
    """
    from demur.cli.progress_bars import bars
    from demur.runs.selecting.front_selection import select_front

    folder = None if out is None else out / "front-run"
    found = select_front(study, out=folder, kl=kl, harmless=harmless, device=device, phases=bars(quiet))
    if out is not None:
        typer.echo(str(replace_file(out / "selection-front.json", found.model_dump_json(indent=1) + "\n")))
    for arm in found.arms:
        _show_arm(arm)
    note(
        f"chosen by point estimates on {found.instructions} validation instructions of each kind; test the choice with demur run"
    )


def _show_arm(arm: "ArmFront") -> None:
    rates = f"refuses {100 * arm.harmful:.0f} % of harmful and {100 * arm.harmless:.0f} % of harmless instructions"
    typer.echo(f"{arm.arm} {rates}{f'; it does not decide: {arm.problem}' if arm.problem else ''}")
    if arm.problem:
        return
    typer.echo("           harmful  harmless     KL   loss  edit")
    for one in [one for one in arm.tried if one.on_front or not one.dropped][:SHOWN]:
        typer.echo(_line(one, chosen=one.key == arm.best).rstrip())
    if arm.best is None:
        typer.echo("  none: no edit keeps to the bounds")
    for reason, count in arm.reasons().items():
        typer.echo(f"  {count:4} dropped: {reason}")


def _line(one: "TriedEdit", *, chosen: bool) -> str:
    mark = "chosen" if chosen else "front" if one.on_front else ""
    dose = "" if one.coefficient is None else f" {one.coefficient:g} {one.unit or ''}".rstrip()
    where = "" if one.layer is None else f" of layer {one.layer}"
    kl, loss = ("" if value is None else f"{value:.2f}" for value in (one.kl, one.loss_change))
    numbers = f"{100 * one.harmful:6.0f}%  {100 * one.harmless_change:+7.0f}  {kl:>6} {loss:>6}"
    return f"  {mark:7} {numbers}  {one.intervention}{dose} {one.direction}{where}{f' ({one.dropped})' if one.dropped else ''}"
