"""`difference-lens`: what fine-tuning did to the stream on text that has nothing to do with refusals."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel, Field, JsonValue

from demur.core.errors import InputError
from demur.measurements.diffing.diff_runs import DiffRun, PairMaterial, PairMeasurement, PairSettings, material_of, record_of
from demur.measurements.diffing.patching import layers_of
from demur.measurements.direction_agreement import LEAST, training_activations
from demur.measurements.exact_refusal.sampling import PROMPTS_A_ROW
from demur.measurements.measurement import ArmSubject, MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from demur.engine.checkpoints import Checkpoint
    from demur.interventions.intervention import Intervention
    from demur.measurements.exact_refusal.refusal_probability import BoundedProbability
    from demur.models.layouts import Site

MOST_EFFECTS = 5
"""Of a deeper checkpoint, the mean difference is removed at this many layers unless the study names some."""
BATCH_TOKENS = 64
"""Texts are read in small batches, because every layer of every token is kept."""


class LensSettings(PairSettings):
    """Settings of `difference-lens`.

    Attributes:
        tokens: how many tokens of each text are read, from its first. Shorter texts are left out.
        first: how many of the first token positions are also looked at one by one.
        words: how many tokens are kept of each end of a logit lens.
        draws: how often labels are shuffled for the null of a cosine.
        layers: the layers at which the mean difference is removed; evenly spaced ones unless given.
        nulls: how many random vectors there are at each of these layers.
    """

    tokens: int = Field(default=8, ge=2)
    first: int = Field(default=5, ge=1)
    words: int = Field(default=10, ge=1)
    draws: int = Field(default=200, ge=20)
    layers: tuple[int, ...] | None = None
    nulls: int = Field(default=1, ge=1)


class DifferenceLens(PairMeasurement):
    """The measurement `difference-lens` of each pair of checkpoints under one prompt format.

    Both checkpoints read the same plain texts, which are the harmless training instructions without a prompt format. The mean
    difference of their streams is what fine-tuning adds whatever the text says. It is read through the later checkpoint's final
    norm and unembedding, compared with the directions of both checkpoints, and taken away again. After Minder et al. 2025 (arXiv
    2510.13900), who read it in other ways, too.
    """

    name: ClassVar[str] = "difference-lens"
    settings: ClassVar[type[BaseModel] | None] = LensSettings

    def measure(self, subject: PairSubject, settings: LensSettings) -> MeasurementRecord:
        """Read the mean difference, and measure refusals without it.

        Args:
            subject: the pair.
            settings: what is measured.

        Returns:
            The record of `record_of`. The kinds of its runs are `alone`; `mean difference`, which is subtracted from the later
            checkpoint's stream at one layer, or added to the earlier one's; `component`, whose removal leaves no component
            along it there; and their nulls, `random shift` and `random component`. Further arrays, (layer, place), where the
            places are the first token positions and the mean over all positions but the first: `difference`, with d_model;
            `norm`; `stream_norm` of the later checkpoint; `halves`, the cosine of both halves of the texts; and by checkpoint
            `cosine`, `null95` and `p`. The facts `up` and `down` have the
            tokens of the logit lens, `words` for each layer and place in turn.

        Raises:
            InputError: if the checkpoints do not match, or there are too few texts or training instructions.
        """
        material = material_of(subject, settings.instructions)
        texts = _texts(subject.second, settings.tokens)
        read = [_read(arm, texts, subject.second.site, settings) for arm in (subject.first, subject.second)]
        difference = read[1][0] - read[0][0]
        runs, found = [], []
        for run, probability in _effects(subject, material, difference[:, :, -1].mean(0), settings):
            runs.append(run)
            found.append(probability)
        mean = difference.mean(0)
        up, down = (cast("JsonValue", end) for end in _lens(subject.second.checkpoint, mean, settings.words))
        named: dict[str, JsonValue] = {"texts": len(texts), "tokens": settings.tokens, "up": up, "down": down}
        named |= {"site": subject.second.site, "layer": _layer(subject.second)}
        record = record_of(subject, settings, runs, found)
        arrays = {
            "difference": mean.float().numpy(),
            "norm": mean.norm(dim=-1).numpy(),
            "stream_norm": read[1][1].numpy(),
            "halves": _cosine(difference[0], difference[1]).numpy(),
            **_cosines(subject, mean, settings),
        }
        return MeasurementRecord({**record.facts, **named}, {**record.arrays, **arrays})

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The mean probability of a refusal in each run. The tokens of the logit lens are in `diff_details`.

        Args:
            record: what `measure` gave.

        Returns:
            See `summary_of`.
        """
        return {name: value for name, value in super().summary(record).items() if name not in ("up", "down")}

    def prompts(self, settings: LensSettings, planned: PlannedSubject) -> float | int:
        """The training instructions once as plain text and once as prompts, and the instructions in every run."""
        most = min(MOST_EFFECTS, planned.layers or MOST_EFFECTS)
        layers = most if settings.layers is None else len({*settings.layers, -1})
        # A component is removed in the later checkpoint only: on average of both, this makes three runs of two.
        runs = 1 + 1.5 * layers * (1 + settings.nulls)
        return 1.5 * planned.training + PROMPTS_A_ROW * settings.instructions * runs


