"""Commands that help to choose a direction and to check what it does: select, loss, equivalence."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import (
    CHECKPOINTS,
    STUDIES,
    Adapter,
    Device,
    DirectionFile,
    DType,
    Model,
    Quantise,
    Quiet,
    Settings,
    StudyName,
    command,
)
from demur.cli.asked_instructions import asked_instructions
from demur.cli.printing import note
from demur.cli.selecting.front_lines import show_front
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError, nearest
from demur.measurements.selection.criteria import CRITERIA, FRONT

if TYPE_CHECKING:
    from demur.interventions.intervention import Intervention
    from demur.measurements.selection.ranking import Scored, Selection
    from demur.runs.selecting.place_selection import Chosen
    from demur.study.spec import Study

BEST = 5
"""The number of places listed for each arm."""


@command(
    STUDIES,
    "demur select demo",
    "demur select mine.toml --by arditi --out selected",
)
def select(
    study: StudyName,
    by: Annotated[
        str,
        typer.Option("--by", metavar="CRITERION", help=f"one of {', '.join(CRITERIA)}", autocompletion=shell_completion.criteria),
    ] = "effect",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="folder for all scores and the chosen directions")
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option("--kl", metavar="NATS", help="front: most change of the next token after harmless instructions"),
    ] = None,
    harmless: Annotated[
        float, typer.Option("--harmless", metavar="SHARE", help="front: most change of the refusal rate of harmless instructions")
    ] = 0.1,
    set_: Settings = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Choose layer, position and dose, on validation instructions.

    Candidates are read at the input of each layer. effect measures what the study's edits do, and chooses doses too.
    front compares all edits, estimators and layers of the study, and chooses the one that leaves the fewest refusals and does
    little else. The other criteria choose one place for each arm, and one for all arms. effect, front and arditi need a
    checkpoint that refuses.
    """
    from demur.study.preflight import told_of_instructions
    from demur.study.study_files import load_study

    loaded = load_study(study, list(set_ or ()))

    for warning in told_of_instructions(loaded):
        note(warning)
    if by == "effect":
        _by_effect(study, loaded, set_ or (), out, device, quiet)
        return
    if by == FRONT:
        show_front(loaded, out, kl, harmless, device, quiet)
        return
    _by_place(study, loaded, by, set_ or (), out, device, quiet)


def _by_place(name: str, study: "Study", by: str, settings: Sequence[str], out: Path | None, device: str, quiet: bool) -> None:
    """Selects a place for each arm and one for all of them by a criterion that does not look at edits, and prints them."""
    from demur.cli.progress_bars import bars
    from demur.runs.selecting.place_selection import choose, joint

    chosen = []
    for one in choose(study, by, device=device, phases=bars(quiet)):
        chosen.append(one)
        _show_arm(one, study, out)
    if out is not None:
        text = json.dumps([one.facts() for one in chosen], indent=1, ensure_ascii=False)
        typer.echo(str(replace_file(out / f"selection-{by}.json", text + "\n")))
    together = joint(chosen)
    if len(chosen) > 1:
        typer.echo("best common place (where the lowest score of any arm is highest)")
        if together is None:
            typer.echo("  none, because an arm has no selection")
        else:
            _list(together)
    if together is not None and together.best is not None:
        if by == "arditi":
            typer.echo(
                "  a run makes its directions from all training instructions, so they differ slightly from those scored here"
            )
        typer.echo(f"  {_run_there(name, settings, together.best, study.direction.site)}")


def _by_effect(name: str, study: "Study", settings: Sequence[str], out: Path | None, device: str, quiet: bool) -> None:
    """Selects layer and doses by what the study's edits do, and prints what was measured."""
    from demur.cli.progress_bars import bars
    from demur.runs.selecting.open_selection import select_everything
    from demur.study.study_files import intervention_numbers

    found = select_everything(study, intervention_numbers(name, settings), device=device, phases=bars(quiet))
    if out is not None:
        typer.echo(str(replace_file(out / "selection-effect.json", found.model_dump_json(indent=1) + "\n")))
    for arm in found.arms:
        rates = f"refuses {100 * arm.harmful:.0f} % of harmful and {100 * arm.harmless:.0f} % of harmless instructions"
        typer.echo(f"{arm.arm} {rates}{f'; it does not decide: {arm.problem}' if arm.problem else ''}")
    typer.echo("           position  layer  log-odds  refusals  damage")
    for number, place in enumerate(found.places[:BEST]):
        change = "" if place.change is None else f"{100 * place.change:+.0f}"
        row = f"{place.position:8}  {place.layer:5}  {100 * place.share:+7.0f}%  {change:>8}  {place.kl:6.2f}"
        typer.echo(f"  {'' if number else 'chosen':7}  {row}  {place.dropped}".rstrip())
    for dose in found.doses:
        mark = "chosen" if found.coefficients.get(dose.intervention) == dose.coefficient else ""
        typer.echo(f"  {mark:7}  {dose.kind} {dose.coefficient:g} {dose.unit}: refusals {100 * dose.change:+.0f} points")
    for told in found.notes:
        typer.echo(f"Note: {told}")
    chosen = {"direction.layers": f"[{found.layer}]", "direction.position": str(found.position)}
    chosen |= {f"interventions.{number}.coefficient": f"{dose:g}" for number, dose in found.coefficients.items()}
    typer.echo(f"  {_run_with(name, settings, chosen)}")


