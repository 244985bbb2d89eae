"""What else was measured of pairs of checkpoints, beside refusals in runs of a pair."""

from demur.analysis.cell import Record
from demur.analysis.diff.attribution_results import AttributionResult
from demur.analysis.diff.divergence_results import DivergenceResult
from demur.analysis.diff.feature_results import FeatureResult
from demur.analysis.diff.latent_cosines import LatentCosine
from demur.analysis.diff.lens_results import LensResult


class DiffDetails(Record):
    """Further measurements of pairs.

    Attributes:
        attribution: which heads and MLPs write the difference in the log-odds of a refusal.
        difference_lens: the mean difference of both streams on unrelated text.
        divergence: how far apart both checkpoints' next tokens are along responses.
        features: latents of sparse autoencoders near the direction, and refusals with them clamped, by arm.
        latent_cosines: how alike the chosen latents of two checkpoints are.
    """

    attribution: tuple[AttributionResult, ...] = ()
    difference_lens: tuple[LensResult, ...] = ()
    divergence: tuple[DivergenceResult, ...] = ()
    features: tuple[FeatureResult, ...] = ()
    latent_cosines: tuple[LatentCosine, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        """The pairs, each once."""
        named = [one.subject for one in self.attribution]
        named += [*(one.subject for one in self.difference_lens), *(one.subject for one in self.divergence)]
        return tuple(dict.fromkeys(named))
