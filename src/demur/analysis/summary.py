"""The summary of a run: everything that `summary.json` holds, as typed values.

Its JSON Schema ships as `demur/data/summary.schema.json`.
"""

import json
from typing import Literal

from pydantic import JsonValue

from demur.analysis.cell import Answer, Claim, Comparison, JudgedCell, Record
from demur.analysis.diff.diff_details import DiffDetails
from demur.analysis.diff.finding import Finding
from demur.analysis.diff.pair_results import PairResult
from demur.analysis.doses.dose_results import DoseResults
from demur.analysis.factor_effect import FactorEffect
from demur.analysis.harm.harm_results import HarmResult
from demur.analysis.judging.rating_records import Agreement, CorrectedRate, Labeller
from demur.analysis.lineages.lineage_record import Lineage
from demur.analysis.manifest import ArmFacts, CheckpointFacts, DirectionFacts, Environment, InstructionFacts, Session, Settings
from demur.analysis.selection_record import SelectionRecord
from demur.analysis.spreads.pairs_spread import PairsSpread
from demur.analysis.spreads.prompt_spread import PromptSpread
from demur.core.edit_words import EditWords

VERSION = 2
"""Version of the format of the summary. Keys can be added to a version, but none is renamed."""


class Cosines(Record):
    """Pairwise cosines between the directions of the study, controls left out."""

    names: tuple[str, ...] = ()
    matrix: tuple[tuple[float, ...], ...] = ()


class Figure(Record):
    """A rate with its interval. If the source gives no n, only the rate is known."""

    n: int | None = None
    refusals: int | None = None
    rate: float | None = None
    ci95: tuple[float, float] | None = None


class Departure(Record):
    """A setting in which a measured cell differs from the published one."""

    setting: str
    published: JsonValue
    here: JsonValue


class PublishedRow(Record):
    """A published rate with the measured cell it is compared with; see `demur.analysis.published_rates`."""

    work: str
    target: str
    prompt: str | None = None
    instructions: str
    intervention: str
    source: str | None = None
    coefficient: float | None = None
    note: str = ""
    published: Figure
    key: str | None = None
    judge: str | None = None
    measured: Figure | None = None
    difference: float | None = None
    p_value: float | None = None
    differs: bool | None = None
    verdicts_changed_at_least: int | None = None
    settings: str | None = None
    departures: tuple[Departure, ...] = ()
    not_stated: tuple[str, ...] = ()
    reason: str = ""


class TextAndCode(Record):
    """A setting where a publication's text and code differ."""

    work: str
    setting: str
    text: str
    code: str


class MeasurementSummary(Record):
    """The result of one measurement of one subject, without its arrays.

    Attributes:
        name: the measurement.
        version: the version of its method.
        subject: what was measured: an arm, a pair of arms or a cell, by name.
        settings: the measurement's settings, defaults included.
        summary: its numbers, as the measurement names them.
    """

    name: str
    version: int
    subject: str
    settings: dict[str, JsonValue] = {}
    summary: dict[str, JsonValue] = {}


class ArmByLayer(Record):
    """One arm at every layer. Each list has one entry for each layer, which is None if both means are the same there."""

    checkpoint: str
    prompt: str
    raw_norm: tuple[float | None, ...]
    mean_norm: dict[str, tuple[float | None, ...]]
    auroc: tuple[float | None, ...]
    auroc_ci95: tuple[tuple[float | None, ...] | None, ...]
    null_auroc95: tuple[tuple[float | None, ...] | None, ...]
    gap: tuple[float | None, ...]


class PairByLayer(Record):
    """Cosines between two arms' directions, one for each layer. `arms` are indices into `ByLayer.arms`."""

    arms: tuple[int, int]
    values: tuple[float | None, ...]


class Projections(Record):
    """Projections of each held-out instruction on one arm's direction at one layer."""

    arm: int
    layer: int
    harmful: tuple[float | None, ...]
    harmless: tuple[float | None, ...]


class ByLayer(Record):
    """What was measured at every layer."""

    site: str
    position: int
    draws: int
    arms: tuple[ArmByLayer, ...]
    cosines: tuple[PairByLayer, ...] = ()
    cosine_null95: float | None = None
    projections: tuple[Projections, ...] = ()


