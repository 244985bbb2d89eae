"""Commands on files of directions: directions, convert."""

from pathlib import Path
from typing import Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import FILES, Quiet, command

Layer = Annotated[
    int | None,
    typer.Option("--layer", "-l", metavar="N", help="only this layer; or the layer to assume, if the file states none"),
]
Position = Annotated[
    int | None, typer.Option(metavar="N", help="only this position; or the position to assume, if the file states none")
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="axes of the tensor in a .pt file that does not tell them, such as layer,1,d_model: layer, layer_output, "
        "hidden_state, position, d_model, or 1 for an axis of length one",
    ),
]


@command(FILES, "demur directions base.safetensors chat.safetensors", "demur directions runs/demo/directions/*.safetensors")
def directions(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="direction files of any format that demur convert writes",
            metavar="FILE",
            autocompletion=shell_completion.directions,
        ),
    ],
    layer: Layer = None,
    position: Position = None,
    axes: Axes = None,
    quiet: Quiet = False,
) -> None:
    """Show norms and pairwise cosines of directions."""
    from demur.directions.direction import cosines
    from demur.directions.files.load_and_save import load_directions

    loaded = [direction for path in files for direction in load_directions(path, layer=layer, position=position, axes=axes)]
    matrix = cosines(loaded)
    for number, direction in enumerate(loaded, 1):
        place = f"layer {direction.layer} {direction.site}" if direction.says("layer") else "layer unknown"
        place += f" position {direction.position}" if direction.says("position") else ""
        norm = f"{direction.raw_norm:.4g}" if direction.says("raw norm") else "unknown"
        typer.echo(f"{number}  {direction.name}  width {direction.vector.shape[0]}  norm {norm}  {place}")
    for number, row in enumerate(matrix.tolist(), 1):
        typer.echo(f"{number}  " + "  ".join(f"{value:7.4f}" for value in row))


@command(
    FILES,
    "demur convert base.safetensors --out base.gguf",
    "demur convert base.safetensors --format post --out base.pt",
)
def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="direction files of any of these formats", metavar="FILE", autocompletion=shell_completion.directions
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="the file to write")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            autocompletion=shell_completion.direction_formats,
            help="demur (.safetensors), gguf, or for .pt files: post, arditi, mean-diffs, lm-eval, lm-eval-ablation; "
            "needed only if several fit the file's name",
        ),
    ] = None,
    layer: Layer = None,
    position: Position = None,
    axes: Axes = None,
    feature: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="a feature of a sparse autoencoder as a direction"),
    ] = None,
    family: Annotated[
        str | None, typer.Option(metavar="NAME", help="model_type of the model that lm-eval steers, for example llama")
    ] = None,
    n_layers: Annotated[int | None, typer.Option("--n-layers", min=1, metavar="N", help="number of layers of that model")] = None,
    quiet: Quiet = False,
) -> None:
    """Write directions in another format."""
    from demur.directions.file_formats import format_for
    from demur.directions.files.load_and_save import load_directions, save_directions

    name = format_for(out, format)
    loaded = [
        direction
        for path in files
        for direction in load_directions(path, layer=layer, position=position, axes=axes, feature=feature)
    ]
    save_directions(loaded, out, format=name, family=family, n_layers=n_layers)
    typer.echo(f"{out}  {name}  {len(loaded)} direction{'s' if len(loaded) > 1 else ''}")
