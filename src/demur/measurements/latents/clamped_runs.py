"""Refusals with latents of a sparse autoencoder clamped: the chosen ones, and random ones beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from pydantic import JsonValue
from torch import Tensor

from demur.core.errors import WorkError
from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
from demur.engine.engine_protocol import Row
from demur.engine.generate import generate
from demur.interventions.intervention import Intervention
from demur.interventions.latents import clamped_latents, spliced
from demur.judges.judge import Judged, Verdict, answers, get_judge
from demur.measurements.exact_refusal.refusal_probability import BoundedProbability, row_probabilities
from demur.measurements.latents.feature_settings import FeatureSettings
from demur.measurements.latents.latent_numbers import alike_sets
from demur.measurements.measurement import ArmSubject
from demur.models.layouts import Site

ROUNDING = 1e-6
"""Probabilities of the same rows that differ by at most this are equal: a row's batch may round it otherwise."""


@dataclass(frozen=True)
class LatentRun:
    """One way of running a checkpoint.

    Attributes:
        kind: `alone`; `spliced`, with the reconstruction in the place of the stream; or the name of a chosen set, or `random` and
            that name.
        value: what the latents are set to; None where none are.
        latents: the latents that are set.
    """

    kind: str
    value: float | None = None
    latents: tuple[int, ...] = ()

    def edit(self, placed: "PlacedSae") -> Intervention | None:
        """The edit that does it; None for the checkpoint as it is."""
        sae, layer, site, most = placed.sae, placed.layer, placed.site, placed.most_norm
        if self.latents:
            return clamped_latents(sae, self.latents, self.value, layer=layer, site=site, most_norm=most)
        return spliced(sae, layer=layer, site=site, most_norm=most) if self.kind == "spliced" else None


def latent_runs(
    chosen: Mapping[str, Sequence[int]],
    frequency: Float[Tensor, " latent"],
    norm: Float[Tensor, " latent"],
    settings: FeatureSettings,
) -> list[LatentRun]:
    """The runs: the checkpoint as it is, the splice, and for each chosen set and value the set and its random ones.

    Args:
        chosen: the chosen sets by name.
        frequency: how often each latent is active, for the choice of random ones.
        norm: the norm of each decoder row.
        settings: values and numbers.
    """
    runs = [LatentRun("alone"), LatentRun("spliced")]
    for name, latents in chosen.items():
        others = alike_sets(latents, frequency, norm, sets=settings.nulls, seed=settings.seed)
        for value in settings.values:
            runs.append(LatentRun(name, value, tuple(latents)))
            runs += [LatentRun(f"random {name}", value, one) for one in others]
    return runs


@dataclass(frozen=True, eq=False)
class PlacedSae:
    """An autoencoder at its place in an arm's checkpoint.

    Attributes:
        arm: the arm.
        sae: the autoencoder, on the model's device.
        layer: the layer at which it reads the stream.
        site: the site of that layer.
        most_norm: token positions with a larger norm of the stream are not edited; None if all are.
    """

    arm: ArmSubject
    sae: SparseAutoencoder
    layer: int
    site: Site
    most_norm: float | None = None


def run_probabilities(
    placed: PlacedSae, texts: Sequence[str], runs: Sequence[LatentRun], settings: FeatureSettings
) -> BoundedProbability:
    """The probability of a refusal in each run, (run, instruction), all as rows of the same batches.

    Args:
        placed: the autoencoder.
        texts: the instructions.
        runs: the runs.
        settings: the judge.
    """
    arm = placed.arm
    prompts = [tuple(ids) for ids in arm.prompt.encode(texts)]
    edits = [run.edit(placed) for run in runs]
    rows = [Row(ids, edit) for edit in edits for ids in prompts]
    found = row_probabilities(arm.checkpoint, rows, settings.sampling, batch_tokens=arm.batch_tokens, progress=arm.progress)
    shape = (len(runs), len(prompts))
    return BoundedProbability(*(part.reshape(shape) for part in (found.probability, found.gap, found.branches)))


def check_kept(placed: PlacedSae, texts: Sequence[str], latents: Sequence[int], settings: FeatureSettings) -> None:
    """Check that latents that are set to the values that they have change nothing.

    Args:
        placed: the autoencoder.
        texts: some instructions.
        latents: some latents.
        settings: the judge.

    Raises:
        WorkError: if a probability or a token changes.
    """
    runs = [LatentRun("alone"), LatentRun("kept", None, tuple(latents))]
    alone, kept = run_probabilities(placed, texts, runs, settings).probability
    edits = [run.edit(placed) for run in runs]
    arm = placed.arm
    written = generate(arm.checkpoint, texts, arm.prompt, edits, max_new_tokens=settings.max_new_tokens)
    tokens = [[one.token_ids for one in each] for each in written]
    if float((alone - kept).abs().max()) > ROUNDING or tokens[0] != tokens[1]:
        raise WorkError(
            f"latents of {placed.sae.name!r} that are set to the values that they have change refusals of "
            f"{arm.checkpoint.name!r}; report this"
        )


def written_facts(
    placed: PlacedSae, texts: Sequence[str], runs: Sequence[LatentRun], settings: FeatureSettings
) -> dict[str, JsonValue]:
    """Greedy completions of the first instructions in each run that is no null, as facts of a record.

    Args:
        placed: the autoencoder.
        texts: the instructions.
        runs: the runs.
        settings: the judge and the length.

    Returns:
        `written_run`, the number of the run; `written_text`; and `written_refusal`: one entry for each completion.
    """
    chosen = [number for number, run in enumerate(runs) if not run.kind.startswith("random ")]
    texts = list(texts[: settings.completions])
    if not texts:
        return {"written_run": [], "written_text": [], "written_refusal": []}
    edits = [runs[number].edit(placed) for number in chosen]
    arm = placed.arm
    made = generate(arm.checkpoint, texts, arm.prompt, edits, max_new_tokens=settings.max_new_tokens, progress=arm.progress)
    said = [Judged(one.text, text) for each in made for one, text in zip(each, texts, strict=True)]
    verdicts = answers(get_judge(settings.judge), said)
    return {
        "written_run": [number for number in chosen for _ in texts],
        "written_text": [one.text for each in made for one in each],
        "written_refusal": [isinstance(one, Verdict) and one.refusal for one in verdicts],
    }


def set_means(runs: Sequence[LatentRun], values: Float[Tensor, " latent"]) -> Float[Tensor, " run"]:
    """The mean of a number over the latents that each run sets; NaN where it sets none."""
    return torch.stack([values[list(run.latents)].double().mean() if run.latents else torch.tensor(torch.nan) for run in runs])
