"""`divergence`: how far apart two checkpoints' next tokens are along responses, and whether ablation brings one to the other."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field, JsonValue

from demur.core.errors import WorkError
from demur.core.progress import Progress, silent
from demur.measurements.diffing.diff_runs import PairInstructions, PairMeasurement, material_of
from demur.measurements.measurement import ArmSubject, MeasurementRecord, PairSubject, PlannedSubject

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from demur.engine.engine_protocol import Branch
    from demur.engine.lockstep.matched_pair import MatchedPair
    from demur.engine.lockstep.pair_tree import Run

LABELS = ("harmful", "harmless")
CHECKED = 4
"""Each checkpoint is compared with itself along this many tokens."""

PROMPTS_A_TOKEN = 0.2
"""A decode step of a few rows takes as long as this part of a prompt. It was so in the demo."""


class DivergenceSettings(PairInstructions):
    """Settings of `divergence`.

    Attributes:
        instructions: how many held-out instructions of each label are measured, from the first.
        max_new_tokens: the length of a response, in tokens.
        ablation: whether the later checkpoint is also measured with its direction ablated.
        nulls: how many random directions are ablated in the same way.
    """

    max_new_tokens: int = Field(default=24, ge=1)
    ablation: bool = True
    nulls: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Compared:
    """Two runs whose next tokens are compared, by their places among all runs: the earlier checkpoint's is 0, the later one's 1.

    Attributes:
        one: the name of the first run: `earlier`, `later`, `ablated` or `null`.
        other: the name of the second run.
        places: the places of both.
    """

    one: str
    other: str
    places: tuple[int, int]


class ResponseDivergence(PairMeasurement):
    """The measurement `divergence` of each pair of checkpoints under one prompt format.

    Both checkpoints run along the greedy response of each of them, and their distributions of the next token are compared at
    every token of the response. After Qi et al. 2024 (arXiv 2406.05946, section 2), who do it on harmful answers; here the
    responses are the checkpoints' own. The ablation sets the later checkpoint's component along its own direction to the mean
    over harmless instructions, at every layer (`demur.affine`).
    """

    name: ClassVar[str] = "divergence"
    settings: ClassVar[type[BaseModel] | None] = DivergenceSettings

    def measure(self, subject: PairSubject, settings: DivergenceSettings) -> MeasurementRecord:
        """Compare both checkpoints along the responses of both.

        Args:
            subject: the pair.
            settings: what is measured.

        Returns:
            For each label four arrays, such as `kl harmful`: the numbers of `distances`, (writer, comparison, instruction,
            token), NaN after the end of a response. The facts `writers`, `one` and `other` name writers and comparisons.

        Raises:
            InputError: if the checkpoints do not match.
            WorkError: if a checkpoint differs from itself.
        """
        material = {label: material_of(subject, settings.instructions, label) for label in LABELS}
        pair = material["harmful"].pair.reversed
        check_itself(pair, material["harmful"].prompts[:2], settings.max_new_tokens)
        runs, compared = _runs(subject.second, settings)
        arrays = {}
        for label, one in material.items():
            progress = subject.second.progress
            found = along_responses(pair, one.prompts, runs, compared, settings.max_new_tokens, progress=progress)
            arrays.update({f"{name} {label}": values for name, values in found.items()})
        facts: dict[str, JsonValue] = {
            "first": subject.first.checkpoint.name,
            "second": subject.second.checkpoint.name,
            "prompt": subject.second.prompt.name,
            "writers": [pair.source.name, pair.target.name],
            "one": [each.one for each in compared],
            "other": [each.other for each in compared],
        }
        return MeasurementRecord(facts, arrays)

    def summary(self, record: MeasurementRecord) -> dict[str, JsonValue]:
        """The mean of each number over all tokens of the responses.

        Args:
            record: what `measure` gave.

        Returns:
            The facts, and for each array a list with one list for each writer: the mean over instructions of the mean over the
            tokens of a response, one for each comparison.
        """
        import numpy

        means = {name: numpy.nanmean(values, axis=3).mean(axis=2).tolist() for name, values in record.arrays.items()}
        return {**record.facts, **means}

    def prompts(self, settings: DivergenceSettings, planned: PlannedSubject) -> float | int:
        """The instructions of both labels with both responses, in every run; and the means that the ablation needs."""
        row = 1 + 2 * settings.max_new_tokens * PROMPTS_A_TOKEN
        # The earlier checkpoint runs once. The later one runs as it is and with each edit; this is the average of both.
        runs = 1 + settings.ablation * (1 + settings.nulls) / 2
        return len(LABELS) * settings.instructions * row * runs + settings.ablation * planned.training / 4


def _runs(later: ArmSubject, settings: DivergenceSettings) -> "tuple[list[Run], list[Compared]]":
    """How the later checkpoint runs, and what is compared."""
    from demur.directions.controls.random_directions import random_direction
    from demur.engine.capture import point_means
    from demur.engine.lockstep.target_edit import TargetEdit
    from demur.interventions.affine_edit import affine

    runs: list[Run] = [None]
    compared = [Compared("later", "earlier", (1, 0))]
    if not settings.ablation or not later.directions:
        return runs, compared
    direction = later.directions[0]
    texts = later.train["harmless"]
    (means,), _ = point_means(later.checkpoint, texts, later.prompt, label="harmless", batch_tokens=later.batch_tokens)
    nulls = [random_direction(direction, name=f"null-{number}", seed=settings.seed) for number in range(settings.nulls)]
    for number, (name, one) in enumerate([("ablated", direction), *(("null", null) for null in nulls)], start=2):
        runs.append(TargetEdit(affine(one, to=means)))
        compared += [Compared(name, "earlier", (number, 0)), Compared(name, "later", (number, 1))]
    return runs, compared


def along_responses(
    pair: "MatchedPair",
    prompts: Sequence[tuple[int, ...]],
    runs: "Sequence[Run]",
    compared: Sequence[Compared],
    max_new_tokens: int,
    *,
    progress: Progress = silent,
) -> "dict[str, NDArray[Any]]":
    """Let both checkpoints write greedy responses, and compare next tokens along each. All runs are along the same tokens.

    Args:
        pair: the earlier checkpoint as the source, the later one as the target.
        prompts: token ids of the prompts.
        runs: how the target runs; first without an edit.
        compared: which runs are compared.
        max_new_tokens: the most tokens of a response.
        progress: called after each batch with the number of its prompts.

    Returns:
        The numbers of `distances` by name, (writer, comparison, instruction, token). The source's responses come first. The
        number at a token is of the distributions from which this token was chosen. It is NaN after the end of a response.
    """
    from demur.engine.lockstep.pair_tree import explore_pair

    tracked = _Responses(pair, compared, (len(prompts), max_new_tokens))
    for done in explore_pair(pair, prompts, runs, tracked.follow, max_new_tokens=max_new_tokens):
        progress(len(done))
    return tracked.found


class _Responses:
    """The greedy responses of both checkpoints while they are written, with what was found along them."""

    def __init__(self, pair: "MatchedPair", compared: Sequence[Compared], shape: tuple[int, int]) -> None:
        import numpy

        from demur.measurements.divergence import Distances

        self._pair, self._compared = pair, compared
        # The checkpoints whose response begins with a branch: 0 for the source, 1 for the target.
        self._writers: dict[Branch, set[int]] = {}
        size = (2, len(compared), *shape)
        self.found = {field.name: numpy.full(size, numpy.nan, dtype=numpy.float32) for field in fields(Distances)}

    def follow(self, branches: "Sequence[Branch]", logits: "Tensor") -> list[list[int]]:
        """Compare the runs after some branches, and go on with the responses that they belong to."""
        from demur.measurements.divergence import distances

        for branch in branches:
            if not branch.tokens:
                self._begin(branch)
        for number, each in enumerate(self._compared):
            one, other = (logits[place] for place in each.places)
            apart = distances(one, other)
            measured = {name: getattr(apart, name).tolist() for name in self.found}
            for place, branch in enumerate(branches):
                for writer in self._writers[branch]:
                    for name, values in self.found.items():
                        values[writer, number, branch.row, len(branch.tokens)] = measured[name][place]
        chosen = logits[:2].max(-1).indices.tolist()
        return [self._followed(branch, [each[place] for each in chosen]) for place, branch in enumerate(branches)]

    def _begin(self, branch: "Branch") -> None:
        """Begin both responses to a prompt, or begin them again if its batch did not fit into memory."""
        self._writers[branch] = {0, 1}
        for values in self.found.values():
            values[:, :, branch.row] = float("nan")

    def _followed(self, branch: "Branch", tokens: Sequence[int]) -> list[int]:
        """The tokens after a branch: those of the checkpoints whose response it is, unless the response ends there."""
        following: dict[int, set[int]] = {}
        for writer in sorted(self._writers.pop(branch)):
            if tokens[writer] not in self._pair.stop_ids:
                following.setdefault(tokens[writer], set()).add(writer)
        for token, writers in following.items():
            self._writers[type(branch)(branch.row, (*branch.tokens, token))] = writers
        return list(following)


def check_itself(pair: "MatchedPair", prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> None:
    """Compare each checkpoint with itself: every divergence must be exactly 0, and every most likely token the same.

    Args:
        pair: the checkpoints.
        prompts: a few prompts.
        max_new_tokens: the most tokens of a response.

    Raises:
        WorkError: if a checkpoint differs from itself.
    """
    import numpy

    from demur.engine.lockstep.matched_pair import matched_pair

    for one in (pair.source, pair.target):
        same = [Compared("later", "earlier", (1, 0))]
        found = along_responses(matched_pair(one, one), prompts, (None,), same, min(CHECKED, max_new_tokens))
        for name, values in found.items():
            worst = float(numpy.nanmax(numpy.abs(values - (name == "agrees"))))
            if worst > 0:
                raise WorkError(
                    f"checkpoint {one.name!r} differs from itself: {name} is {worst:.2g} off, but must be exact, so no "
                    "divergence of this model can be trusted; report this with the model's name"
                )
