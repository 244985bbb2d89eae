"""The stored records of the measurement `features` as the analysis reads them."""

from pydantic import JsonValue

from demur.analysis.diff.feature_results import LABELS, MeasuredFeatures, MeasuredLatentRun
from demur.measurements.measurement import MeasurementRecord
from demur.runs.measuring.broken_shares import broken_shares

_CHOSEN = "chosen_"


def measured_features(subject: str, record: MeasurementRecord) -> MeasuredFeatures:
    """What was measured of one arm.

    Args:
        subject: the arm.
        record: its record.
    """
    facts = record.facts
    return MeasuredFeatures(
        subject=subject,
        **{name: str(facts[name]) for name in ("checkpoint", "prompt", "file", "format", "direction", "off_stream")},
        place=f"{facts['site']} of layer {facts['layer']}",
        total=int(str(facts["latents"])),
        direction_layer=int(str(facts["direction_layer"])),
        latents=_numbers(facts["latent"]),
        chosen={name.removeprefix(_CHOSEN): _numbers(value) for name, value in facts.items() if name.startswith(_CHOSEN)},
        runs=_runs(record),
        arrays=record.arrays,
    )


def _runs(record: MeasurementRecord) -> tuple[MeasuredLatentRun, ...]:
    """The runs; none of an autoencoder that was not run."""
    facts, arrays = record.facts, record.arrays
    kinds, values = _list(facts.get("kind")), _list(facts.get("value"))
    shares = broken_shares(_numbers(facts.get("written_run")), [str(text) for text in _list(facts.get("written_text"))])
    whole = shares.get(0)
    return tuple(
        MeasuredLatentRun(
            str(kind),
            None if value is None else float(str(value)),
            {label: tuple(arrays[f"probability_{label}"][number].tolist()) for label in LABELS},
            float(arrays["set_frequency"][number]),
            float(arrays["set_norm"][number]),
            shares[number] - whole if number in shares and whole is not None else None,
        )
        for number, (kind, value) in enumerate(zip(kinds, values, strict=True))
    )


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _numbers(value: JsonValue) -> tuple[int, ...]:
    return tuple(int(str(each)) for each in _list(value))
