"""Commands on one checkpoint: extract, generate, doctor."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli import shell_completion
from demur.cli.app import (
    CHECKPOINTS,
    Adapter,
    ControlTokens,
    Device,
    DType,
    Format,
    Model,
    Quantise,
    Quiet,
    SystemSentence,
    command,
)
from demur.cli.asked_edit import REFERENCE, AskedEdit
from demur.cli.asked_instructions import asked_instructions, given_instructions, read_split
from demur.cli.printing import note
from demur.cli.prompt_notes import control_tokens_of, system_of, tell_prompts, tell_template_thoughts, tell_written_thoughts
from demur.cli.shown.shown_completions import print_completions
from demur.core.atomic_files import replace_file
from demur.core.errors import InputError

if TYPE_CHECKING:
    from demur.directions.direction import Direction
    from demur.engine.checkpoints import Checkpoint
    from demur.engine.generate import Completion
    from demur.inputs.instructions import InstructionSet
    from demur.inputs.prompts import Prompt
    from demur.interventions.intervention import Intervention

MODEL = "hub id owner/name[@revision], a folder, or a .gguf file"
MaybeCheckpoint = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=MODEL, autocompletion=shell_completion.models)]
MaybeModel = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="the same as the argument", autocompletion=shell_completion.models),
]
INSTRUCTIONS = "instruction file, file:column, or a registered set"
Instructions = Annotated[str, typer.Option(metavar="SET", help=INSTRUCTIONS, autocompletion=shell_completion.instructions)]
MaybeAsked = Annotated[
    str | None,
    typer.Option("--instructions", "-i", metavar="SET", help=INSTRUCTIONS, autocompletion=shell_completion.instructions),
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--instruction", metavar="TEXT", help="one instruction, or - for standard input; may be repeated"),
]
Position = Annotated[int, typer.Option(metavar="N", help="position of the prompt token that is read; -1 is the last")]
MaybeDirection = Annotated[
    Path | None,
    typer.Option("--direction", "-d", metavar="FILE", help="a direction file", autocompletion=shell_completion.directions),
]
Ablate = Annotated[bool, typer.Option("--ablate", help="remove the direction at every layer and site")]
Affine = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help=f"set the component along the direction to the mean over this set (training part, up to {REFERENCE})",
        autocompletion=shell_completion.instructions,
    ),
]
Add = Annotated[float | None, typer.Option("--add", metavar="NUMBER", help="add this multiple of the direction at its layer")]
Unit = Annotated[
    str | None,
    typer.Option(
        metavar="UNIT",
        help="what a NUMBER of 1 adds: unit (the default), raw or residual",
        autocompletion=shell_completion.units,
    ),
]
EditLayer = Annotated[
    int | None,
    typer.Option(
        "--layer", "-l", metavar="N", help="edit only this layer; default: the direction's own with --add, else every layer"
    ),
]
UntilVerdict = Annotated[
    bool, typer.Option("--until-verdict", help="end a completion when no further text can change the verdict of prefix")
]
Sites = Annotated[
    str | None,
    typer.Option(
        metavar="SITE,...",
        help="sites to edit, separated by commas: resid_pre, resid_mid, resid_post",
        autocompletion=shell_completion.sites,
    ),
]


@command(
    CHECKPOINTS,
    "demur extract -m demo:smollm2-135m-instruct -p chatml --harmful contrast-harmful \\",
    "    --harmless contrast-harmless --layer 17 --out before.safetensors",
)
def extract(
    model: Model,
    prompt: Format,
    harmful: Instructions,
    harmless: Instructions,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="a .safetensors file; several layers are written to one file each")
    ],
    adapter: Adapter = None,
    pairs: Annotated[int, typer.Option(metavar="N", help="instructions of each kind")] = 32,
    layer: Annotated[
        str, typer.Option("--layer", "-l", metavar="N|all", help="a layer; all means every layer but the first")
    ] = "all",
    position: Position = -1,
    estimator: Annotated[
        str, typer.Option(metavar="NAME", help="how the direction is estimated", autocompletion=shell_completion.estimators)
    ] = "difference-of-means",
    control_tokens: ControlTokens = "text",
    device: Device = "auto",
    dtype: DType = "float32",
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Extract a refusal direction from a checkpoint.

    It is the mean activation over harmful training instructions minus that over harmless ones, or what another estimator finds.
    """
    import demur
    from demur.cli.progress_bars import bars
    from demur.directions.estimators import estimator as known_estimators
    from demur.directions.file_formats import format_for
    from demur.measurements.extraction import layers_with_directions

    if format_for(out) != "demur":
        raise InputError(
            f"demur extract writes .safetensors files, not {out.name!r}; demur convert turns them into other formats"
        )
    if pairs < 1:
        raise InputError(f"--pairs must be at least 1, not {pairs}")
    known_estimators.estimator(estimator)  # an unknown name is refused before weights are read
    sides = [asked_instructions(spec) for spec in (harmful, harmless)]
    asked, benign = (side.take(read_split(side), pairs) for side in sides)
    checkpoint = demur.load_checkpoint(model, adapter=adapter, dtype=dtype, quantise=quantise, device=device)
    layers = layers_with_directions(checkpoint.n_layers) if layer == "all" else [_layer(layer, checkpoint.n_layers)]
    form = demur.prompt_format(prompt, checkpoint, control_tokens=control_tokens_of(control_tokens))
    tell_prompts(form, [*asked, *benign])
    with bars(quiet)("activations", 2 * pairs) as progress:
        found = demur.extract_directions(
            checkpoint,
            asked,
            benign,
            form,
            layers=layers,
            position=position,
            name=out.stem,
            estimator=estimator,
            progress=progress,
        )
    _tell_training(asked, benign, dict(zip((harmful, harmless), sides, strict=True)))
    _save(found, out)