def _layer(arm: ArmSubject) -> int:
    """The layer that sentences are about: that of the arm's direction."""
    return arm.directions[0].layer if arm.directions else arm.layers[0]


def _texts(arm: ArmSubject, tokens: int) -> list[tuple[int, ...]]:
    """The first tokens of the texts that are long enough. Their number is even, so that there are two equal halves."""
    from demur.inputs.prompt_formats import SLOT
    from demur.inputs.prompts import prompt_format

    plain = prompt_format(SLOT, arm.checkpoint, control_tokens="tokens").encode(arm.train["harmless"])
    long = [tuple(ids[:tokens]) for ids in plain if len(ids) >= tokens]
    if len(long) < LEAST:
        raise InputError(
            f"only {len(long)} of the {len(plain)} harmless training instructions have {tokens} tokens, but the mean difference "
            f"needs {LEAST}; set tokens of difference-lens lower, or give more instructions"
        )
    return long[: len(long) // 2 * 2]


def _read(arm: ArmSubject, texts: Sequence[tuple[int, ...]], site: str, settings: LensSettings) -> "tuple[Tensor, Tensor]":
    """The mean stream of each half of the texts, (half, layer, place, d_model), and the mean norm, (layer, place), float64."""
    import torch

    engine, layers = arm.checkpoint.engine_for("activations"), range(arm.checkpoint.n_layers)
    places = min(settings.first, settings.tokens)
    sums = torch.zeros(2, len(layers), places + 1, arm.checkpoint.d_model, dtype=torch.float64)
    norms = torch.zeros(len(layers), places + 1, dtype=torch.float64)
    positions = range(-settings.tokens, 0)
    # Texts of one length, so a position that counts from the end is one that counts from the beginning.
    found = engine.read(texts, layers=layers, site=cast("Site", site), positions=positions, batch_tokens=BATCH_TOKENS)
    for indices, stream in found:
        whole = stream.double()
        # The first token has activations of its own kind (attention sinks), which would dominate a mean over all.
        each = torch.cat((whole[:, :, :places], whole[:, :, 1:].mean(2, keepdim=True)), dim=2)
        norm = torch.cat((whole[:, :, :places].norm(dim=-1), whole[:, :, 1:].norm(dim=-1).mean(2, keepdim=True)), dim=2)
        norms += norm.sum(0)
        for row, index in enumerate(indices):
            sums[index % 2] += each[row]
        arm.progress(len(indices))
    return sums / (len(texts) / 2), norms / len(texts)


def _cosine(one: "Tensor", other: "Tensor") -> "Tensor":
    """The cosine of the last dimension; NaN for a vector of zeros."""
    import torch

    found: Tensor = (one * other).sum(-1) / (one.norm(dim=-1) * other.norm(dim=-1))
    return torch.where(torch.isfinite(found), found, torch.nan)


def _cosines(subject: PairSubject, mean: "Tensor", settings: LensSettings) -> "dict[str, NDArray[Any]]":
    """The cosine of the mean difference with each checkpoint's direction at every layer, beside shuffled labels."""
    import torch

    cosines, bounds, chances = [], [], []
    for arm in (subject.first, subject.second):
        sides = [arm.train[label] for label in ("harmful", "harmless")]
        if min(map(len, sides)) < LEAST:
            raise InputError(f"it needs at least {LEAST} training instructions of each kind, not {min(map(len, sides))}")
        activations = torch.from_numpy(training_activations(arm, *sides))
        weights = _weights(len(activations), len(sides[0]), settings)
        # Layer by layer, because the directions of all shuffles at all layers together would take much memory.
        found = torch.stack([_cosine_table(weights @ one.double(), mean[at]) for at, one in enumerate(activations.unbind(1))], 1)
        real, null = found[0], found[1:].abs()
        cosines.append(real)
        bounds.append(null.quantile(0.95, dim=0))
        chances.append((1 + (null >= real.abs()).sum(0)) / (1 + settings.draws))
    return {name: torch.stack(each).numpy() for name, each in (("cosine", cosines), ("null95", bounds), ("p", chances))}


def _weights(n: int, harmful: int, settings: LensSettings) -> "Tensor":
    """The weight of each instruction in a difference of means: the real one, then one for each shuffle, (draw, instruction)."""
    import torch

    generator = torch.Generator().manual_seed(settings.seed)
    orders = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(settings.draws))]
    found = torch.full((len(orders), n), -1 / (n - harmful), dtype=torch.float64)
    for row, order in zip(found, orders, strict=True):
        row[order[:harmful]] = 1 / harmful
    return found


