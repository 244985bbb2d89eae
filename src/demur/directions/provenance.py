"""Where a direction comes from: weights, prompt and instructions, and for a direction from a file the facts in that file.

Every fact has a field with a type. Its key, in a direction's file and in `provenance["prompt text"]`, is the name of the field
with spaces instead of underscores. Only facts that were given have a key.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from demur.core.errors import InputError

_MOST_LAYERS = 10_000
"""No model has so many. If a file claimed more, a writer would allocate memory for them."""


class InstructionFacts(BaseModel):
    """The instructions of one label.

    Attributes:
        n: how many.
        sha256: 16 hex digits over their texts in order, as `demur.inputs.instructions.digest` gives them.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    n: int
    sha256: str


class ArchitectureFacts(BaseModel):
    """The model that a direction belongs to.

    Attributes:
        family: its transformers `model_type`.
        layers: its number of blocks.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    family: str
    layers: int = Field(gt=0, lt=_MOST_LAYERS)


class Provenance(BaseModel):
    """Where a direction comes from. It is frozen; `replaced` gives a changed copy. It also reads like a mapping over its keys.

    A field that is None was not given. Only for `adapter` and `quantised` can None also be given, and it then means "without".
    `in` tells whether a key was given. Facts that only one file format has are kept too, and are read by their keys.

    Attributes:
        method: how the direction was found, for example "difference of means".
        checkpoint: the checkpoint's name.
        source: where its weights come from: a hub id with its revision, or the name of a folder or file.
        adapter: the adapter on it.
        fingerprint: digest of its weights.
        architecture: its family and number of blocks.
        weights: the dtype of its weights, for example "torch.float32".
        quantised: how its weights are quantised.
        prompt: the name of the prompt format.
        prompt_text: its text with `{instruction}`.
        prompt_digest: digest over that text and its policy on special tokens.
        token_read: the token at the position that was read, or "a token of the instruction".
        harmful: the harmful instructions.
        harmless: the harmless instructions.
        versions: versions of the packages that affect numbers.
        mean_residual_norm: mean norm of the activations that the direction was made from. The unit "residual" is this norm.
        control_of: for a control, the name of the direction that it belongs to.
        seed: for a control, the seed that it was made with.
        cosine: for a control, its cosine with the direction that it belongs to.
        file: the name of the file that the direction was read from, if it is in another tool's format.
        format: the format of that file.
        stored_dtype: the dtype of the vector in that file.
        not_in_the_file: which of layer, site, position and raw norm that file does not have.

    Example:
        >>> from demur.directions.provenance import Provenance
        >>> read = Provenance(method="difference of means", prompt_text="USER: {instruction}", mean_residual_norm=12.5)
        >>> read.mean_residual_norm, read["prompt text"], read.get("seed", "no seed")
        (12.5, 'USER: {instruction}', 'no seed')
        >>> list(read)
        ['method', 'prompt text', 'mean residual norm']
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, populate_by_name=True, alias_generator=lambda name: name.replace("_", " ")
    )
    # The type of facts without a field. `init=False`, because it is not an argument.
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    method: str | None = None
    checkpoint: str | None = None
    source: str | None = None
    adapter: str | None = None
    fingerprint: str | None = None
    architecture: ArchitectureFacts | None = None
    weights: str | None = None
    quantised: str | None = None
    prompt: str | None = None
    prompt_text: str | None = None
    prompt_digest: str | None = None
    token_read: str | None = None
    harmful: InstructionFacts | None = None
    harmless: InstructionFacts | None = None
    versions: dict[str, str] | None = None
    mean_residual_norm: float | None = None
    control_of: str | None = None
    seed: int | None = None
    cosine: float | None = None
    file: str | None = None
    format: str | None = None
    stored_dtype: str | None = None
    # Not strict, because JSON has lists and no tuples.
    not_in_the_file: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def grid_layers(self) -> int | None:
        """The length of the layer axis, for a direction from a tensor with one vector for each layer of a model."""
        grid = self.get("grid")
        return grid[1] if isinstance(grid, list) and len(grid) == 2 and isinstance(grid[1], int) else None

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "Provenance":
        """Read facts by their keys, as they are in a direction's file.

        Args:
            facts: values by key; those without a field must be JSON values.

        Raises:
            InputError: for a value of a wrong type, with its key.
        """
        try:
            return cls.model_validate(dict(facts))
        except ValidationError as error:
            key = error.errors()[0]["loc"][0]
            raise InputError(
                f"the provenance of a direction has {key!r} of a wrong kind; demur.directions.provenance lists what is expected"
            ) from error

    def replaced(self, **changes: object) -> "Provenance":
        """A copy with some facts changed or added.

        Args:
            **changes: new values by field name.

        Raises:
            InputError: for a value of a wrong type, with its key.
        """
        return Provenance.of({**self.facts(), **{name.replace("_", " "): value for name, value in changes.items()}})

    def facts(self) -> dict[str, object]:
        """The facts that were given, by key, as JSON values: what a direction's file has."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def __repr__(self) -> str:
        return f"Provenance({self.facts()!r})"

    def __getitem__(self, key: str) -> Any:
        return self.facts()[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The fact of a key, or `default` if it was not given."""
        return self.facts().get(key, default)

    def keys(self) -> list[str]:
        """The keys of the facts that were given."""
        return list(self.facts())

    def items(self) -> list[tuple[str, object]]:
        """The facts that were given, with their keys."""
        return list(self.facts().items())

    def values(self) -> list[object]:
        """The values of the facts that were given."""
        return list(self.facts().values())

    def __contains__(self, key: object) -> bool:
        return key in self.facts()

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.facts())

    def __len__(self) -> int:
        return len(self.facts())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Provenance):
            return self.facts() == other.facts()
        return dict(other) == self.facts() if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.facts())))


# So that `isinstance(provenance, Mapping)` is true.
Mapping.register(Provenance)
