"""The protocol of an export, which writes a run in another program's format. To add one, write a class and register it."""

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from demur.core.registry import registry

if TYPE_CHECKING:
    from demur.runs.run import Run


@runtime_checkable
class Export(Protocol):
    """A format in which a run can be written.

    Attributes:
        name: the format's name, for `demur export --format`.
        binary: whether the content is bytes, which cannot be printed.
    """

    name: ClassVar[str]
    binary: ClassVar[bool]

    def content(self, run: "Run") -> str | bytes:
        """The content of a file in this format.

        Args:
            run: the run.

        Returns:
            Bytes if `binary` is True, else text.

        Raises:
            InputError: if the run has nothing to write, or if a package that the format needs is not installed.
        """
        ...


def export_format(name: str) -> Export:
    """Find an export format by its name, or by `module:Class`.

    Args:
        name: the format's name.

    Raises:
        InputError: if the name is unknown, with the nearest known name; or if the class lacks an attribute of the protocol.
    """
    found: Export = registry("export").get(name)
    return found