def _cosine_table(directions: "Tensor", differences: "Tensor") -> "Tensor":
    """The cosine of each direction, (draw, d_model), with each difference, (place, d_model); NaN for a difference of zero."""
    import torch

    found: Tensor = torch.nn.functional.normalize(directions, dim=-1) @ torch.nn.functional.normalize(differences, dim=-1).T
    return found.masked_fill(differences.norm(dim=-1) == 0, torch.nan)


def _lens(later: "Checkpoint", mean: "Tensor", words: int) -> list[list[str]]:
    """The tokens that the mean difference makes most likely, then those of its opposite: all of each layer and place in turn."""
    from demur.engine.readout.stream_logits import stream_logits

    ends = []
    for sign in (1.0, -1.0):
        # Layer by layer, because logits take much more memory than vectors.
        tops = [stream_logits(later, sign * vectors).topk(words, dim=-1).indices.flatten().tolist() for vectors in mean]
        ends.append([later.tokenizer.decode([token]) for top in tops for token in top])
    return ends


def _effects(
    subject: PairSubject, material: PairMaterial, mean: "Tensor", settings: LensSettings
) -> "Iterator[tuple[DiffRun, BoundedProbability]]":
    """The probability of a refusal in each checkpoint as it is, and with the mean difference taken away or added."""
    from demur.measurements.diffing.pair_probabilities import edited_probabilities

    first, second = (arm.checkpoint.name for arm in (subject.first, subject.second))
    layers = layers_of(settings.layers, len(mean), MOST_EFFECTS)
    for arm, source in ((subject.first, second), (subject.second, first)):
        sign = 1.0 if arm is subject.first else -1.0
        runs: list[DiffRun] = [DiffRun(arm.checkpoint.name, arm.checkpoint.name)]
        edits: list[Intervention | None] = [None]
        for layer in layers:
            for kind, edit in _edits(mean[layer], layer, subject.second.site, sign, settings):
                runs.append(DiffRun(source, arm.checkpoint.name, kind, layer))
                edits.append(edit)
        found = edited_probabilities(
            arm.checkpoint, material.pair, material.prompts, settings.sampling, edits, progress=subject.second.progress
        )
        yield from zip(runs, found, strict=True)


def _edits(vector: "Tensor", layer: int, site: str, sign: float, settings: LensSettings) -> "Iterator[tuple[str, Intervention]]":
    """Edits at one layer; none where both checkpoints have the same stream. A component is removed in the later one only."""
    from demur.directions.controls.random_directions import random_direction
    from demur.directions.direction import from_raw
    from demur.interventions.intervention import ablate, add

    if float(vector.norm()) == 0:
        return
    own = from_raw(vector, name=f"difference-{layer}", layer=layer, site=cast("Site", site))
    named = [("mean difference", "component", own)]
    for number in range(settings.nulls):
        null = random_direction(own, name=f"null-{layer}-{number}", seed=settings.seed)
        named.append(("random shift", "random component", null))
    for shift, component, direction in named:
        yield shift, add(direction, sign, unit="raw", sites=[site])
        if sign < 0:
            yield component, ablate(direction, layers=[layer], sites=[site])
