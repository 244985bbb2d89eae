"""A steering file with which lm-evaluation-harness ablates one direction as `demur.ablate` does: at every point of the stream.

The harness changes the outputs of modules, not the stream itself. The stream does not contain the direction if no module adds it.
So the file clamps the direction to zero in the output of the embeddings and of every attention and MLP branch. In exact
arithmetic that is ablation at all sites of all layers. The raw norm, layer and provenance of the direction are lost.
"""

from collections.abc import Sequence
from pathlib import Path

from demur.core.errors import InputError
from demur.directions.direction import Direction
from demur.directions.file_formats import Architecture
from demur.directions.files.lm_eval_steering import entry, in_base_model, layout_for
from demur.directions.files.requirements import the_one
from demur.directions.files.untrusted_tensors import write_pt

# The modules of the base model whose outputs sum to the first block's input.
_EMBEDDINGS = {
    "bloom": ("word_embeddings_layernorm",),
    "falcon": ("word_embeddings",),
    "gpt2": ("wte", "wpe"),
    "gpt_neo": ("wte", "wpe"),
    "gpt_neox": ("embed_in",),
    "gptj": ("wte",),
    "mpt": ("wte",),
    "opt": ("decoder.embed_tokens", "decoder.embed_positions"),
}


def write(directions: Sequence[Direction], path: Path, architecture: Architecture) -> None:
    """Write one unit vector, clamped to zero in the output of every module that adds to the stream."""
    vector = the_one(directions, path).vector
    layout = layout_for(architecture)
    if architecture.n_layers is None:
        raise InputError(
            f"an ablation file names every block, and direction {directions[0].name!r} does not say how many its model has; give "
            "the number with n_layers=... or --n-layers"
        )
    if layout.family not in _EMBEDDINGS and layout.blocks != "model.layers":
        raise InputError(
            f"demur does not know which modules embed tokens in {layout.family!r}, so it cannot write an ablation file for it"
        )
    blocks = in_base_model(layout)
    branches = [f"{blocks}.{n}.{part}" for n in range(architecture.n_layers) for part in (layout.attention, layout.mlp)]
    names = [*_EMBEDDINGS.get(layout.family, ("embed_tokens",)), *branches]
    write_pt({name: entry(vector, "clamp", 0.0) for name in names}, path)
