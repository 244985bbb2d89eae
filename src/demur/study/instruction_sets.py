"""The instruction sets of a study: `harmful` and `harmless`, from which directions are made, and further ones to ask as well."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from demur.core.registry import is_short_name
from demur.inputs.prompt_formats import NAME_BYTES
from demur.interventions.edit_kind import EditKind
from demur.study.spec_fields import LABELS
from demur.study.spec_tables import GateSpec, InstructionSpec


def check_sets(sets: Mapping[str, InstructionSpec]) -> None:
    """Check names of instruction sets, and keys that not every set has.

    Args:
        sets: the sets of a study by name.

    Raises:
        ValueError: if `harmful` or `harmless` is missing, if a name cannot be used, or if a key does not belong to a set.
    """
    for label in LABELS:
        if label not in sets:
            raise ValueError(f"instructions.{label} is missing")
        for key in ("split", "like"):
            if getattr(sets[label], key):
                raise ValueError(f"instructions.{label}.{key} cannot be set; {key} is for sets other than harmful and harmless")
    if len({name.casefold() for name in sets}) < len(sets):
        raise ValueError(f"{', '.join(sets)}: two names of instruction sets differ only in capitals")
    for name in sets:
        if not is_short_name(name) or len(name.encode()) > NAME_BYTES:
            raise ValueError(
                f"{name[:40]!r} is not a name for an instruction set: use letters, digits, - and _, at most {NAME_BYTES} bytes"
            )
        meant = [] if name in LABELS else get_close_matches(name, LABELS, n=1, cutoff=0.9)
        if meant:
            raise ValueError(f"the instruction set {name!r} has nearly the name {meant[0]!r}; did you mean {meant[0]!r}?")


def expected_change(
    kind: EditKind, action: str, name: str, sets: Mapping[str, InstructionSpec], gate: GateSpec | None = None
) -> Literal[-1, 0, 1]:
    """The sign of the change in refusals that is expected of an edit on an instruction set; 0 if none is.

    Args:
        kind: the kind of edit.
        action: its action.
        name: the instruction set. On one that is neither `harmful` nor `harmless`, the expectation is that of the first set under
            its key `like` on which a change is expected.
        sets: the sets of the study.
        gate: the gate of the edit; None if it always acts. No change is expected where the gate is meant to be closed. An edit
            that raises refusals of harmless instructions is expected to raise those of harmful ones, if its gate is for these.
    """
    like = [name] if name in LABELS else sets[name].like
    found = (kind.expected(action, label) if gate is None else _where_open(kind, action, label, gate) for label in like)
    return next((sign for sign in found if sign), 0)


def _where_open(kind: EditKind, action: str, label: str, gate: GateSpec) -> Literal[-1, 0, 1]:
    if label != gate.opens_for:
        return 0
    raises = kind.expected(action, "harmless") > 0
    return 1 if label == "harmful" and raises else kind.expected(action, label)
