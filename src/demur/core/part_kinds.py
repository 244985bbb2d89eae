"""The kinds of parts that can be added to demur, and the parts that demur ships, by name. Nothing is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PartKind:
    """One kind of part.

    Attributes:
        group: the entry-point group in which other packages announce such parts.
        noun: what an error message calls one of them.
        shipped: names of the parts that demur ships, each with its target.
        text: the mark in a text that is the part itself; a text without it names a module. Empty if a text is never a part.
        protocol: the protocol that such a part follows, for error messages; empty if there is none.
        members: the attributes and methods of that protocol, repeated here because importing the protocol may import torch.
        one_of: groups of members of which a part needs at least one each.
        choices: the allowed values of some of these attributes.
        from_file: `module:function` that makes such a part from a TOML file; empty if a file cannot describe one.
    """

    group: str
    noun: str
    shipped: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    protocol: str = ""
    members: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    choices: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    from_file: str = ""

    def names_module(self, target: object) -> bool:
        """Whether a target is a text that names a module and an attribute in it."""
        return isinstance(target, str) and not (self.text and self.text in target)


KINDS: dict[str, PartKind] = {
    "edit": PartKind(
        "demur.edits",
        "kind of edit",
        {
            "ablate": "demur.interventions.ablate:Ablate",
            "add": "demur.interventions.add:Add",
            "affine": "demur.interventions.affine:Affine",
            "clamp": "demur.interventions.clamp:Clamp",
            "leace": "demur.interventions.leace:Leace",
            "subspace": "demur.interventions.ablate_subspace:AblateSubspace",
            "ablate-each": "demur.interventions.ablate_each:AblateEach",
            "angular": "demur.interventions.angular:Angular",
        },
        protocol="demur.interventions.edit_kind.EditKind",
        members=(
            "name",
            "artefact",
            "takes_dose",
            "own_layer",
            "repeats",
            "default_on",
            "settings",
            "words",
            "expected",
        ),
        one_of=(("action", "action_of"), ("operation", "operation_at")),
        choices={"artefact": ("direction", "subspace", "none")},
    ),
    "estimator": PartKind(
        "demur.estimators",
        "direction estimator",
        {
            "difference-of-means": "demur.directions.estimators.difference_of_means:DifferenceOfMeans",
            "mean-projected": "demur.directions.estimators.mean_projected:MeanProjected",
            "whitened": "demur.directions.estimators.whitened:WhitenedDifference",
            "logistic": "demur.directions.estimators.logistic:LogisticProbe",
            "paired-pca": "demur.directions.estimators.paired_pca:PairedPca",
            "k-means": "demur.directions.estimators.k_means:KMeans",
            "som": "demur.directions.estimators.som:SelfOrganisingMap",
        },
        protocol="demur.directions.estimators.estimator.Estimator",
        members=("name", "needs"),
        one_of=(("fit", "fit_several"),),
        choices={"needs": ("means", "activations")},
    ),
    "control": PartKind(
        "demur.controls",
        "kind of control",
        {
            "random": "demur.directions.controls.random_directions:RandomDirections",
            "covariance": "demur.directions.controls.covariance_draws:CovarianceDraws",
            "shuffled-labels": "demur.directions.controls.shuffled_labels:ShuffledLabels",
            "topics": "demur.directions.controls.topic_contrasts:TopicContrasts",
            "halves": "demur.directions.controls.harmless_halves:HarmlessHalves",
            "imperatives": "demur.directions.controls.imperative_contrasts:ImperativeContrasts",
        },
        protocol="demur.directions.controls.control.Control",
        members=("name", "needs", "null_of", "make"),
        choices={"needs": ("direction", "activations")},
    ),
    "judge": PartKind(
        "demur.judges",
        "judge",
        {
            "prefix": "demur.judges.prefix:PrefixJudge",
            "substring": "demur.judges.substring:SubstringJudge",
            "taxonomy": "demur.judges.taxonomy.taxonomy_judge:TaxonomyJudge",
            "taxonomy-probe": "demur.engine.model_judges.taxonomy_probe:TaxonomyProbe",
        },
        protocol="demur.judges.judge.Judge",
        members=("name", "version", "labels", "refusal_labels", "reads_instruction", "needs", "judge"),
        choices={"needs": ("text", "model", "server")},
        from_file="demur.judges.asked.judge_file:read_judge",
    ),
    "judge-kind": PartKind(
        "demur.judge_kinds",
        "kind of judge",
        {
            "openai": "demur.judges.served.openai_judge:OpenAIJudges",
            "classifier": "demur.engine.model_judges.classifier_judge:ClassifierJudges",
        },
        protocol="demur.judges.asked.judge_file.JudgeKind",
        members=("name", "settings", "make"),
    ),
    "judge-format": PartKind(
        "demur.judge_formats",
        "judge format",
        {
            "minos": "demur.judges.formats.minos:Minos",
            "qwen3guard": "demur.judges.formats.qwen3guard:Qwen3Guard",
            "wildguard": "demur.judges.formats.wildguard:WildGuard",
            "llama-guard-3": "demur.judges.formats.llama_guard:LlamaGuard3",
            "llama-guard-4": "demur.judges.formats.llama_guard:LlamaGuard4",
            "granite-guardian": "demur.judges.formats.granite_guardian:GraniteGuardian",
            "strongreject": "demur.judges.formats.strongreject_classifier:StrongRejectClassifier",
            "harmbench": "demur.judges.formats.harmbench:HarmBench",
        },
        protocol="demur.judges.asked.judge_format.JudgeFormat",
        members=(
            "name",
            "version",
            "labels",
            "refusal_labels",
            "family",
            "asks",
            "answers",
            "answer_tokens",
            "max_tokens",
            "question",
            "read",
        ),
        choices={"asks": ("chat", "text"), "answers": ("text", "classes", "tokens")},
    ),
    "measurement": PartKind(
        "demur.measurements",
        "measurement",
        {
            "by-layer": "demur.measurements.by_layer:SeparationByLayer",
            "loss": "demur.measurements.completion_loss:CompletionLoss",
            "coherence": "demur.measurements.text_coherence:TextCoherence",
            "harmfulness": "demur.measurements.harm.harm_measurement:Harmfulness",
            "equivalence": "demur.measurements.ablation_equivalence:AblationEquivalence",
            "refusal-probability": "demur.measurements.exact_refusal.probability_measurement:RefusalProbability",
            "direction-agreement": "demur.measurements.direction_agreement:DirectionAgreement",
            "patching": "demur.measurements.diffing.patching:Patching",
            "amplification": "demur.measurements.diffing.amplification:Amplification",
            "weight-swaps": "demur.measurements.diffing.weight_swaps:WeightSwaps",
            "attribution": "demur.measurements.diffing.attribution:Attribution",
            "difference-lens": "demur.measurements.diffing.difference_lens:DifferenceLens",
            "divergence": "demur.measurements.diffing.response_divergence:ResponseDivergence",
            "features": "demur.measurements.latents.features:Features",
        },
        protocol="demur.measurements.measurement.Measurement",
        members=("name", "version", "subjects", "settings", "measure", "summary"),
        choices={"subjects": ("arm", "pair", "cell")},
    ),
    "engine": PartKind(
        "demur.engines",
        "engine",
        {
            "transformers": "demur.engine.load_transformers:TransformersEngines",
            "vllm": "demur.engine.vllm.load_vllm:VllmEngines",
        },
        protocol="demur.engine.checkpoints.EngineKind",
        members=("name", "load"),
    ),
    "section": PartKind(
        "demur.sections",
        "report section",
        {
            "answer": "demur.report.sections.answer_rates:AnswerRates",
            "claims": "demur.report.sections.claims.claim_table:ClaimTable",
            "rates": "demur.report.sections.baseline_rates:BaselineRates",
            "edited": "demur.report.sections.edited_rates:EditedRates",
            "nulls": "demur.report.sections.claims.null_bands:NullBands",
            "doses": "demur.report.sections.dose_lines:DoseLines",
            "dose-tables": "demur.report.sections.doses.dose_tables:DoseTables",
            "coherence": "demur.report.sections.doses.coherence_table:CoherenceTable",
            "estimators": "demur.report.sections.estimators.estimator_comparison:EstimatorComparison",
            "gates": "demur.report.sections.conditions.gate_table:GateTable",
            "transfer": "demur.report.sections.transfer:Transfer",
            "training-pairs": "demur.report.sections.spreads.training_pairs:TrainingPairs",
            "prompt-spelling": "demur.report.sections.spreads.prompt_spelling:PromptSpelling",
            "lineage": "demur.report.sections.lineages.along_lineage:AlongLineage",
            "weights-and-prompt": "demur.report.sections.factor_table:FactorTable",
            "cosines-by-layer": "demur.report.sections.layer_cosines:LayerCosines",
            "separation": "demur.report.sections.layer_separation_figure:LayerSeparationFigure",
            "norms": "demur.report.sections.layer_norms:LayerNorms",
            "projections": "demur.report.sections.projections:Projections",
            "cosines": "demur.report.sections.direction_cosines:DirectionCosines",
            "harmfulness": "demur.report.sections.harm.harm_tables:HarmTables",
            "what-changed": "demur.report.sections.diff.what_changed:WhatChanged",
            "divergence": "demur.report.sections.diff.divergence_lines:DivergenceAlong",
            "components": "demur.report.sections.diff.attribution_table:AttributionTable",
            "difference-lens": "demur.report.sections.diff.lens_tables:LensTables",
            "features": "demur.report.sections.diff.feature_tables:FeatureTables",
            "selection": "demur.report.sections.selection_by_layer:SelectionByLayer",
            "judges": "demur.report.judging.rater_section:RaterSection",
        },
        protocol="demur.report.sections.section.Section",
        members=("part", "figures", "tables"),
    ),
    "export": PartKind(
        "demur.exports",
        "export format",
        {
            "csv": "demur.runs.exports.completion_tables:CsvExport",
            "jsonl": "demur.runs.exports.completion_tables:JsonlExport",
            "parquet": "demur.runs.exports.completion_tables:ParquetExport",
            "latex": "demur.runs.exports.latex_results:LatexExport",
        },
        protocol="demur.runs.exports.export.Export",
        members=("name", "binary", "content"),
    ),
    "prompt": PartKind(
        "demur.prompts",
        "prompt format",
        {
            "chatml": "demur.inputs.prompt_formats:CHATML",
            "gemma": "demur.inputs.prompt_formats:GEMMA",
            "gemma-base": "demur.inputs.prompt_formats:GEMMA_BASE",
            "vicuna": "demur.inputs.prompt_formats:VICUNA",
            "user-assistant": "demur.inputs.prompt_formats:USER_ASSISTANT",
            "pythia": "demur.inputs.prompt_formats:PYTHIA",
            "llama3": "demur.inputs.prompt_formats:LLAMA3",
            "assistant": "demur.inputs.prompt_formats:ASSISTANT",
            "henchman": "demur.inputs.prompt_formats:HENCHMAN",
            "neutral-document": "demur.inputs.prompt_formats:NEUTRAL_DOCUMENT",
            "transcript": "demur.inputs.prompt_formats:TRANSCRIPT",
            "native": "demur.inputs.chat_templates:NativeTemplate",
            "native-no-thinking": "demur.inputs.chat_templates:NativeNoThinking",
        },
        text="{instruction}",
        protocol="demur.inputs.prompt_formats.PromptFormat",
        members=("adds_special_tokens", "template"),
    ),
    "instructions": PartKind(
        "demur.instructions",
        "instruction set",
        {
            "contrast-harmful": "demur.inputs.registered_sets:contrast_harmful",
            "contrast-harmless": "demur.inputs.registered_sets:contrast_harmless",
            "contrast-lookalike": "demur.inputs.registered_sets:contrast_lookalike",
            "advbench": "demur.inputs.registered_sets:advbench",
            "jailbreakbench": "demur.inputs.registered_sets:jailbreakbench",
            "alpaca": "demur.inputs.registered_sets:alpaca",
            "arditi-harmful": "demur.inputs.registered_sets:arditi_harmful",
            "arditi-harmless": "demur.inputs.registered_sets:arditi_harmless",
        },
    ),
}
"""Every kind of part by its name. The parts that demur ships are listed here and nowhere else."""
