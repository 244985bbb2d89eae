"""How active the latents of a transcoder are, which reads the input of an MLP and reconstructs its output."""

import torch
from pydantic import JsonValue
from torch import Tensor

from demur.core.errors import InputError
from demur.directions.sae.sparse_autoencoder import ModulePoint, SparseAutoencoder
from demur.engine.readout.module_streams import module_streams
from demur.measurements.latents.feature_settings import LABELS, FeatureSettings
from demur.measurements.latents.latent_numbers import latent_numbers
from demur.measurements.measurement import ArmSubject


def transcoder_numbers(
    arm: ArmSubject,
    sae: SparseAutoencoder,
    modules: tuple[ModulePoint, ModulePoint],
    listed: list[int],
    settings: FeatureSettings,
) -> tuple[dict[str, JsonValue], dict[str, Tensor]]:
    """Frequency, mean activation and reconstruction error, as facts and arrays of a record.

    Args:
        arm: the arm.
        sae: the transcoder, on the model's device.
        modules: where it reads, and what it reconstructs.
        listed: the latents that are wanted.
        settings: how many instructions.

    Raises:
        InputError: if the checkpoint has no such modules, or they have other widths.
    """
    numbers, wanted = [], (sae.encoder.shape[0], sae.decoder.shape[1])
    for label in LABELS:
        prompts = [tuple(ids) for ids in arm.prompt.encode(arm.held_out[label][: settings.instructions])]
        streams = module_streams(arm.checkpoint, prompts, modules, progress=arm.progress)
        widths = streams[0][0].shape[-1], streams[0][1].shape[-1]
        if widths != wanted:
            raise InputError(
                f"{sae.name!r} reads width {wanted[0]} and writes width {wanted[1]}, but at these modules of "
                f"{arm.checkpoint.name!r} the widths are {widths[0]} and {widths[1]}; name one that was trained on this model"
            )
        numbers.append(latent_numbers(sae, [one[0] for one in streams], [one[1] for one in streams]))
    arrays = {
        "frequency": torch.stack([one.frequency for one in numbers])[:, listed],
        "mean": torch.stack([one.mean for one in numbers])[:, listed],
        "unexplained": torch.tensor([one.unexplained for one in numbers]),
    }
    return {"tokens": [one.tokens for one in numbers]}, arrays
