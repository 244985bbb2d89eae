"""Stores the description of a run: study, instructions, cells, versions, and each checkpoint with its prompts.

A run can be resumed only with the same instructions, weights and tokenizer. A run whose checkpoints cannot exchange directions
is refused.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from demur.analysis.cell import Cell
from demur.analysis.manifest import ArmFacts, CheckpointFacts, Environment, InstructionFacts, Session
from demur.core import versions
from demur.core.edit_words import GATE, WHEN
from demur.core.errors import InputError
from demur.core.same_weights import same_weights
from demur.inputs.chat_templates import is_dated
from demur.inputs.prompt_formats import NATIVE, needs_tokenizer
from demur.inputs.templates.thinking import thinking_of
from demur.interventions.edit_kind import action_of, edit_kind, words_of
from demur.models.quantisation import ROWS_MEET
from demur.runs.conditions.gate_jobs import gate_names
from demur.runs.growing.instruction_records import instruction_facts, refuse_other_instructions
from demur.runs.growing.stored_study import judge_specs, study_facts
from demur.runs.job_inputs import JobInputs
from demur.runs.jobs import asked_measurements
from demur.runs.records import CheckpointLoaded
from demur.runs.store import Store
from demur.study.instruction_sets import expected_change
from demur.study.plan import Arm, PlannedCell
from demur.study.preflight import Ready
from demur.study.spec import Study

if TYPE_CHECKING:
    from demur.engine.checkpoints import Checkpoint


def describe(ready: Ready, store: Store) -> None:
    """Store the description of the run, before anything is computed.

    Args:
        ready: the checked plan.
        store: the run folder.

    Raises:
        InputError: if the instructions are not those that this run began with, and if an estimator is asked for several
            directions and gives one.
    """
    # A report imports this module, and does not need torch.
    from demur.directions.estimators.estimator import check_count, estimator

    study = ready.plan.study
    for one in study.direction.estimators:
        check_count(estimator(one.name), one.directions)
    store.remember_created(datetime.now(UTC).isoformat(timespec="seconds"))
    found = {name: instruction_facts(study, name, material) for name, material in ready.material.items()}
    known = store.recall("instructions")
    if store.begun and isinstance(known, dict):
        refuse_other_instructions(found, {label: InstructionFacts.model_validate(facts) for label, facts in known.items()})
    store.remember_instructions(found)
    store.remember_study(study_facts(study))
    store.remember_judge_specs(judge_specs(study.judges))
    store.warn_of_plan(ready.warnings)
    _rename_checkpoints(study, store)
    gates = [(GATE, settings) for _, settings in gate_names(ready.plan)]
    store.remember_asked([*((one.name, one.settings) for one in asked_measurements(study)), *gates])
    store.remember_edits(words_of({spec.kind: edit_kind(spec.kind) for spec in study.interventions}))
    store.add_planned_directions(direction.name for direction in ready.plan.directions)
    store.add_cells(planned_cell(study, cell) for cell in ready.plan.cells)


def _rename_checkpoints(study: Study, store: Store) -> None:
    """Store the current roles and names of checkpoints; they may change when a run is resumed."""
    for name, facts in store.manifest().checkpoints.items():
        spec = study.checkpoints[name]
        renamed = facts.model_copy(update={"model": spec.model, "adapter": spec.adapter, "role": spec.role})
        if renamed != facts:
            store.remember_checkpoint(name, renamed)


def session_now(device: str) -> Session:
    """Versions, machine and device of the work that is about to begin.

    Args:
        device: the device as it was asked for.
    """
    from demur.models.device_placement import SPREAD, find_device  # imports torch

    return Session(
        versions={**versions.versions(), "python": platform.python_version()},
        environment=Environment(system=platform.system(), machine=platform.machine(), cores=os.cpu_count()),
        device=str(find_device(device) or SPREAD),
    )


def planned_cell(study: Study, planned: PlannedCell) -> Cell:
    """A planned cell as it is stored; the kind of edit gives its action and the expected change.

    Args:
        study: the study.
        planned: one cell of its plan.

    Returns:
        The cell.
    """
    spec, direction = planned.intervention, planned.direction
    if spec is None:
        return Cell(
            key=planned.key,
            target=planned.target.checkpoint,
            prompt=planned.target.prompt,
            instructions=planned.instructions,
            intervention="none",
        )
    kind = edit_kind(spec.kind)
    action = action_of(kind, spec.dose, spec.settings)
    # As in `Intervention.points`: an edit without a direction has no site of its own.
    own = (study.direction.site,) if kind.own_layer and direction is not None else ("all",)
    sites = own if spec.sites is None else tuple(spec.sites)
    return Cell(
        key=planned.key,
        target=planned.target.checkpoint,
        prompt=planned.target.prompt,
        instructions=planned.instructions,
        intervention=spec.kind,
        action=action,
        expected=expected_change(kind, action, planned.instructions, study.instructions, spec.when),
        direction=None if direction is None else direction.name,
        source=None if direction is None else direction.source,
        source_prompt=None if direction is None or direction.control else direction.arm.prompt,
        control=direction is not None and direction.control,
        control_kind="" if direction is None else direction.control_name,
        stands_beside=None if direction is None else direction.beside,
        layer=None if direction is None else direction.layer,
        pairs_seed=None if direction is None else direction.pairs_seed,
        resample_of=None if direction is None else direction.resample_of,
        estimator="" if direction is None else direction.found_by,
        dimension=1 if direction is None else len(direction.members),
        layers=None if spec.layers is None else tuple(spec.layers),
        sites=sites,
        coefficient=spec.dose,
        unit=spec.unit if kind.takes_dose else None,
        positions=spec.positions,
        settings=spec.settings if planned.gate is None else {**spec.settings, WHEN: dict(planned.gate.written)},
    )


def loaded_record(inputs: JobInputs, checkpoint: "Checkpoint", name: str) -> CheckpointLoaded:
    """The record of a checkpoint that was just loaded. It is not stored here.

    Args:
        inputs: what the jobs of the run read.
        checkpoint: the loaded checkpoint.
        name: its name in the study.

    Returns:
        The record, which `admit` checks and stores.
    """
    spec = inputs.study.checkpoints[name]
    facts = CheckpointFacts.model_validate(
        {
            "model": spec.model,
            "adapter": spec.adapter,
            "role": spec.role,
            "source": checkpoint.source,
            "fingerprint": checkpoint.fingerprint,
            "d_model": checkpoint.d_model,
            "n_layers": checkpoint.n_layers,
            "stop_ids": checkpoint.stop_ids,
            "engine": checkpoint.engine.name,
            **checkpoint.facts,
        }
    )
    arms = inputs.ready.plan.arms_of(name)
    warnings = [sentence for arm in arms for sentence in _of_template(checkpoint, arm)]
    warnings += [note for arm in arms if (note := inputs.prompt(arm, checkpoint).marks_note(_texts(inputs)))]
    warnings += [f"{name}: {sentence}" for sentence in checkpoint.warnings]
    if ROWS_MEET in (checkpoint.quantised or ""):
        warnings.insert(0, f"{name} has {ROWS_MEET}, so its completions may depend on the other rows of their batch.")
    tests = inputs.store.earlier_tests()
    now = tuple(_arm_facts(inputs, checkpoint, arm) for arm in arms)
    then = tuple(
        _arm_facts(inputs, checkpoint, arm, tests[arm.name]) if arm.name in tests else facts_now
        for arm, facts_now in zip(arms, now, strict=True)
    )
    return CheckpointLoaded(name, facts, now, tuple(warnings), then if tests else ())


def _arm_facts(inputs: JobInputs, checkpoint: "Checkpoint", arm: Arm, tests: Mapping[str, int] | None = None) -> ArmFacts:
    """The facts of an arm. Its hash is over the training instructions, and the first `tests` instructions of each set."""
    prompt = inputs.prompt(arm, checkpoint)
    return ArmFacts(
        checkpoint=arm.checkpoint,
        prompt=arm.prompt,
        template=prompt.template,
        token_read=prompt.token_read(inputs.study.direction.token),
        token_ids_sha256=hashlib.sha256(json.dumps(prompt.encode(_texts(inputs, tests))).encode()).hexdigest()[:16],
    )


def _texts(inputs: JobInputs, tests: Mapping[str, int] | None = None) -> list[str]:
    """The training and test instructions of a run, in one order; of each set the first `tests`, or all if it is None."""
    material = inputs.ready.material
    counts = {name: len(each.test) for name, each in material.items()} if tests is None else tests
    return [text for name, each in material.items() for text in (*each.train, *each.test[: counts.get(name, 0)])]


def _of_template(checkpoint: "Checkpoint", arm: Arm) -> list[str]:
    """Warnings about a chat template."""
    found = []
    thinking = thinking_of(checkpoint.tokenizer) if arm.spec == NATIVE else None
    if thinking is not None and thinking.sure:
        found.append(
            f"The chat template of {arm.checkpoint} lets the model think before it answers ({thinking.why}), so its first tokens "
            f"are thoughts and refusals are hard to see; {thinking.way_out}."
        )
    if needs_tokenizer(arm.spec) and is_dated(checkpoint.tokenizer):
        found.append(
            f"The chat template of {arm.checkpoint} contains the date; the prompts of this run keep the date on which the run "
            "first loaded the checkpoint."
        )
    return found


def admit(loaded: CheckpointLoaded, store: Store) -> None:
    """Store the facts of a loaded checkpoint, if it belongs to this run.

    Args:
        loaded: the record of the checkpoint.
        store: the run folder.

    Raises:
        InputError: if weights, end tokens, settings or prompts are not those that this run began with, or if the
            checkpoint has another shape than the others.
    """
    manifest = store.manifest()
    _refuse_other_weights(loaded, manifest.checkpoints)
    selected_with = {} if manifest.selection is None else manifest.selection.fingerprints
    if not same_weights(selected_with.get(loaded.name, loaded.facts.fingerprint), loaded.facts.fingerprint):
        raise InputError(
            f"the weights of {loaded.name!r} are not those with which this run selected its settings; give another "
            "--out, or --fresh"
        )
    known = {(arm.checkpoint, arm.prompt): arm for arm in manifest.arms}
    for arm in loaded.arms_when_begun or loaded.arms:
        before = known.get((arm.checkpoint, arm.prompt), arm)
        # Runs of early versions have no hash over the token ids.
        same_ids = before.token_ids_sha256 in ("", arm.token_ids_sha256)
        if (before.template, before.token_read) != (arm.template, arm.token_read) or not same_ids:
            raise InputError(
                f"the tokenizer of {loaded.name!r} makes other prompts in the format {arm.prompt!r} than when this run "
                "began; give another --out, or --fresh"
            )
    store.remember_checkpoint(loaded.name, loaded.facts)
    store.remember_arms(loaded.arms)
    store.warn(loaded.warnings)


def _refuse_other_weights(loaded: CheckpointLoaded, checkpoints: Mapping[str, CheckpointFacts]) -> None:
    name, facts, before = loaded.name, loaded.facts, checkpoints.get(loaded.name)
    if before is not None and not same_weights(before.fingerprint, facts.fingerprint):
        raise InputError(f"the weights of {name!r} are not those this run began with; give another --out, or --fresh")
    # Runs of early versions did not store end tokens and settings.
    if before is not None and before.stop_ids and before.stop_ids != facts.stop_ids:
        raise InputError(
            f"{name!r} ends its completions at the tokens {list(facts.stop_ids)}, but at {list(before.stop_ids)} when this run "
            "began; give another --out, or --fresh"
        )
    if before is not None and before.settings is not None and before.settings != facts.settings:
        raise InputError(
            f"the config.json or adapter_config.json of {name!r} is not the one this run began with, so the same weights may "
            "give other results; give another --out, or --fresh"
        )
    for other, known in checkpoints.items():
        if (known.d_model, known.n_layers) != (facts.d_model, facts.n_layers):
            raise InputError(
                f"{name!r} has {facts.n_layers} layers of width {facts.d_model} and {other!r} has "
                f"{known.n_layers} of {known.d_model}, so their directions cannot be exchanged"
            )
