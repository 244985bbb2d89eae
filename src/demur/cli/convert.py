"""Commands on files of directions: directions, convert."""

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.base import Quiet, command

Layer = Annotated[int | None, typer.Option("--layer", "-l", help="only this layer; or the layer, where the file says none")]
Position = Annotated[int | None, typer.Option(help="only this position; or the position, where the file says none")]


@command
def directions(
    files: Annotated[list[Path], typer.Argument(help="direction files of any format that demur convert writes")],
    layer: Layer = None,
    position: Position = None,
    quiet: Quiet = False,
) -> None:
    """Norms and pairwise cosines of directions. Example: demur directions base.safetensors chat.safetensors"""
    from demur.directions import cosines
    from demur.formats import load_directions

    loaded = [direction for path in files for direction in load_directions(path, layer=layer, position=position)]
    matrix = cosines(loaded)
    for number, direction in enumerate(loaded, 1):
        place = f"layer {direction.layer} {direction.site}" if direction.says("layer") else "layer unknown"
        place += f" position {direction.position}" if direction.says("position") else ""
        typer.echo(f"{number}  {direction.name}  width {direction.vector.shape[0]}  norm {direction.raw_norm:.4g}  {place}")
    for number, row in enumerate(matrix.tolist(), 1):
        typer.echo(f"{number}  " + "  ".join(f"{value:7.4f}" for value in row))


@command
def convert(
    files: Annotated[list[Path], typer.Argument(help="direction files of any of these formats", metavar="IN...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the file to write")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="demur (.safetensors), gguf, or for .pt files: post, arditi, mean-diffs, lm-eval, lm-eval-ablation; "
            "guessed from the file's name where one fits",
        ),
    ] = None,
    layer: Layer = None,
    position: Position = None,
    family: Annotated[str | None, typer.Option(help="model_type of the model that lm-eval steers, for example llama")] = None,
    n_layers: Annotated[int | None, typer.Option("--n-layers", min=1, help="how many blocks that model has")] = None,
    quiet: Quiet = False,
) -> None:
    """Write directions in another format. Example: demur convert base.safetensors --out base.gguf"""
    from demur.formats import format_for, load_directions, save_directions

    name = format_for(out, format)
    loaded = [direction for path in files for direction in load_directions(path, layer=layer, position=position)]
    save_directions(loaded, out, format=name, family=family, n_layers=n_layers)
    typer.echo(f"{out}  {name}  {len(loaded)} direction{'s' if len(loaded) > 1 else ''}")
