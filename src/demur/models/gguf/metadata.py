"""What a GGUF file says of itself: its keys and the tensors that it holds. Nothing is converted here."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demur.core.errors import InputError, short

if TYPE_CHECKING:
    from gguf import ReaderTensor

Value = str | int | float | bool | Sequence[str] | Sequence[int] | Sequence[float] | Sequence[bool]


@dataclass(frozen=True)
class Facts:
    """The content of a GGUF file's header.

    Attributes:
        path: the file.
        architecture: what `general.architecture` says.
        values: every key with its value.
        tensors: every tensor by its name.
    """

    path: Path
    architecture: str
    values: Mapping[str, Value]
    tensors: "Mapping[str, ReaderTensor]"

    @property
    def name(self) -> str:
        """The file's path for error messages."""
        return repr(str(self.path))

    @property
    def own(self) -> Mapping[str, Value]:
        """The keys of the architecture, without its name in front."""
        front = f"{self.architecture}."
        return {key.removeprefix(front): value for key, value in self.values.items() if key.startswith(front)}

    @property
    def head_width(self) -> int:
        """The width of one attention head.

        Raises:
            InputError: if no key says so.
        """
        return self.whole("attention.key_length") or self.needed("embedding_length") // self.needed("attention.head_count")

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a tensor as torch writes it; `()` if the file has no such tensor."""
        found = self.tensors.get(tensor)
        return () if found is None else tuple(int(size) for size in reversed(found.shape))

    def number(self, key: str, otherwise: float | None = None) -> float | None:
        """The number under a key of the architecture.

        Raises:
            InputError: if the key holds something else.
        """
        value = self.own.get(key, otherwise)
        if value is None or isinstance(value, int | float):
            return value
        raise InputError(f"{self.name} states '{self.architecture}.{key}' = {shown(value)}; a number is expected")

    def whole(self, key: str) -> int | None:
        """The whole number under a key of the architecture. A list with one and the same number for each layer counts as that.

        Raises:
            InputError: if the key holds something else.
        """
        value = self.own.get(key)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(set(value)) == 1:
            value = value[0]
        if value is None or isinstance(value, int):
            return value
        raise InputError(
            f"{self.name} states '{self.architecture}.{key}' = {shown(value)}; one whole number for all layers is expected, "
            "because demur converts no model whose layers differ in this"
        )

    def needed(self, key: str) -> int:
        """The whole number under a key of the architecture that every file must have.

        Raises:
            InputError: if there is none.
        """
        found = self.whole(key)
        if found is None:
            raise InputError(f"{self.name} has no key '{self.architecture}.{key}', which its model needs; fetch it again")
        return found


def read_facts(path: Path) -> Facts:
    """Read the header of a GGUF file.

    Raises:
        InputError: for a file that cannot be read or does not name its architecture.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        values = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    except (ValueError, IndexError, KeyError, OSError, struct.error) as error:
        raise InputError(f"{str(path)!r} cannot be read as a GGUF file ({error}); fetch it again") from error
    architecture = str(values.get("general.architecture", ""))
    return Facts(path, architecture, values, {str(one.name): one for one in reader.tensors})


def shown(value: object) -> str:
    """A value as a message shows it: long lists and texts are cut."""
    return short(repr(value))