def _show_arm(one: "Chosen", study: "Study", out: Path | None) -> None:
    """Prints the selection of one arm, or why there is none; saves the chosen direction if a folder is given."""
    typer.echo(one.arm)
    if one.selection is None:
        typer.echo(f"  {one.problem}")
        return
    if one.tokens is not None:
        texts = ", ".join(repr(text) for text in one.tokens.texts)
        typer.echo(
            f"  refusal tokens {texts}: {100 * one.tokens.coverage:.0f} % of refusals begin with one of these tokens; "
            f"{100 * one.tokens.precision:.0f} % of completions that begin with one are refusals"
        )
    if one.kept is not None:
        counts = f"{one.kept[0]} harmful and {one.kept[1]} harmless instructions of {study.direction.pairs} each"
        typer.echo(f"  candidates are made from {counts}: harmful ones that were refused and harmless ones that were answered")
    _list(one.selection)
    best = one.direction()
    if out is not None and best is not None:
        typer.echo(f"  {best.save(out / (one.arm.replace('/', '.') + '.safetensors'))}")


def _run_there(study: str, settings: Sequence[str], place: "Scored", site: str) -> str:
    """The command that runs the study with its directions read at a place."""
    chosen = {"direction.position": str(place.position), "direction.layers": str(place.layer)}
    if site != "resid_pre":
        chosen["direction.site"] = "resid_pre"  # where candidates are read
    return _run_with(study, settings, chosen)


def _run_with(study: str, settings: Sequence[str], chosen: Mapping[str, str]) -> str:
    """The command that runs a study with its settings and the chosen ones, which replace settings of the same key."""
    kept = [setting for setting in settings if setting.partition("=")[0] not in chosen]
    sets = [*kept, *(f"{key}={value}" for key, value in chosen.items())]
    return shlex.join(["demur", "run", study, *(word for setting in sets for word in ("--set", setting))])


def _list(selection: "Selection") -> None:
    for rank, place in enumerate(selection.kept[:BEST]):
        measures = "  ".join(f"{name} {value:.3f}" for name, value in place.measures.items())
        typer.echo(f"  {'chosen' if rank == 0 else '      '}  position {place.position:3}  layer {place.layer:3}  {measures}")
    if selection.best is None:
        typer.echo("  no place is valid")
    for reason, count in selection.reasons().items():
        typer.echo(f"  {count:4} dropped: {reason}")


@command(
    CHECKPOINTS,
    "demur loss -m demo:smollm2-135m-instruct -t texts.txt -d after.safetensors",
)
def loss(
    model: Model,
    texts: Annotated[
        str, typer.Option("--texts", "-t", metavar="FILE", help="a .txt, .csv, .jsonl file of texts, or file:column")
    ],
    direction: Annotated[
        list[Path],
        typer.Option(
            "--direction",
            "-d",
            metavar="FILE",
            help="a direction file; may be repeated",
            autocompletion=shell_completion.directions,
        ),
    ],
    adapter: Adapter = None,
    add: Annotated[float, typer.Option("--add", metavar="NUMBER", help="add this multiple of the direction")] = -1.0,
    unit: Annotated[str, typer.Option(metavar="UNIT", help="what a NUMBER of 1 adds: raw or unit")] = "raw",
    layer: Annotated[
        int | None, typer.Option("--layer", "-l", metavar="N", help="layer where it is added, instead of the direction's own")
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="read at most this many tokens of a text")] = 256,
    device: Device = "auto",
    dtype: DType = "float32",
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Measure the damage of an edit: the loss on texts.

    Prints the cross-entropy in nats a token: without an edit, and with each direction ablated and added. The second column is the
    change.
    """
    import demur
    from demur.cli.progress_bars import bars

    if unit not in ("raw", "unit"):
        raise InputError(f"{unit!r} is not a unit for demur loss; {nearest(unit, ('raw', 'unit'))}")
    found = asked_instructions(texts).take("test")
    edits: list[Intervention | None] = [None]
    names = ["none"]
    for path in direction:
        loaded = demur.load_direction(path)
        edits += [demur.ablate(loaded), demur.add(loaded, add, unit=unit, layers=None if layer is None else [layer])]
        names += [f"ablate {loaded.name}", f"add {add:g} {unit} {loaded.name}"]
    checkpoint = demur.load_checkpoint(model, adapter=adapter, dtype=dtype, quantise=quantise, device=device)
    with bars(quiet)("texts", len(found) * len(edits)) as progress:
        losses = demur.text_losses(checkpoint, found, edits, max_tokens=max_tokens, progress=progress)
    for name, value in zip(names, losses, strict=True):
        typer.echo(f"{value.mean:8.4f}  {value.mean - losses[0].mean:+8.4f}  {value.tokens} tokens  {name}")


@command(
    CHECKPOINTS,
    "demur equivalence -m demo:smollm2-135m-instruct -d after.safetensors",
)
def equivalence(
    model: Model,
    direction: DirectionFile,
    adapter: Adapter = None,
    device: Device = "auto",
    dtype: DType = "float32",
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Check whether ablation equals editing the weights.

    Compares ablation by hooks with orthogonalised weights. Only a copy in memory is edited; the checkpoint is not changed.
    """
    import demur

    loaded = demur.load_direction(direction)
    checkpoint = demur.load_checkpoint(model, adapter=adapter, dtype=dtype, quantise=quantise, device=device)
    found = demur.equivalence(checkpoint, loaded)
    typer.echo(f"ablation changes logits by up to {found.effect:.3g}; the largest logit is {found.largest_logit:.3g}")
    typer.echo(f"hooks and edited weights differ by up to {found.untied:.3g}")
    if found.tied is not None:
        typer.echo(f"the same with the unembedding edited too, because it shares the embedding's weights: {found.tied:.3g}")
    typer.echo(f"share of a block's output still along the direction: {found.left:.3g}")
    typer.echo(found.explanation)
