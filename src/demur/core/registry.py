"""Parts that can be added without touching demur: edit kinds, estimators, controls, judges, measurements, engines and more.

Each kind of part has a registry: a table from a name to a target. A target is an object, or a text `module:attribute` that is
imported when the part is first used. Names come from three places: what demur ships, the entry points of installed packages,
and `demur.register`. A target can also be named directly, as `module:attribute`, wherever a study names a part.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from demur.core.errors import InputError, nearest


@dataclass(frozen=True)
class PartKind:
    """One kind of part.

    Args:
        group: the entry-point group in which other packages announce such parts.
        noun: the words for one of them in error messages.
        shipped: names of the parts that demur ships, each with its target.
        text: a mark that every text has that is itself a part; other texts name a module. Empty if no text is a part.
    """

    group: str
    noun: str
    shipped: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def names_module(self, target: object) -> bool:
        """Whether a target is a text that names a module and an attribute in it."""
        return isinstance(target, str) and not (self.text and self.text in target)


KINDS: dict[str, PartKind] = {
    "edit": PartKind(
        "demur.edits",
        "kind of edit",
        {"ablate": "demur.interventions.ablate:Ablate", "add": "demur.interventions.add:Add"},
    ),
    "estimator": PartKind(
        "demur.estimators",
        "direction estimator",
        {"difference-of-means": "demur.directions.estimators.difference_of_means:DifferenceOfMeans"},
    ),
    "control": PartKind(
        "demur.controls",
        "kind of control",
        {"random": "demur.directions.controls.random_directions:RandomDirections"},
    ),
    "judge": PartKind(
        "demur.judges",
        "judge",
        {
            "prefix": "demur.judges.prefix:PrefixJudge",
            "substring": "demur.judges.substring:SubstringJudge",
            "taxonomy": "demur.judges.taxonomy.taxonomy_judge:TaxonomyJudge",
        },
    ),
    "measurement": PartKind(
        "demur.measurements",
        "measurement",
        {
            "by-layer": "demur.measurements.separation_by_layer:SeparationByLayer",
            "loss": "demur.measurements.completion_loss:CompletionLoss",
            "equivalence": "demur.measurements.ablation_equivalence:AblationEquivalence",
        },
    ),
    "engine": PartKind("demur.engines", "engine", {"transformers": "demur.engine.load_transformers:TransformersEngines"}),
    "section": PartKind(
        "demur.sections",
        "report section",
        {
            "rates": "demur.report.sections.baseline_rates:BaselineRates",
            "edited": "demur.report.sections.edited_rates:EditedRates",
            "transfer": "demur.report.sections.transfer:Transfer",
            "cosines-by-layer": "demur.report.sections.layer_cosines:LayerCosines",
            "separation": "demur.report.sections.layer_separation_figure:LayerSeparationFigure",
            "norms": "demur.report.sections.layer_norms:LayerNorms",
            "projections": "demur.report.sections.projections:Projections",
            "cosines": "demur.report.sections.direction_cosines:DirectionCosines",
        },
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
            "native": "demur.inputs.chat_templates:NativeTemplate",
            "native-no-thinking": "demur.inputs.chat_templates:NativeNoThinking",
        },
        text="{instruction}",
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


class Registry:
    """The parts of one kind by name. Nothing is imported before a part is used."""

    def __init__(self, kind: PartKind) -> None:
        self.kind = kind
        self._registered: dict[str, Any] = {}
        self._made: dict[str, Any] = {}

    def register(self, name: str, target: Any) -> None:
        """Add a part, or replace the one of that name.

        Args:
            name: the name under which studies and commands find the part.
            target: the part itself, a class that makes it without arguments, or a text `module:attribute`.

        Raises:
            InputError: for an empty name, or a text that is not `module:attribute`.
        """
        if not name or not name.strip():
            raise InputError(f"a {self.kind.noun} needs a name")
        if self.kind.names_module(target):
            _split(target, self.kind.noun)
        self._registered[name] = target
        self._made.pop(name, None)

    def unregister(self, name: str) -> None:
        """Remove a part that was added with `register`; shipped parts and those of other packages stay."""
        self._registered.pop(name, None)
        self._made.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """The names of all parts, those that demur ships first. Imports none of them."""
        return tuple(dict.fromkeys((*self.kind.shipped, *self._announced(), *self._registered)))

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def get(self, name: str) -> Any:
        """The part of a name, imported now if it was not before.

        Args:
            name: a registered name, or `module:attribute`.

        Returns:
            The part. A target that is a class is called once without arguments, and every call returns that one object.

        Raises:
            InputError: for an unknown name, with the nearest known one, and for a target that cannot be imported.
        """
        if name not in self._made:
            self._made[name] = self._load(name)
        return self._made[name]

    def _load(self, name: str) -> Any:
        if name in self._registered:
            target = self._registered[name]
        elif name in self.kind.shipped:
            target = self.kind.shipped[name]
        elif name in (announced := self._announced()):
            target = announced[name].value
        elif ":" in name and not name.startswith(":"):
            target = name
        else:
            raise InputError(f"there is no {self.kind.noun} {name!r}; {nearest(name, self.names())}")
        found = _imported(target, self.kind.noun) if self.kind.names_module(target) else target
        return found() if isinstance(found, type) else found

    def _announced(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in _points(self.kind.group)}


@cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    # Reading what is installed takes milliseconds, and does not change while a program runs.
    return tuple(entry_points(group=group))


def _split(target: str, noun: str) -> tuple[str, str]:
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"{target!r} does not name a {noun}; expected module:attribute, for example mypackage.parts:MyPart")
    return module, attribute


def _imported(target: str, noun: str) -> Any:
    module, attribute = _split(target, noun)
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module is not ours: its code may raise anything, and its name may not be one
        raise InputError(f"the {noun} {target!r} cannot be imported: {error}") from error
    return found


_REGISTRIES = {name: Registry(kind) for name, kind in KINDS.items()}


def registry(kind: str) -> Registry:
    """The registry of one kind of part.

    Args:
        kind: a key of `KINDS`, such as `judge`.

    Raises:
        InputError: for another kind, with the nearest known one.
    """
    if kind not in _REGISTRIES:
        raise InputError(f"there is no kind of part {kind!r}; {nearest(kind, _REGISTRIES)}")
    return _REGISTRIES[kind]


def register(kind: str, name: str, target: Any) -> None:
    """Add a part of your own, for this Python process; packages announce theirs by entry points instead.

    Args:
        kind: `edit`, `estimator`, `control`, `judge`, `measurement`, `engine`, `section`, `export`, `prompt` or `instructions`.
        name: the name under which studies and commands find the part.
        target: the part itself, a class that makes it without arguments, or a text `module:attribute`.

    Raises:
        InputError: for another kind, an empty name, or a text that is not `module:attribute`.

    Example:
        >>> import demur
        >>> from demur.core.registry import registry
        >>> demur.register("judge", "short-refusal", "mypackage.judges:ShortRefusal")  # imported when it is first used
        >>> "short-refusal" in registry("judge")
        True
        >>> registry("judge").unregister("short-refusal")
    """
    registry(kind).register(name, target)


def check_names(kind: str, names: Iterable[str]) -> None:
    """Raises `InputError` for the first name that no part of this kind has."""
    for name in names:
        registry(kind).get(name)


def check_members(part: object, kind: str, name: str, protocol: type[Any]) -> None:
    """Check that a part has every attribute and method that its protocol names.

    Args:
        part: the part, as it was registered or imported.
        kind: its kind, a key of `KINDS`.
        name: the name under which it was asked for.
        protocol: the protocol of this kind of part.

    Raises:
        InputError: with the members that are missing.
    """
    methods = (member for member, value in vars(protocol).items() if callable(value) and not member.startswith("_"))
    missing = [member for member in (*protocol.__annotations__, *methods) if not hasattr(part, member)]
    if missing:
        home = f"{protocol.__module__}.{protocol.__name__}"
        raise InputError(f"the {KINDS[kind].noun} {name!r} has no {', '.join(missing)}; give it what {home} asks for")
