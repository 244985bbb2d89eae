"""The protocol of a section of the report: its input, its figures and tables, and how sections are found.

Sections can be added with `demur.register("section", name, target)`, with the entry-point group `demur.sections`, or with
`sections = ["module:Class"]` in a study. A section describes its figures and tables. The report draws them, writes their files,
and puts them on the page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from demur.analysis.summary import Summary
from demur.core.errors import InputError
from demur.core.registry import reason_of, registry
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
        summary: the summary, completed by `complete_summary`.
        completions: one row for each completion, with its cell and every judge's verdict.
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
        """The judges. Figures use the first one."""
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
        """The transfer matrices of `entries`."""
        return matrices(self.summary, self.entries)

    @cached_property
    def palette(self) -> Mapping[str, str]:
        """The colour of each checkpoint, the same in every figure."""
        return colours(list(self.summary.checkpoints))


@runtime_checkable
class Section(Protocol):
    """A section of the report.

    Attributes:
        part: the part of the page to which it belongs: `answer`, `rates`, `transfer`, `where`, or the title of a further part.
            Sections with the same title share a part.

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
        """Its figures; none if the run has nothing to show."""
        ...

    def tables(self, view: ReportView) -> Sequence[TableSpec]:
        """Its tables, without those of the numbers of its figures; none if there is nothing to show."""
        ...


@dataclass(frozen=True)
class MadeSection:
    """The figures and tables of one section.

    Attributes:
        name: the section's name.
        part: the part of the page to which they belong.
        figures: the figures.
        tables: the tables.
    """

    name: str
    part: str
    figures: tuple[FigureSpec, ...]
    tables: tuple[TableSpec, ...]

    @property
    def shipped(self) -> bool:
        """Whether demur ships it."""
        return self.name in registry("section").kind.shipped

    @cached_property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """The names of its figures, drawings and tables."""
        return {
            "figure": tuple(figure.name for figure in self.figures),
            "drawing": tuple(sheet.name for figure in self.figures for sheet in figure.sheets),
            "table": tuple(table.name for table in self.tables),
        }


def made_sections(view: ReportView) -> tuple[list[MadeSection], list[str]]:
    """Makes the figures and tables of every section.

    Args:
        view: the run.

    Returns:
        Two lists. The first has the sections: those that demur ships, in their order, then those of other packages, then those
        that the study names. A section with several names is in it once. The second list has one sentence for each section that
        failed and is left out. So a faulty package that happens to be installed does not prevent the report. If a section that
        demur ships fails, its error is raised.
    """
    found, used = registry("section"), list[Section]()
    made, left_out = list[MadeSection](), list[str]()
    for name in dict.fromkeys((*found.names(), *names_in(view.summary.study.get("sections")))):
        try:
            section: Section = found.get(name)
            if any(section is other for other in used):
                continue
            used.append(section)
            one = MadeSection(name, section.part, tuple(section.figures(view)), tuple(section.tables(view)))
            _check_names(one, made)
        except Exception as error:  # code of another package may raise any exception
            if name in found.kind.shipped:
                raise
            left_out.append(left_out_sentence(name, error))
        else:
            made.append(one)
    return made, left_out


def left_out_sentence(name: str, error: Exception) -> str:
    """Says that a section is not in the report, and why."""
    return f"The section {name!r} is left out of the report: {reason_of(error)}."


def figures_of(view: ReportView) -> dict[str, FigureSpec]:
    """Every figure of a run by its name, in the order of the page. Sections that cannot be used are left out."""
    return {figure.name: figure for made in made_sections(view)[0] for figure in made.figures}


def _check_names(one: MadeSection, others: Sequence[MadeSection]) -> None:
    """Raises `InputError` if a section uses a name that cannot be a file's name, or that is already taken."""
    for what, names in one.names.items():
        taken = [*(_OWN_TABLES if what == "table" else ()), *(name for other in others for name in other.names[what])]
        for name in names:
            if not _FILE_NAME.fullmatch(name):
                raise InputError(f"{name!r} cannot be the name of a {what} of the report; use letters, digits, '-', '_' and '.'")
            if name in taken:
                raise InputError(f"{name!r} is the name of two {what}s of the report; rename one of them")
            taken.append(name)
