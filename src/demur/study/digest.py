"""The settings that affect a study's results, as one flat table: for the study's digest, and to compare two studies.

Every key of a study has a mark that says whether it affects results (`spec_fields`). A value that equals its default is left out,
so a key added later changes no digest. This works on plain data, because the stored study of an old run may name parts that are
not installed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import BaseModel, JsonValue
from pydantic_core import to_jsonable_python

from demur.core.errors import InputError
from demur.inputs.prompt_edits import split_edit
from demur.interventions.edit_kind import edit_kind
from demur.study.named_parts import changed_settings
from demur.study.shorthand.arm_names import Arms, arms_by_checkpoint, shortest
from demur.study.shorthand.named_formats import with_earlier_names
from demur.study.spec_fields import SELECT, Decides, DecidesNothing, Facts, Mark, mark_of, one_text, unordered
from demur.study.spec_tables import CheckpointSpec, DirectionSpec, InstructionSpec, InterventionSpec, SelectionSpec
from demur.study.tables.control_tables import ControlSpec

VERSION = 2
"""Version of the digest's rule. Raise it when a default or the meaning of a key changes. Version 1 included every key."""


@dataclass(frozen=True)
class Fact:
    """One key that affects results: its value in the form that is compared, and whether this is the default."""

    value: JsonValue
    default: bool = False


Keys = dict[str, Fact]