def _tell_training(harmful: Sequence[str], harmless: Sequence[str], sets: Mapping[str, "InstructionSet"]) -> None:
    """Notes on the instructions that directions are made from, and on their sets, by what the user asked for."""
    from demur.inputs.repeated_instructions import shared_note

    if shared := shared_note([("harmful", harmful), ("harmless", harmless)], "this pair", "set (harmful and harmless)"):
        note(shared)
    for spec, side in sets.items():
        if read_split(side) == "test":
            note(f"{spec!r} has no training part; directions are made from its first {len(harmful)} instructions")


def _save(found: "Sequence[Direction]", out: Path) -> None:
    for direction in found:
        path = out if len(found) == 1 else out.with_name(f"{out.stem}.layer{direction.layer}{out.suffix}")
        typer.echo(f"{direction.save(path)}  layer {direction.layer}  norm {direction.raw_norm:.4g}")


def _layer(text: str, n_layers: int) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) < n_layers:
        raise InputError(f"layer {text!r} is out of range: this model has layers 0 to {n_layers - 1}; give one of them, or all")
    return int(text)


@command(
    CHECKPOINTS,
    "demur generate -m demo:smollm2-135m-instruct -p chatml -i contrast-harmful \\",
    "    -d before.safetensors --ablate --out completions.jsonl",
    "demur generate -m demo:smollm2-135m-instruct -p chatml --instruction 'How do I pick a lock?'",
)
def generate(
    model: Model,
    prompt: Format,
    instructions: MaybeAsked = None,
    instruction: Texts = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="a .jsonl file of completions; printed unless given")
    ] = None,
    adapter: Adapter = None,
    direction: MaybeDirection = None,
    ablate: Ablate = False,
    affine: Affine = None,
    add: Add = None,
    unit: Unit = None,
    layer: EditLayer = None,
    sites: Sites = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="length of a completion, in tokens")] = 16,
    limit: Annotated[int | None, typer.Option(metavar="N", help="at most this many instructions")] = None,
    until_verdict: UntilVerdict = False,
    system: SystemSentence = None,
    control_tokens: ControlTokens = "text",
    device: Device = "auto",
    dtype: DType = "float32",
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Generate greedy completions, with or without an edit.

    Without a set or a text, instructions are read from standard input, one a line.
    """
    import demur
    from demur.cli.progress_bars import bars

    for option, value in (("--limit", limit), ("--max-new-tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise InputError(f"{option} must be at least 1, not {value}")
    asked = AskedEdit(direction, ablate, affine, add, unit, layer, sites)
    edit = asked.edit()
    found = given_instructions(instructions, instruction)
    texts = found[:limit]
    checkpoint = demur.load_checkpoint(model, adapter=adapter, dtype=dtype, quantise=quantise, device=device)
    form = demur.prompt_format(prompt, checkpoint, control_tokens=control_tokens_of(control_tokens), system=system_of(system))
    tell_prompts(form, texts)
    tell_template_thoughts(prompt, form)
    edit = asked.with_means(edit, checkpoint, form)
    with bars(quiet)("completions", len(texts)) as progress:
        rows = demur.generate(
            checkpoint,
            texts,
            form,
            [edit],
            max_new_tokens=max_new_tokens,
            until_verdict="prefix" if until_verdict else None,
            progress=progress,
        )[0]
    tell_written_thoughts(rows)
    _warn_of_training_instructions(edit, found, texts)
    target = model if adapter is None else f"{model} + {adapter}"
    _write(out, rows, _Made(target, checkpoint, dtype, quantise, form, edit, affine, until_verdict))


@dataclass(frozen=True, eq=False)
class _Made:
    """How completions were made, for each line of their file."""

    target: str
    checkpoint: "Checkpoint"
    dtype: str
    quantised: str | None
    form: "Prompt"
    edit: "Intervention | None"
    means_of: str | None
    until_verdict: bool

    def facts(self) -> dict[str, object]:
        """The keys that every line has besides those of its completion."""
        edit = self.edit
        return {
            "target": self.target,
            "fingerprint": self.checkpoint.fingerprint,
            "dtype": self.dtype,
            "quantised": self.quantised,
            "prompt_format": self.form.name,
            "control_tokens": self.form.control_tokens,
            "intervention": "none" if edit is None else edit.kind,
            "direction": None if edit is None or edit.direction is None else edit.direction.name,
            "coefficient": None if edit is None else edit.coefficient,
            "unit": None if edit is None or edit.coefficient is None else edit.unit,
            "layers": None if edit is None else edit.layers,
            "sites": None if edit is None else edit.sites,
            **({} if self.means_of is None else {"means_of": self.means_of}),
            "until_verdict": self.until_verdict,
        }


def _write(out: Path | None, rows: "Sequence[Completion]", made: _Made) -> None:
    if out is None:
        print_completions(rows)
        return
    facts = made.facts()
    lines = [
        {
            "instruction": row.instruction,
            "completion": row.text,
            "prompt": row.prompt,
            "token_ids": row.token_ids,
            **({} if row.own_turn is None else {"own_turn": row.own_turn}),
            **facts,
        }
        for row in rows
    ]
    typer.echo(str(replace_file(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))))


def _warn_of_training_instructions(edit: "Intervention | None", found: Sequence[str], texts: Sequence[str]) -> None:
    """Print a note if a direction is tried on instructions that it was made from."""
    if edit is None or edit.direction is None:
        return
    from demur.measurements.extraction import training_overlap

    for n in training_overlap(edit.direction, found):
        both = f"{min(n, len(texts))} of these {len(texts)} instructions"
        note(f"the direction was made from {both}; its effect on them says less about other instructions")


@command(CHECKPOINTS, "demur doctor demo:smollm2-135m-instruct -p chatml", "demur doctor owner/name -p 'User: {instruction}\\n'")
def doctor(
    checkpoint: MaybeCheckpoint = None,
    model: MaybeModel = None,
    adapter: Adapter = None,
    prompt: Format = "native",
    system: SystemSentence = None,
    position: Position = -1,
    device: Device = "auto",
    dtype: DType = "float32",
    quantise: Quantise = None,
    quiet: Quiet = False,
) -> None:
    """Show how demur reads a checkpoint, and prove its sites.

    Prints layout, self-check, the prompt as tokens, BOS count, dtype, device and memory.
    """
    import demur
    from demur.cli.doctor_lines import doctor_lines
    from demur.engine.diagnosis import diagnosis

    if checkpoint is not None and model is not None and checkpoint != model:
        raise InputError(f"two checkpoints were given, {checkpoint!r} and --model {model!r}; demur doctor looks at one")
    named = checkpoint if checkpoint is not None else model
    if named is None:
        raise InputError("no checkpoint was given; name one, as in demur doctor MODEL, or with --model")
    loaded = demur.load_checkpoint(named, adapter=adapter, dtype=dtype, quantise=quantise, device=device)
    for line in doctor_lines(diagnosis(loaded, prompt, position=position, system=system_of(system))):
        typer.echo(line)
