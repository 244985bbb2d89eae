"""`features`: which latents of a sparse autoencoder are near the direction, and what clamping them does to refusals."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, JsonValue

from demur.core.errors import InputError
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.latents.feature_settings import LABELS, FeatureSettings, SaeSettings
from demur.measurements.measurement import ArmSubject, MeasurementRecord, PlannedSubject

if TYPE_CHECKING:
    from torch import Tensor

    from demur.directions.direction import Direction
    from demur.directions.sae.sparse_autoencoder import SparseAutoencoder
    from demur.measurements.latents.clamped_runs import PlacedSae
    from demur.measurements.latents.latent_numbers import LatentNumbers
    from demur.models.layouts import Site


class Features:
    """The measurement `features` of each arm whose checkpoint has a sparse autoencoder in the study.

    Latents are chosen in two ways: by the cosine of their decoder rows with the study's direction, and by attribution of the
    log-odds of a refusal to them on training instructions (after "Understanding Refusal in Language Models with Sparse
    Autoencoders", Yeo et al. 2025, arXiv 2505.23556). The chosen ones are clamped on held-out instructions, beside random latents
    that are as often active and write with the same norm.
    """

    name: ClassVar[str] = "features"
    version: ClassVar[int] = 1
    subjects: ClassVar[Literal["arm", "pair", "cell"]] = "arm"
    of_diff: ClassVar[bool] = True
    settings: ClassVar[type[BaseModel] | None] = FeatureSettings

    def checkpoints(self, settings: FeatureSettings) -> tuple[str, ...]:
        """The checkpoints that have an autoencoder: arms of others are not measured.

        Args:
            settings: the settings.

        Raises:
            InputError: if there is none.
        """
        if not settings.saes:
            raise InputError('features needs saes, such as saes = [{checkpoint = "chat", file = "params.safetensors"}]')
        return tuple(one.checkpoint for one in settings.saes)

    def measure(self, subject: ArmSubject, settings: FeatureSettings) -> MeasurementRecord:
        """Look at the latents of one arm.

        Args:
            subject: the arm.
            settings: the autoencoder, and what is measured.

        Returns:
            Arrays of the listed latents: `cosine` with the direction, `norm`, and the row `decoder`, (latent, d_model). The
            nulls of the cosines have the largest one with any latent: `null_cosine` of each random direction, `shuffled_cosine`
            of each direction for shuffled labels. If the autoencoder reads the stream there are also `frequency` and `mean`,
            (label, latent), `attribution` in nats, and `unexplained`, (label,); and of the runs `probability_LABEL` and
            `gap_LABEL`, (run, instruction), `set_frequency` and `set_norm`. The facts name the autoencoder, its place and the
            direction; `latent` has the listed latents, `chosen_*` the clamped ones; `kind` and `value` have one entry a run.

        Raises:
            InputError: if the autoencoder does not fit, or the arm has no direction.
            WorkError: if latents that are set to the values that they have change anything.
        """
        import torch

        from demur.directions.sae.read_autoencoder import read_autoencoder
        from demur.models.file_digests import sha256_of

        given = settings.of(subject.checkpoint.name)
        if given is None:
            raise InputError(f"features names no autoencoder of the checkpoint {subject.checkpoint.name!r}; add one to saes")
        sae = read_autoencoder(given.file, k=given.k)
        layer, site = _place(sae, given, subject)
        if sae.decoder.shape[1] != subject.checkpoint.d_model or not sae.off_stream:
            sae.check_width(subject.checkpoint.d_model, subject.checkpoint.name)
        direction = _direction(subject, layer, site)
        norm = sae.decoder.norm(dim=-1)
        unit = torch.nn.functional.normalize(sae.decoder, dim=-1)
        cosine = unit @ direction.vector
        order = cosine.argsort(descending=True).tolist()
        # The first ones are also clamped.
        count = min(max(settings.nearest, settings.clamped), len(order) // 2)
        nearest = [*order[:count], *order[len(order) - count :]]
        facts: dict[str, JsonValue] = {
            **_named(sae, subject, settings),
            "sha256": sha256_of(Path(given.file)),
            "layer": layer,
            "site": site,
            "direction": direction.name,
            "direction_layer": direction.layer,
            "off_stream": sae.off_stream,
        }
        arrays = _null_cosines(subject, direction, unit, settings)
        listed, more_facts, more = _run(subject, sae, (layer, site), direction, nearest, settings)
        facts |= more_facts
        arrays |= more
        facts["latent"] = list(listed)
        arrays |= {"cosine": cosine[listed], "norm": norm[listed], "decoder": sae.decoder[listed]}
        return MeasurementRecord(facts, {name: array.contiguous().numpy() for name, array in arrays.items()})

    def prompts(self, settings: FeatureSettings, planned: PlannedSubject) -> float | int:
        """Both labels in each run, the training instructions, and the attribution, whose steps also run backwards."""
        runs = 2 + 2 * len(settings.values) * (1 + settings.nulls)
        asked = sum(min(planned.test.get(label, 0), settings.instructions) for label in LABELS)
        return PROMPTS_A_ROW * runs * asked + 3 * settings.steps * settings.instructions + planned.training

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The facts, without completions. The numbers are in `diff_details`.

        Args:
            record: what `measure` gave.
        """
        return {name: value for name, value in record.facts.items() if name != "written_text"}


def _null_cosines(subject: ArmSubject, direction: "Direction", unit: "Tensor", settings: FeatureSettings) -> "dict[str, Tensor]":
    """The largest absolute cosine with any latent: of random directions, and of differences of means for shuffled labels."""
    import torch

    from demur.measurements.extraction import training_sides
    from demur.measurements.latents.latent_numbers import largest_cosines, shuffled_differences

    drawn = torch.randn(settings.draws, unit.shape[1], generator=torch.Generator().manual_seed(settings.seed))
    sides = training_sides(
        subject.checkpoint,
        subject.train["harmful"],
        subject.train["harmless"],
        subject.prompt,
        layers=[direction.layer],
        needs="activations",
        site=direction.site,
        position=direction.position,
        batch_tokens=subject.batch_tokens,
        progress=subject.progress,
    )
    read = [side.activations[:, 0] for side in sides if side.activations is not None]
    shuffled = shuffled_differences(*read, draws=settings.draws, seed=settings.seed)
    return {"null_cosine": largest_cosines(unit, drawn), "shuffled_cosine": largest_cosines(unit, shuffled)}


def _named(sae: "SparseAutoencoder", subject: ArmSubject, settings: FeatureSettings) -> dict[str, JsonValue]:
    from demur.judges.judge import get_judge

    return {
        "checkpoint": subject.checkpoint.name,
        "prompt": subject.prompt.name,
        "judge": settings.judge,
        "judge_version": get_judge(settings.judge).version,
        "file": sae.name,
        "format": sae.format,
        "latents": sae.latents,
    }


def _place(sae: "SparseAutoencoder", given: SaeSettings, subject: ArmSubject) -> "tuple[int, Site]":
    """Where the autoencoder reads the stream: what its files say, else what the study says."""
    from demur.models.layouts import point

    said = sae.place
    if said is None and given.layer is None:
        raise InputError(f"the files of {given.file!r} do not say at which layer it reads the stream; give layer")
    if said is not None and given.layer is not None and point(*said) != point(given.layer, "resid_post"):
        raise InputError(
            f"layer {given.layer} is given for {given.file!r}, but its files say {said[1]} of layer {said[0]}; leave layer out"
        )
    layer, site = said or (given.layer or 0, "resid_post")
    if layer >= subject.checkpoint.n_layers:
        raise InputError(
            f"the autoencoder {given.file!r} is of layer {layer}, but {subject.checkpoint.name!r} has layers 0 to "
            f"{subject.checkpoint.n_layers - 1}"
        )
    return layer, site


def _direction(subject: ArmSubject, layer: int, site: "Site") -> "Direction":
    """The arm's direction whose point of the stream is nearest to the autoencoder's."""
    from demur.models.layouts import point

    if not subject.directions:
        raise InputError(f"{subject.name} has no direction to compare latents with")

    def depth(at: "tuple[int, Site]") -> float:
        found = point(*at)
        return found.layer + (0.5 if found.site == "resid_mid" else 0)

    here = depth((layer, site))
    return min(subject.directions, key=lambda one: abs(depth((one.layer, one.site)) - here))


def _run(
    subject: ArmSubject,
    sae: "SparseAutoencoder",
    place: "tuple[int, Site]",
    direction: "Direction",
    nearest: list[int],
    settings: FeatureSettings,
) -> "tuple[list[int], dict[str, JsonValue], dict[str, Tensor]]":
    """The listed latents, and what was measured by running the checkpoint, as facts and arrays."""
    from demur.measurements.latents.clamped_runs import PlacedSae
    from demur.measurements.latents.transcoder_numbers import transcoder_numbers

    there = sae.on(subject.checkpoint.device)
    if not sae.off_stream:
        return _clamped(PlacedSae(subject, there, *place), direction, nearest, settings)
    if sae.modules is None:
        return nearest, {}, {}
    return nearest, *transcoder_numbers(subject, there, sae.modules, nearest, settings)


def _numbers(placed: "PlacedSae", texts: Mapping[str, tuple[str, ...]]) -> "tuple[list[LatentNumbers], float | None]":
    """How latents behave on the instructions of each label, and the norm that is between those of first tokens and others."""
    from demur.engine.capture import capture
    from demur.measurements.latents.latent_numbers import latent_numbers, norm_limit

    arm, found, read = placed.arm, [], []
    for label in LABELS:
        captured = capture(
            arm.checkpoint,
            texts[label],
            arm.prompt,
            layers=[placed.layer],
            site=placed.site,
            positions="all",
            batch_tokens=arm.batch_tokens,
        )
        streams = [one[:, 0] for one in captured]
        read += streams
        found.append(latent_numbers(placed.sae, streams))
        arm.progress(len(streams))
    return found, norm_limit(read)


def _clamped(
    placed: "PlacedSae", direction: "Direction", nearest: list[int], settings: FeatureSettings
) -> "tuple[list[int], dict[str, JsonValue], dict[str, Tensor]]":
    """The listed latents, and what was measured by running the checkpoint, as facts and arrays."""
    import torch

    from demur.measurements.latents.clamped_runs import check_kept, latent_runs, run_probabilities, set_means, written_facts

    arm, sae = placed.arm, placed.sae
    texts = {label: arm.held_out[label][: settings.instructions] for label in LABELS}
    numbers, most_norm = _numbers(placed, texts)
    placed = replace(placed, most_norm=most_norm)
    attribution = _attribution(placed, direction, settings)
    count = min(settings.clamped, sae.latents // 3)
    chosen: Mapping[str, list[int]] = {
        "nearest": nearest[:count],
        # Without the direction the log-odds of a refusal should fall: latents that carry this change have the lowest values.
        "attributed": attribution.topk(count, largest=False).indices.tolist(),
    }
    norm = sae.decoder.norm(dim=-1).cpu()
    frequency = torch.stack([one.frequency for one in numbers])
    runs = latent_runs(chosen, frequency.mean(0), norm, settings)
    check_kept(placed, texts["harmful"][:2], chosen["nearest"], settings)
    found = [run_probabilities(placed, texts[label], runs, settings) for label in LABELS]
    listed = list(dict.fromkeys((*nearest, *chosen["nearest"], *chosen["attributed"])))
    facts: dict[str, JsonValue] = {
        **{f"chosen_{name}": list(latents) for name, latents in chosen.items()},
        "tokens": [one.tokens for one in numbers],
        "most_norm": placed.most_norm,
        "kind": [run.kind for run in runs],
        "value": [run.value for run in runs],
        **written_facts(placed, texts["harmful"], runs, settings),
    }
    arrays = {
        "frequency": frequency[:, listed],
        "mean": torch.stack([one.mean for one in numbers])[:, listed],
        "unexplained": torch.tensor([one.unexplained for one in numbers]),
        "attribution": attribution[listed],
        "probability_harmful": found[0].probability,
        "probability_harmless": found[1].probability,
        "gap_harmful": found[0].gap,
        "gap_harmless": found[1].gap,
        "set_frequency": set_means(runs, frequency.mean(0)),
        "set_norm": set_means(runs, norm),
    }
    return listed, facts, arrays


def _attribution(placed: "PlacedSae", direction: "Direction", settings: FeatureSettings) -> "Tensor":
    """The mean attribution of each latent on harmful training instructions, which are not those that are clamped."""
    from demur.engine.readout.latent_attribution import latent_attribution
    from demur.interventions.intervention import ablate
    from demur.measurements.exact_refusal.refusal_beginnings import refusal_beginnings
    from demur.models.layouts import point

    arm, checkpoint = placed.arm, placed.arm.checkpoint
    prompts = [tuple(ids) for ids in arm.prompt.encode(arm.train["harmful"][: settings.instructions])]
    vocabulary = checkpoint.model.get_output_embeddings().weight.shape[0]
    group = refusal_beginnings(checkpoint, settings.judge, vocabulary, checkpoint.stop_ids)
    found = latent_attribution(
        checkpoint,
        prompts,
        group,
        placed.sae,
        point(placed.layer, placed.site),
        ablate(direction),
        steps=settings.steps,
        progress=arm.progress,
    )
    return found.mean(0)