@dataclass(frozen=True)
class DecidingFacts:
    """Everything that affects a study's results.

    Attributes:
        keys: facts by their dotted key in the study, without interventions.
        interventions: facts of each intervention by key. They are in the order of the study, but this order affects no result.
    """

    keys: Mapping[str, Fact]
    interventions: tuple[Mapping[str, Fact], ...]

    def table(self) -> dict[str, JsonValue]:
        """The facts as one flat table, defaults left out; interventions are numbered as in the study."""
        numbered = {f"interventions.{n}.{key}": fact for n, edit in enumerate(self.interventions) for key, fact in edit.items()}
        return _not_defaults({**self.keys, **numbered})

    def digest(self) -> str:
        """A hash of 16 hex digits of the facts and of the version of this rule."""
        edits = sorted({json.dumps(_not_defaults(edit), sort_keys=True) for edit in self.interventions})
        content = json.dumps([VERSION, _not_defaults(self.keys), edits], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Difference:
    """A key that affects results and differs between two studies.

    Attributes:
        key: the dotted key in the study.
        here: its value in this study, None if it is not set.
        there: its value in the other.
    """

    key: str
    here: JsonValue
    there: JsonValue


def deciding_facts(model: type[BaseModel], study: Facts) -> DecidingFacts:
    """Collect the settings that affect the results of a study.

    Args:
        model: the model of a study, with a mark on each key.
        study: a study as plain data, as `model_dump(mode="json")` gives it; keys that are missing have their defaults.

    Returns:
        The deciding facts.
    """
    controls = _controls(_table(study.get("controls")))
    controlled = "controls.seed" in controls
    checkpoints = _tables(study.get("checkpoints"))
    prompts = _table(study.get("prompts"))
    # Controls are made arm by arm, so the order of checkpoints and prompts affects results if there are controls.
    keys: Keys = {"checkpoints": Fact(list(checkpoints) if controlled else unordered(list(checkpoints)))}
    for name, spec in checkpoints.items():
        keys |= _marked(CheckpointSpec, spec, f"checkpoints.{name}.")
        written = _formats(spec)
        texts: JsonValue = [prompt if prompt in prompts else one_text(prompt) for prompt in written]
        default = texts == CheckpointSpec.model_fields["prompts"].default
        keys[f"checkpoints.{name}.prompts"] = Fact(texts if controlled else unordered(texts), default)
        own = (split_edit(prompt)[0] for prompt in written)
        keys |= {f"prompts.{prompt}": Fact(one_text(prompts[prompt])) for prompt in own if prompt in prompts}
    for label, spec in _tables(study.get("instructions")).items():
        keys |= _marked(InstructionSpec, spec, f"instructions.{label}.")
    keys |= _marked(DirectionSpec, _table(study.get("direction")), "direction.")
    keys |= controls
    keys |= _marked(model, study, "")
    if _selects(study):
        keys |= _marked(SelectionSpec, _table(study.get("selection")), "selection.")
    arms = arms_by_checkpoint({name: _formats(spec) for name, spec in checkpoints.items()}, prompts)
    edits = [_edit(_table(edit), arms) for edit in cast(list[JsonValue], study.get("interventions") or [])]
    return DecidingFacts(keys, tuple(edits))


def _formats(spec: Facts) -> list[str]:
    return [str(prompt) for prompt in cast(list[JsonValue], spec.get("prompts", ["native"]))]


def _selects(study: Facts) -> bool:
    """Whether a setting is to be selected. If none is, the table `selection` affects nothing."""
    edits = cast(list[JsonValue], study.get("interventions") or [])
    return SELECT in (*_table(study.get("direction")).values(), *(_table(edit).get("coefficient") for edit in edits))


def with_defaults(model: type[BaseModel], study: Facts) -> dict[str, JsonValue]:
    """A study as plain data with every default written out, also for keys that are newer than the demur that wrote the study.

    Args:
        model: the model of a study.
        study: a study as plain data, as a run folder holds it.

    Returns:
        The same study; keys that were given are unchanged.
    """
    filled = _filled(model, study)
    filled["direction"] = _filled(DirectionSpec, _table(study.get("direction")))
    if "interventions" in study:
        # A key that is missing in a stored intervention is newer than the run, and its default is None.
        edits = cast(list[JsonValue], study["interventions"])
        newer: Facts = {"estimators": None, "read_at": None, "span": None, "when": None}
        filled["interventions"] = [{**newer, **_table(edit)} for edit in edits]
    if "controls" in study:
        # How many there are by default depends on the study, so only this key is filled in.
        filled["controls"] = {"completions": None, **_table(study["controls"])}
    for key, table in (("checkpoints", CheckpointSpec), ("instructions", InstructionSpec)):
        filled[key] = {name: _filled(table, spec) for name, spec in _tables(study.get(key)).items()}
    return filled


def deciding_settings(model: type[BaseModel], study: Facts, *, also: Sequence[str] = ()) -> dict[str, JsonValue]:
    """A study as plain data, with defaults and without the keys that affect no result.

    Args:
        model: the model of a study.
        study: a study as plain data, as a run folder holds it.
        also: keys that are kept although they are marked as affecting no result.

    Returns:
        Its settings as they were written. Keys that this version does not know are kept, because they may affect results.
    """
    filled = with_defaults(model, study)
    kept = _only_deciding(model, filled) | {key: filled[key] for key in also}
    # This keeps the order of the study.
    found = {key: kept[key] for key in filled if key in kept}
    for key, table in (("checkpoints", CheckpointSpec), ("instructions", InstructionSpec)):
        found[key] = {name: _only_deciding(table, spec) for name, spec in _tables(found.get(key)).items()}
    return found


def _only_deciding(model: type[BaseModel], facts: Facts) -> dict[str, JsonValue]:
    return {key: value for key, value in facts.items() if key not in model.model_fields or _decides(mark_of(model, key), facts)}


def _decides(mark: Mark, facts: Facts) -> bool:
    return not isinstance(mark, DecidesNothing) and (not isinstance(mark, Decides) or mark.when is None or mark.when(facts))


def _filled(model: type[BaseModel], facts: Facts) -> dict[str, JsonValue]:
    return {**{key: _default(model, key) for key, field in model.model_fields.items() if not field.is_required()}, **facts}


def _default(model: type[BaseModel], key: str) -> JsonValue:
    default = model.model_fields[key].get_default(call_default_factory=True)
    values: JsonValue = to_jsonable_python(default)
    return values


def differences(study: BaseModel, stored: Facts, at_creation: Facts | None = None) -> list[Difference]:
    """The keys that affect results and differ between a study and the study that a run folder holds.

    Args:
        study: the `Study` with which the run is to be resumed.
        stored: the study in the folder as plain data; an earlier version of demur may have written it.
        at_creation: the folder's deciding facts as `Study.deciding` gave them when the folder was made; None in older folders.
            They contain resolved paths, so that a run can be resumed from another working directory.

    Returns:
        One difference for each key, in the order of the study; empty if the run can be resumed.
    """
    here = deciding_facts(type(study), study.model_dump(mode="json"))
    there = deciding_facts(type(study), with_earlier_names(stored))
    kept = at_creation or {}
    found = [
        each
        for each in _differing(here.keys, there.keys, "")
        if each.here is None or each.key not in kept or kept[each.key] != each.here
    ]
    return found + _differing_edits(here.interventions, there.interventions)


def _differing(here: Mapping[str, Fact], there: Mapping[str, Fact], prefix: str) -> list[Difference]:
    found = []
    for key in dict.fromkeys((*here, *there)):
        one, other = here.get(key), there.get(key)
        if _unless_default(one) != _unless_default(other):
            found.append(Difference(prefix + key, one.value if one else None, other.value if other else None))
    return found


def _differing_edits(here: Sequence[Mapping[str, Fact]], there: Sequence[Mapping[str, Fact]]) -> list[Difference]:
    """Compares the interventions that only one of the studies has: the first of one with the first of the other, and so on."""
    known_here, known_there = ([_not_defaults(edit) for edit in side] for side in (here, there))
    ours = [number for number, edit in enumerate(known_here) if edit not in known_there]
    theirs = [number for number, edit in enumerate(known_there) if edit not in known_here]
    found: list[Difference] = []
    for one, other in zip(ours, theirs, strict=False):
        found += _differing(here[one], there[other], f"interventions.{one}.")
    found += [Difference(f"interventions.{number}", known_here[number], None) for number in ours[len(theirs) :]]
    found += [Difference(f"interventions.{number}", None, known_there[number]) for number in theirs[len(ours) :]]
    return found


def refusal(found: Sequence[Difference], where: str, why: str = "") -> InputError:
    """The error for a study that cannot be resumed in a folder. It names the first key that differs, and how to start over.

    Args:
        found: the differences, at least one.
        where: the run folder.
        why: what the first difference would do to the run, if that is not plain; goes on the sentence.
    """
    first, more = found[0], len(found) - 1
    others = "" if not more else f" ({more} more {'key differs' if more == 1 else 'keys differ'})"
    return InputError(
        f"{where!r} holds another study: {first.key} is {shown(first.here)} in this study and {shown(first.there)} in the "
        f"run{others}{', ' if why else ''}{why}; give another --out, or --fresh to start over"
    )


def shown(value: JsonValue) -> str:
    """A value of a key as messages show it."""
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _marked(model: type[BaseModel], facts: Facts, prefix: str) -> Keys:
    """The keys of one table that are marked as affecting results, and unknown keys, because they may affect results."""
    found: Keys = {prefix + key: Fact(value) for key, value in facts.items() if key not in model.model_fields}
    for key, field in model.model_fields.items():
        mark = mark_of(model, key)
        if not isinstance(mark, Decides) or (mark.when is not None and not mark.when(facts)):
            continue
        default = None if field.is_required() else _default(model, key)
        value = facts.get(key, default)
        if mark.form is not None:
            value, default = mark.form(value), mark.form(default)
        found[prefix + key] = Fact(value, not field.is_required() and value == default)
    return found


_NO_KINDS = ("seed", "completions")
"""The keys of `[controls]` that are not kinds of controls."""


def _controls(facts: Facts) -> Keys:
    counts = {kind: count for kind, count in facts.items() if kind not in _NO_KINDS}
    found: Keys = {f"controls.{kind}": Fact(count, count == 0) for kind, count in counts.items()}
    if any(counts.values()):
        for key in _NO_KINDS:
            default = _default(ControlSpec, key)
            found[f"controls.{key}"] = Fact(facts.get(key, default), facts.get(key, default) == default)
    return found


def _edit(facts: Facts, arms: Arms) -> Keys:
    known = {key: value for key, value in facts.items() if key in InterventionSpec.model_fields}
    for key in ("sources", "targets"):
        names = known.get(key)
        if isinstance(names, list):
            known[key] = cast(JsonValue, shortest(list(map(str, names)), arms))
    found = _marked(InterventionSpec, known, "")
    settings = {key: value for key, value in facts.items() if key not in InterventionSpec.model_fields}
    changed = _changed(str(facts.get("kind")), settings) if settings else {}
    return found | {key: Fact(value, key not in changed) for key, value in settings.items()}


def _changed(kind: str, settings: Facts) -> Facts:
    try:
        return changed_settings(edit_kind(kind).settings, settings)
    except InputError:
        # The kind is not installed, so its defaults are unknown. The study to resume with cannot have this kind, so the two
        # studies differ whatever is returned here.
        return settings


def _not_defaults(keys: Mapping[str, Fact]) -> dict[str, JsonValue]:
    return {key: fact.value for key, fact in keys.items() if not fact.default}


def _unless_default(fact: Fact | None) -> JsonValue:
    return None if fact is None or fact.default else fact.value


def _table(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _tables(value: JsonValue) -> dict[str, dict[str, JsonValue]]:
    return {name: _table(table) for name, table in _table(value).items()}
