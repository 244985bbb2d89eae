"""Directions of a checkpoint: the difference of mean activations of harmful and harmless instructions, with its provenance."""

from collections.abc import Mapping, Sequence
from typing import Any

from demur.core.progress import Progress, silent
from demur.core.versions import versions
from demur.directions.direction import Direction, difference_of_means
from demur.engine.capture import Means, mean_activations
from demur.engine.checkpoints import Checkpoint
from demur.inputs.instructions import digest
from demur.inputs.prompts import Prompt
from demur.models.layouts import Site


def extract_directions(
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    position: int = -1,
    name: str | None = None,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> list[Direction]:
    """One direction a layer: difference of mean activations, harmful minus harmless (Arditi et al. 2024, section 2.3).

    Raises `InputError` for a layer, site or position that is not there, and where both means are the same, as at a template
    token at the first layer's input; `WorkError` for activations that are not finite.
    """
    sides = [
        mean_activations(
            checkpoint,
            instructions,
            prompt,
            layers=layers,
            site=site,
            position=position,
            batch_tokens=batch_tokens,
            progress=progress,
        )
        for instructions in (harmful, harmless)
    ]
    facts = provenance(checkpoint, prompt, position, harmful, harmless)
    return directions_between(*sides, name=name or checkpoint.name, site=site, position=position, facts=facts)


def directions_between(
    harmful: Means,
    harmless: Means,
    *,
    name: str,
    layers: Sequence[int] | None = None,
    site: Site = "resid_pre",
    position: int = -1,
    facts: Mapping[str, Any] | None = None,
) -> list[Direction]:
    """One direction a layer from means that were taken already: at all of their layers, or at some."""
    chosen = list(harmful.layers if layers is None else layers)
    rows = [harmful.layers.index(layer) for layer in chosen]
    count = harmful.count + harmless.count
    norms = (harmful.mean_norm * harmful.count + harmless.mean_norm * harmless.count) / count
    found = difference_of_means(
        harmful.mean[rows], harmless.mean[rows], name=name, layers=chosen, position=position, site=site, provenance=facts
    )
    for direction, norm in zip(found, norms[rows].tolist(), strict=True):
        direction.provenance["mean residual norm"] = norm  # type: ignore[index]
    return found


def provenance(
    checkpoint: Checkpoint, prompt: Prompt, position: int, harmful: Sequence[str], harmless: Sequence[str]
) -> dict[str, Any]:
    """What a direction was read from: weights, prompt, token read, instructions, versions."""
    return {
        "checkpoint": checkpoint.name,
        "source": checkpoint.source,
        "adapter": checkpoint.adapter,
        "fingerprint": checkpoint.fingerprint,
        "architecture": {"family": checkpoint.engine.family, "layers": checkpoint.n_layers},
        "weights": str(checkpoint.dtype),
        "quantised": checkpoint.quantised,
        "prompt": prompt.name,
        "prompt text": prompt.template,
        "prompt digest": prompt.digest,
        "token read": prompt.token_read(position),
        "harmful": {"n": len(harmful), "sha256": digest(harmful)},
        "harmless": {"n": len(harmless), "sha256": digest(harmless)},
        "versions": versions(),
    }


def extract_direction(
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    *,
    layer: int,
    site: Site = "resid_pre",
    position: int = -1,
    name: str | None = None,
) -> Direction:
    """The direction of one layer; see `extract_directions`."""
    return extract_directions(checkpoint, harmful, harmless, prompt, layers=[layer], site=site, position=position, name=name)[0]
