"""Carries out a checked plan: loads checkpoints in its order, extracts directions, generates every cell.

What is stored already is not done again. What may not belong to the run is refused where it is written down (`runs/manifest.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from demur.core.errors import WorkError
from demur.core.progress import Phases
from demur.directions.controls.random_directions import random_direction
from demur.directions.direction import Direction
from demur.engine.capture import mean_activations
from demur.engine.checkpoints import Checkpoint, free_memory, load_checkpoint
from demur.engine.generate import Completion, CompletionRequest, generate_batches
from demur.interventions.intervention import Intervention, ablate, add
from demur.measurements.extraction import directions_between, provenance
from demur.measurements.layer_separation import measure
from demur.models import memory_budget
from demur.models.model_size import size_of
from demur.runs.manifest import describe_checkpoint, describe_session, prompt_of
from demur.runs.store import Store
from demur.study.load_order import Step, order_steps
from demur.study.plan import Arm, Plan, PlannedCell, PlannedDirection
from demur.study.preflight import Material, Ready
from demur.study.spec import LABELS, Label, Study


@dataclass
class Work:
    """One run at work. `held` are the checkpoints in memory."""

    ready: Ready
    store: Store
    device: str
    phases: Phases
    held: dict[str, Checkpoint] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """What is to be done."""
        return self.ready.plan

    @property
    def study(self) -> Study:
        """What was asked for."""
        return self.plan.study

    @property
    def material(self) -> Mapping[Label, Material]:
        """The instructions."""
        return self.ready.material

    def carry_out(self) -> None:
        """Load, extract and generate what is not stored yet, in the plan's order."""
        extract = [n for n in self.study.checkpoints if any(self._unread(arm) for arm in self.plan.arms_of(n))]
        generate = [n for n in self.study.checkpoints if self._pending(n)]
        if not extract and not generate:
            return
        describe_session(self.store, self.device)
        sizes = {name: self._size(name) for name in self.study.checkpoints}
        for step in order_steps(extract, generate, sizes, memory_budget.available(self.device)):
            self._take(step)

    def _take(self, step: Step) -> None:
        if step.action == "load":
            with self.phases(f"loading {step.checkpoint}", 1) as progress:
                self.held[step.checkpoint] = self._load(step.checkpoint)
                progress(1)
        elif step.action == "extract":
            self._extract(step.checkpoint)
        elif step.action == "generate":
            self._controls()
            self._generate(step.checkpoint)
        else:
            del self.held[step.checkpoint]
            free_memory()

    def _size(self, name: str) -> int | None:
        size = size_of(self.ready.sources[name])
        return None if size is None else size.bytes(self.study.dtype, self.study.checkpoints[name].quantise)

    def _load(self, name: str) -> Checkpoint:
        spec = self.study.checkpoints[name]
        checkpoint = load_checkpoint(
            spec.model,
            adapter=spec.adapter,
            revision=spec.revision,
            dtype=self.study.dtype,
            quantise=spec.quantise,
            device=self.device,
            name=name,
        )
        describe_checkpoint(self.ready, self.store, checkpoint, name)
        return checkpoint

    def _own(self, name: str) -> list[PlannedDirection]:
        return [d for d in self.plan.directions if d.arm.checkpoint == name and not d.control]

    def _unread(self, arm: Arm) -> bool:
        """Is there anything left to read from this arm's activations?"""
        own = [d for d in self._own(arm.checkpoint) if d.arm == arm]
        return not (all(self.store.has_direction(d.name) for d in own) and self.store.has_layerwise(arm.name))

    def _extract(self, name: str) -> None:
        """The means of every layer: directions are read from them, and held-out instructions are laid along them."""
        checkpoint, settings = self.held[name], self.study.direction
        train = [self.material[label].train for label in LABELS]
        held_out: dict[str, Sequence[str]] = {label: self.material[label].test for label in LABELS}
        place = {"site": settings.site, "position": settings.position}
        for arm in filter(self._unread, self.plan.arms_of(name)):
            prompt = prompt_of(checkpoint, arm, self.store)
            reading: Any = {**place, "batch_tokens": self.study.batch_tokens}
            with self.phases(f"directions of {arm.name}", sum(map(len, (*train, *held_out.values())))) as progress:
                layers = range(checkpoint.n_layers)
                harmful, harmless = (
                    mean_activations(checkpoint, side, prompt, layers=layers, progress=progress, **reading) for side in train
                )
                measured = measure(checkpoint, harmful, harmless, held_out, prompt, progress=progress, **reading)
            planned = [d for d in self._own(name) if d.arm == arm]
            found = directions_between(
                harmful,
                harmless,
                name=name,
                layers=settings.layers,
                site=settings.site,
                position=settings.position,
                facts=provenance(checkpoint, prompt, settings.position, *train),
            )
            for plan, direction in zip(planned, found, strict=True):
                self._keep(plan, replace(direction, name=plan.name))
            self.store.add_layerwise(arm.name, {"checkpoint": arm.checkpoint, "prompt": arm.prompt, **place}, measured)

    def _controls(self) -> None:
        for plan in self.plan.directions:
            if plan.beside is not None and not self.store.has_direction(plan.name):
                self._keep(plan, random_direction(self._direction(plan.beside), name=plan.name, seed=self.study.controls.seed))

    def _keep(self, plan: PlannedDirection, direction: Direction) -> None:
        self.store.add_direction(
            direction,
            {
                "name": plan.name,
                "source": plan.source,
                "prompt": plan.arm.prompt,
                "control": plan.control,
                "layer": direction.layer,
                "position": direction.position,
                "site": direction.site,
                "raw_norm": direction.raw_norm,
                "mean_residual_norm": direction.provenance.get("mean residual norm"),
                "fingerprint": direction.provenance.get("fingerprint"),
                "file": f"directions/{plan.name}.safetensors",
            },
        )

    def _direction(self, name: str) -> Direction:
        found = self.store.direction(name)
        if found is None:
            raise WorkError(f"direction {name!r} is missing from {str(self.store.folder)!r}; run the study again with --fresh")
        return found

    def _pending(self, name: str) -> list[tuple[PlannedCell, int]]:
        missing = []
        for cell in self.plan.of(name):
            done = self.store.done(cell.key)
            missing += [(cell, i) for i in range(len(self.material[cell.instructions].test)) if i not in done]
        return missing

    def _generate(self, name: str) -> None:
        checkpoint, pending = self.held[name], self._pending(name)
        prompts = {arm: prompt_of(checkpoint, arm, self.store) for arm in self.plan.arms_of(name)}
        ids = {(arm, label): prompt.encode(self.material[label].test) for arm, prompt in prompts.items() for label in LABELS}
        edits = {cell.key: self._edit(cell) for cell in self.plan.of(name)}
        requests = [
            CompletionRequest(
                self.material[cell.instructions].test[i], tuple(ids[cell.target, cell.instructions][i]), edits[cell.key]
            )
            for cell, i in pending
        ]
        batches = generate_batches(
            checkpoint,
            requests,
            max_new_tokens=self.study.max_new_tokens,
            stop_at_eos=self.study.stop_at_eos,
            until_verdicts=self.study.judges if self.study.until_verdict else (),
            batch_tokens=self.study.batch_tokens,
        )
        with self.phases(f"completions of {name}", len(requests)) as progress:
            for finished in batches:
                self.store.add_completions(self._stored(pending, finished))
                progress(len(finished))

    def _stored(
        self, pending: Sequence[tuple[PlannedCell, int]], finished: Mapping[int, Completion]
    ) -> list[tuple[str, int, str, str, Sequence[int]]]:
        stored: list[tuple[str, int, str, str, Sequence[int]]] = []
        for row, made in finished.items():
            cell, index = pending[row]
            stored.append((cell.key, index, made.instruction, made.text, made.token_ids))
        return stored

    def _edit(self, cell: PlannedCell) -> Intervention | None:
        spec, planned = cell.intervention, cell.direction
        if spec is None or planned is None:
            return None
        direction = self._direction(planned.name)
        if spec.kind == "ablate":
            return ablate(direction, layers=spec.layers, sites=spec.sites, positions=spec.positions)
        assert spec.coefficient is not None
        edit = add(direction, spec.coefficient, unit=spec.unit, layers=spec.layers, sites=spec.sites, positions=spec.positions)
        if not edit.needs_residual_norm:
            return edit
        own = next(d for d in self._own(cell.target.checkpoint) if (d.arm, d.layer) == (cell.target, planned.layer))
        norm = self._direction(own.name).provenance.mean_residual_norm
        assert norm is not None, "every direction of an arm has one"
        return edit.with_residual_norm(norm)
