"""The stored measurements of pairs that are no runs with refusals, as the analysis reads them."""

from collections.abc import Sequence

from pydantic import JsonValue

from demur.analysis.diff.attribution_results import MeasuredAttribution, attribution_results
from demur.analysis.diff.diff_details import DiffDetails
from demur.analysis.diff.divergence_results import MeasuredDivergence, divergence_results
from demur.analysis.diff.feature_results import feature_results
from demur.analysis.diff.latent_cosines import latent_cosines
from demur.analysis.diff.lens_results import MeasuredLens, lens_results
from demur.measurements.diffing.attribution import Attribution
from demur.measurements.diffing.difference_lens import DifferenceLens
from demur.measurements.diffing.response_divergence import LABELS, ResponseDivergence
from demur.measurements.latents.features import Features
from demur.measurements.measurement import MeasurementRecord
from demur.runs.measuring.measured_features import measured_features
from demur.runs.rows import StoredMeasurement


def diff_details(records: Sequence[StoredMeasurement]) -> DiffDetails:
    """What was measured of pairs beside refusals. A record of another version of its measurement is left out.

    Args:
        records: the measurements of a run.
    """
    written = [_attribution(one.subject, one.record) for one in records if one.of(Attribution)]
    added = [_lens(one.subject, one.record) for one in records if one.of(DifferenceLens)]
    diverged = [_divergence(one.subject, one.record) for one in records if one.of(ResponseDivergence)]
    looked_at = [measured_features(one.subject, one.record) for one in records if one.of(Features)]
    return DiffDetails(
        attribution=tuple(attribution_results(written)),
        difference_lens=tuple(lens_results(added)),
        divergence=tuple(divergence_results(diverged)),
        features=tuple(feature_results(looked_at)),
        latent_cosines=tuple(latent_cosines(looked_at)),
    )


def _attribution(subject: str, record: MeasurementRecord) -> MeasuredAttribution:
    import numpy

    facts, arrays = record.facts, record.arrays
    return MeasuredAttribution(
        subject=subject,
        first=str(facts["first"]),
        second=str(facts["second"]),
        layers=_numbers(facts["layer"]),
        heads=_numbers(facts["head"]),
        tested=numpy.array(_numbers(facts["tested"])).reshape(2, -1),
        **{name: arrays[name] for name in ("direct", "log_odds", "estimate", "exact")},
    )


def _numbers(value: JsonValue) -> list[int]:
    return [int(str(each)) for each in value] if isinstance(value, list) else []


def _lens(subject: str, record: MeasurementRecord) -> MeasuredLens:
    facts, arrays = record.facts, record.arrays
    return MeasuredLens(
        subject=subject,
        first=str(facts["first"]),
        second=str(facts["second"]),
        texts=int(str(facts["texts"])),
        tokens=int(str(facts["tokens"])),
        layer=int(str(facts["layer"])),
        up=_by_place(_texts(facts["up"]), arrays["norm"].shape),
        down=_by_place(_texts(facts["down"]), arrays["norm"].shape),
        **{name: arrays[name] for name in ("norm", "stream_norm", "halves", "cosine", "null95", "p")},
    )


def _by_place(tokens: Sequence[str], shape: tuple[int, ...]) -> list[list[list[str]]]:
    """Tokens that are listed one after the other, by layer and place."""
    layers, places = shape
    words = len(tokens) // (layers * places)
    starts = [[words * (layer * places + place) for place in range(places)] for layer in range(layers)]
    return [[list(tokens[start : start + words]) for start in row] for row in starts]


def _divergence(subject: str, record: MeasurementRecord) -> MeasuredDivergence:
    facts = record.facts
    values = {
        label: {name.removesuffix(f" {label}"): array for name, array in record.arrays.items() if name.endswith(f" {label}")}
        for label in LABELS
    }
    compared = zip(_texts(facts["one"]), _texts(facts["other"]), strict=True)
    return MeasuredDivergence(
        subject=subject,
        first=str(facts["first"]),
        second=str(facts["second"]),
        prompt=str(facts["prompt"]),
        writers=tuple(_texts(facts["writers"])),
        compared=tuple(compared),
        values=values,
    )


def _texts(value: JsonValue) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