class Summary(Record):
    """Everything that a report, a table or another program needs to know about a run.

    Attributes:
        version: the version of this format.
        study: the study as plain data, including every default.
        created: when the run was begun, ISO 8601 in UTC.
        versions: versions of the packages that affect numbers, as last used.
        judges: the version of each judge whose verdicts the run holds.
        judge_labels: the labels that each judge gives, in the order of tables.
        edits: the words for each action of the run's kinds of edit; `action` of a cell refers to them.
        sessions: every combination of versions, machine and device that made a part of the run.
        warnings: what a reader of the numbers should know, in sentences.
        environment: the machine that was used last.
        checkpoints: facts of each checkpoint that was loaded, by name.
        arms: each prompt format applied to a checkpoint.
        instructions: facts of each instruction set, by label.
        cells: one entry for each cell and judge, in the study's order.
        selection: the settings that the run selected on validation instructions; None for a run that selected none.
        directions: the stored directions without their vectors.
        cosines: pairwise cosines between the directions, null directions left out.
        by_layer: what was measured at every layer; None for a run that measured no layers.
        measurements: the measurements other than completions, one entry for each measurement and subject.
        comparisons: each edited cell compared with its target without an edit, one entry for each cell and judge.
        pairs: the edits under test with directions from resamples of the training pairs; empty for a run without resamples. The
            cells of resamples are not among `cells`.
        spellings: the rates of refusals under small edits of the prompt formats; empty for a run without such edits. The cells of
            arms with a small edit are not among `cells`.
        factors: what changing the weights does and what changing the prompt format does, one entry for each judge's factor; empty
            for a run whose checkpoints share fewer than two formats.
        harmfulness: whether the directions of each arm tell harm or refusal; empty for a run that did not measure it.
        doses: whether edited cells are still text, where half is refused, and directions compared at one dose.
        lineage: what changes along the checkpoints of the study; None for fewer than three.
        diff: what patches, mixtures and swaps between two checkpoints do to refusals; empty for a run that did not measure it.
        diff_details: what else was measured between two checkpoints: how far apart their next tokens are.
        changed: what fine-tuning changed, as questions with answers.
        labellers: the people who labelled completions.
        agreement: how far every two judges or labellers agree, over the run, in each arm, and in each arm with each edit.
        corrected: refusal rates corrected for the errors of the judges; empty if nobody labelled completions.
        answers: the results of the run in a few sentences.
        claims: one sentence with a verdict for each checkpoint and each edit.
        published: published rates, each with the measured rate.
        text_and_code: settings where a publication's text and code differ.
    """

    version: Literal[2] = 2
    study: Settings
    created: str | None = None
    versions: dict[str, str] | None = None
    judges: dict[str, int | str] = {}
    judge_labels: dict[str, tuple[str, ...]] = {}
    edits: dict[str, EditWords] = {}
    sessions: tuple[Session, ...] = ()
    warnings: tuple[str, ...] = ()
    environment: Environment | None = None
    checkpoints: dict[str, CheckpointFacts] = {}
    arms: tuple[ArmFacts, ...] = ()
    instructions: dict[str, InstructionFacts] = {}
    cells: tuple[JudgedCell, ...] = ()
    selection: SelectionRecord | None = None
    directions: tuple[DirectionFacts, ...] = ()
    cosines: Cosines = Cosines()
    by_layer: ByLayer | None = None
    measurements: tuple[MeasurementSummary, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    pairs: tuple[PairsSpread, ...] = ()
    spellings: tuple[PromptSpread, ...] = ()
    factors: tuple[FactorEffect, ...] = ()
    doses: DoseResults = DoseResults()
    harmfulness: tuple[HarmResult, ...] = ()
    lineage: Lineage | None = None
    diff: tuple[PairResult, ...] = ()
    diff_details: DiffDetails = DiffDetails()
    changed: tuple[Finding, ...] = ()
    labellers: tuple[Labeller, ...] = ()
    agreement: tuple[Agreement, ...] = ()
    corrected: tuple[CorrectedRate, ...] = ()
    answers: tuple[Answer, ...] = ()
    claims: tuple[Claim, ...] = ()
    published: tuple[PublishedRow, ...] = ()
    text_and_code: tuple[TextAndCode, ...] = ()

    def to_json(self) -> str:
        """The text of `summary.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def json_schema() -> str:
    """The JSON Schema of `summary.json` as text: the content of `demur/data/summary.schema.json`.

    Returns:
        A schema of draft 2020-12 that describes what `Summary.to_json` writes. It allows further keys, because later versions of
        demur may add keys.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Summary.model_json_schema(mode="serialization")}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
