"""The protocol of a section of the report: its input, its figures and tables, and how sections are found.

A section is a part that can be added: `demur.register("section", name, target)`, the entry-point group `demur.sections`, or
`sections = ["module:Class"]` in a study. It describes its figures and tables; the report draws them for the page and for paper,
writes their files, and puts them on the page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from demur.analysis.summary import Summary
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.report.cell_view import Entry, entries, judges, names_in
from demur.report.complete_summary import completed
from demur.report.figure_spec import FigureSpec, TableSpec
from demur.report.sections.transfer_matrix import Matrix, matrices
from demur.report.style import colours

if TYPE_CHECKING:
    import pandas

_FILE_NAME = re.compile(r"\w[\w.-]*")

_OWN_TABLES = ("results", "directions", "labels", "published")
"""The names of tables that belong to no section."""


@dataclass(frozen=True)
class ReportView:
    """A run as the sections of its report see it.

    Attributes:
        summary: the summary, with nothing missing.
        completions: one row a completion, with its cell and every judge's verdict.
    """

    summary: Summary
    completions: "pandas.DataFrame"

    @classmethod
    def of(cls, summary: Summary, completions: "pandas.DataFrame") -> "ReportView":
        """The view of a run, from a summary of any version of demur.

        Args:
            summary: the run's summary.
            completions: the run's completions.

        Returns:
            The view.

        Raises:
            InputError: if no cell was judged.
        """
        judges(summary)
        return cls(completed(summary), completions)

    @cached_property
    def judges(self) -> list[str]:
        """The judges, first the one that figures use."""
        return judges(self.summary)

    @property
    def judge(self) -> str:
        """The judge that figures use."""
        return self.judges[0]

    @cached_property
    def all_entries(self) -> list[Entry]:
        """The cells under every judge, in reading order."""
        return entries(self.summary)

    @cached_property
    def entries(self) -> list[Entry]:
        """The cells under the judge that figures use, in reading order."""
        return [entry for entry in self.all_entries if entry.judge == self.judge]

    @cached_property
    def matrices(self) -> list[Matrix]:
        """The transfer matrices of these."""
        return matrices(self.summary, self.entries)

    @cached_property
    def palette(self) -> Mapping[str, str]:
        """The colour of each checkpoint, the same in every figure."""
        return colours(list(self.summary.checkpoints))


@runtime_checkable
class Section(Protocol):
    """A section of the report.

    Attributes:
        part: the part of the page to which it belongs: `rates`, `transfer`, `where`, or the title of a further part. Sections
            with one title share a part.

    Example:
        >>> class Lengths:
        ...     part = "Lengths of completions"
        ...     def figures(self, view):
        ...         return []
        ...     def tables(self, view):
        ...         return []
        >>> from demur.report.sections.section import Section
        >>> isinstance(Lengths(), Section)
        True
    """

    part: str

    def figures(self, view: ReportView) -> Sequence[FigureSpec]:
        """Its figures, none if the run has nothing to show."""
        ...

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """Its tables other than the numbers of its figures, none if there is nothing to show."""
        ...


@dataclass(frozen=True)
class MadeSection:
    """The figures and tables of one section, and the part of the page to which they belong."""

    part: str
    figures: tuple[FigureSpec, ...]
    tables: tuple[TableSpec, ...]


def made_sections(view: ReportView) -> list[MadeSection]:
    """Make the figures and tables of every section for a run.

    Args:
        view: the run.

    Returns:
        The sections that demur ships in their order, then those of other packages, then those that the study names.

    Raises:
        InputError: if a section cannot be found, is none, or gives a name that cannot be a file's or is taken.
    """
    found, parts = registry("section"), []
    for name in dict.fromkeys((*found.names(), *names_in(view.summary.study.get("sections")))):
        section = found.get(name)
        if not isinstance(section, Section):
            raise InputError(f"the report section {name!r} is not a section; it needs a part, figures(view) and tables(view)")
        parts.append(MadeSection(section.part, tuple(section.figures(view)), tuple(section.tables(view))))
    _check_names("figure", [figure.name for part in parts for figure in part.figures])
    _check_names("drawing", [sheet.name for part in parts for figure in part.figures for sheet in figure.sheets])
    _check_names("table", [*_OWN_TABLES, *(table.name for part in parts for table in part.tables)])
    return parts


def figures_of(view: ReportView) -> dict[str, FigureSpec]:
    """Every figure of a run by its name, in the order of the page."""
    return {figure.name: figure for made in made_sections(view) for figure in made.figures}


def _check_names(what: str, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        if not _FILE_NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot be the name of a {what} of the report; use letters, digits, '-', '_' and '.'")
        if name in names[:place]:
            raise InputError(f"{name!r} is the name of two {what}s of the report; rename one of them")
