"""The protocol of an export, which writes a run in another program's format. To add one, write a class and register it."""

from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from demur.core.atomic_files import replace_file
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.runs.run import Run, open_run


@runtime_checkable
class Export(Protocol):
    """A format in which a run can be written.

    Attributes:
        name: the format's name, for `demur export --format`.
        binary: whether the content is bytes, which cannot be printed.
    """

    name: ClassVar[str]
    binary: ClassVar[bool]

    def content(self, run: Run) -> str | bytes:
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


def export(run: Run | str | Path, format: str = "csv", out: str | Path | None = None, *, raw: bool = False) -> str | bytes | Path:
    """A run in another program's format.

    Args:
        run: a run, or its folder.
        format: the name of the format: `csv`, `jsonl`, `parquet`, `latex`, or one that was registered.
        out: a file to write; None to get the content.
        raw: for `csv`, write every text unchanged, also one that a spreadsheet would compute.

    Returns:
        The content, as text, or as bytes if the format is binary; or the path of the file that was written.

    Raises:
        InputError: for an unknown format, for a folder without a run, if the run has nothing to write, or if a package that the
            format needs is not installed.

    Example:
        >>> import demur
        >>> demur.export("nowhere", "cvs")
        Traceback (most recent call last):
        demur.core.errors.InputError: ...

        With a run folder, such as the one that `make demo` makes (not run as a doctest):

        >>> demur.export("runs/demo", "parquet", "completions.parquet")  # doctest: +SKIP
    """
    chosen = export_format(format)
    content_of = getattr(chosen, "raw_content", None) if raw else chosen.content
    if content_of is None:
        raise InputError(f"raw=True is for csv; the format {format!r} holds every text unchanged anyway")
    with nullcontext(run) if isinstance(run, Run) else open_run(run) as opened:
        content: str | bytes = content_of(opened)
    return content if out is None else replace_file(Path(out), content)
