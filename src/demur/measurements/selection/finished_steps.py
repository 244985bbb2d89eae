"""Results of the finished steps of a selection, so that a selection that was stopped goes on and repeats no finished step."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Form(Protocol[T]):
    """How a result is written as plain data and read again; pydantic's `TypeAdapter` of its type does both."""

    def dump_python(self, instance: T, /) -> object:
        """The result as plain data."""
        ...

    def validate_python(self, object: object, /) -> T:
        """The result of plain data."""
        ...


def _keep_in_memory(_found: dict[str, str]) -> None:
    """For selections that no file keeps."""


@dataclass(frozen=True)
class FinishedSteps:
    """The results of steps, each by everything that it depends on.

    Attributes:
        found: the results as JSON. It grows with every step.
        save: called with all results after every step that was done.
        scope: what all steps have in common.
    """

    found: dict[str, str] = field(default_factory=dict)
    save: Callable[[dict[str, str]], object] = _keep_in_memory
    scope: tuple[object, ...] = ()

    def within(self, *parts: object) -> "FinishedSteps":
        """The same results, for steps that depend on these parts as well."""
        return replace(self, scope=(*self.scope, *parts))

    def done(self, form: Form[T], parts: Sequence[object], make: Callable[[], T], skipped: Callable[[], object]) -> T:
        """The result of a step: the one that is known, or a new one, which is saved.

        Args:
            form: how the result is written as plain data and read again.
            parts: what the step depends on, beside the scope.
            make: does the step.
            skipped: called instead if the result is known, for example to tell a progress bar.

        Returns:
            The result.
        """
        key = hashlib.sha256(json.dumps([*self.scope, *parts], sort_keys=True).encode()).hexdigest()
        if key in self.found:
            skipped()
        else:
            # It is read from this text now, too, so that a selection is the same whether it was stopped or not.
            self.found[key] = json.dumps(form.dump_python(make()))
            self.save(self.found)
        return form.validate_python(json.loads(self.found[key]))
