"""Reads a run: its cells, completions, claims and summary, computed from the run folder.

A judge can be added without generating anything: `judge_stored` judges every stored completion that has no verdict. If the
version of a judge has changed, it judges all completions again, so that all counts come from the same rules.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from warnings import warn

from demur.analysis.cell import Claim, JudgedCell, Sentence
from demur.analysis.manifest import Manifest
from demur.analysis.rates import judged_cells
from demur.analysis.study_facts import StudyFacts
from demur.analysis.summary import MeasurementSummary, Summary
from demur.core.errors import InputError, WorkError, nearest
from demur.core.html_repr import facts_table
from demur.core.progress import Phases, no_phases
from demur.report.large_runs.paused_collection import collection_paused
from demur.runs.database.completion_frame import completion_frame
from demur.runs.database.consistency import check_consistent
from demur.runs.growing.added_judges import add_judges
from demur.runs.judging_stored import asking_judges, failure_warnings, judge_stored
from demur.runs.run_summary import summarise
from demur.runs.store import Store
from demur.runs.summarising.judged_rows import judged_rows

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure

    from demur.directions.direction import Direction
    from demur.report.figure_spec import Sheet


class Run:
    """An open run folder.

    Everything is read from the folder when it is needed, so a run can be read before it is finished.

    Attributes:
        path: the run folder.

    Example:
        These lines need a run folder, such as the one that `make demo` makes, so they are not run as a doctest.

        >>> import demur
        >>> run = demur.open_run("runs/demo")  # doctest: +SKIP
        >>> run.cells()[["target", "intervention", "source", "rate"]]  # doctest: +SKIP
        >>> run.claims().query("verdict == 'supported'")  # doctest: +SKIP
        >>> run.summary()["answers"][0]["text"]  # doctest: +SKIP
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.path = store.folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the run folder; nothing can be read from the run afterwards. `with open_run(...) as run:` closes it, too."""
        self._store.close()

    def __repr__(self) -> str:
        cells, done = self._progress()
        return f"Run({self._study().name!r}, {cells} cells, {done} completions, in {str(self.path)!r})"

    def _repr_html_(self) -> str:
        with self._store.snapshot():
            manifest, (cells, done), judges = self.manifest(), self._progress(), self.judges()
        study = StudyFacts.of(manifest.study)
        rows = [
            ("question", study.summary),
            ("checkpoints", ", ".join(study.checkpoints)),
            ("cells", cells),
            ("completions", f"{done:,}"),
            ("judges", ", ".join(judges)),
            ("begun", manifest.created),
            ("folder", self.path),
        ]
        return facts_table(f"Run of {study.name}", rows)

    def manifest(self) -> Manifest:
        """The description of the run: study, checkpoints, prompts, instructions, judges, versions and machines."""
        return self._store.manifest()

    def _progress(self) -> tuple[int, int]:
        """Number of cells, and of completions that are stored."""
        return len(self._store.cells()), sum(self._store.progress().values())

    def _study(self) -> StudyFacts:
        return StudyFacts.of(self.manifest().study)

    def judges(self) -> list[str]:
        """The names of the run's judges.

        Returns:
            The judges of the study, first the one whose verdicts the figures show, then those that were added to the run.
        """
        manifest = self.manifest()
        return list(dict.fromkeys([*StudyFacts.of(manifest.study).judges, *manifest.added_judges]))

    def add_judges(self, names: Sequence[str]) -> None:
        """Add judges to the run. They judge the stored completions at the next report; nothing is generated.

        Args:
            names: names of judges, `module:Class`, or TOML files that describe judges.

        Raises:
            InputError: if a judge is unknown; or if a judge is not one of the study's, and the run ended each completion as soon
                as those had decided.
        """
        add_judges(self._store, self._study(), names)

    def unjudged(self) -> list[str]:
        """One sentence for each judge that asks a model or a server and failed: on how many completions, and why."""
        return failure_warnings(self._store.failures(), self._progress()[1], asking_judges(self._store, self.judges()))

    def summary_record(self) -> Summary:
        """The summary as a typed record, computed from the folder now.

        Returns:
            What `summary()` returns as plain data.

        Raises:
            InputError: if the run used a judge or a kind of edit that is not installed, and its folder does not describe it.
        """
        with self._store.snapshot(), collection_paused():
            return summarise(self._store, self.judges(), self._store.results())

    # Plain data with Any, so that users can index into it.
    def summary(self) -> dict[str, Any]:
        """The summary as plain data, computed from the folder now.

        Returns:
            What `summary.json` holds, key by key; `data/summary.schema.json` in the package describes it.

        Raises:
            InputError: in the same cases as `summary_record`.
        """
        return self.summary_record().model_dump(mode="json")

    def cells(self) -> "pandas.DataFrame":
        """The judged cells.

        Returns:
            One row for each cell and judge. The columns are the keys that a cell has in `summary.json`. `rate` is a fraction and
            `ci95` its Wilson interval.
        """
        import pandas

        with self._store.snapshot():
            results = self._store.results()
            found = judged_cells(results.cells, results.refusals(), self.judges(), results.labels(), results.failed())
        return pandas.DataFrame([cell.model_dump(mode="json") for cell in found], columns=list(JudgedCell.model_fields))

    def claims(self) -> "pandas.DataFrame":
        """The claims of the run: one sentence for each checkpoint and each edit.

        Returns:
            One row for each claim. The columns are the keys that a claim has in `summary.json`. `effect` and its interval `ci95`
            are fractions, `p` is corrected by Holm's method, and `null` has the keys `kind`, `n` and `place`.
        """
        import pandas

        found = self.summary_record().claims
        return pandas.DataFrame([claim.model_dump(mode="json") for claim in found], columns=list(Claim.model_fields))

    def answers(self) -> "pandas.DataFrame":
        """The answers of the run: its results in a few sentences, as the page begins.

        Returns:
            One row for each sentence: `text`, and `shown`, whether the data show the effect that it states.
        """
        import pandas

        found = self.summary_record().answers
        return pandas.DataFrame([one.model_dump(mode="json") for one in found], columns=list(Sentence.model_fields))

    def directions(self) -> dict[str, "Direction"]:
        """The stored directions by name, in the order of the study, controls included."""
        found = ((facts.name, self._store.direction(facts.name)) for facts in self._store.directions())
        return {name: direction for name, direction in found if direction is not None}

    def measurements(self) -> "pandas.DataFrame":
        """The measurements of the run, other than completions.

        Returns:
            One row for each measurement and subject, with the columns `name`, `version`, `subject`, `settings` and `summary`.
        """
        import pandas

        found = self.summary_record().measurements
        return pandas.DataFrame([one.model_dump(mode="json") for one in found], columns=list(MeasurementSummary.model_fields))

    def completions(self) -> "pandas.DataFrame":
        """The stored completions.

        Returns:
            One row for each completion. The columns describe its cell and the completion, and give `{judge}_refusal`,
            `{judge}_label` and `{judge}_evidence` for every judge that gave a verdict, and `{judge}_output`, word for word, for
            judges that ask a model.
        """
        with self._store.snapshot():
            return completion_frame(self._store.results(), self._store.completions(), self._store.outputs())

    def figure(self, name: str) -> "Figure":
        """A figure of the report, as a Plotly figure.

        Args:
            name: `rates`, `added`, `ablated`, `transfer` or `cosines`; if the run has the measurement `by-layer`, also
                `cosines-by-layer`, `separation`, `norms` or `projections`.

        Returns:
            The figure with its title.

        Raises:
            InputError: if this run does not have the figure. The message names the most similar figure that it has.
        """
        from plotly.graph_objects import Figure

        from demur.report.draw_plotly import interactive
        from demur.report.sections.section import ReportView, figures_of

        found = figures_of(ReportView.of(*self._judged()))
        if name not in found:
            raise InputError(f"this run has no figure {name!r}; {nearest(name, found)}")
        drawn = interactive(found[name])
        return Figure({"data": drawn.data, "layout": drawn.titled()})

    def judge_stored(self, max_cost: float | None = None) -> None:
        """Ask each judge of this run about all completions on which it has no verdict, or one of another version.

        Args:
            max_cost: another limit of what the requests of a judge may cost, for judges that ask a server.

        Raises:
            InputError: if a judge is not installed and the run has not stored its labels; or if completions ended at the verdicts
                of another version of a judge and some have none.
        """
        judge_stored(self._store, self.judges(), max_cost)

    def _judged(self) -> "tuple[Summary, pandas.DataFrame]":
        """Summary and judged completions of one moment."""
        with self._store.snapshot():
            results, judges = self._store.results(), self.judges()
            summary, completions = summarise(self._store, judges, results), self._store.completions()
        read = judged_rows(results, judges, {cell.key for cell in summary.cells}, completions)
        return summary, completion_frame(results, read)

    def report(
        self,
        *,
        waiting: Callable[[str], object] = warn,
        figures: Literal["changed", "all", "none"] = "changed",
        page_written: Callable[[Path], object] = lambda _: None,
        phases: Phases = no_phases,
        max_cost: float | None = None,
    ) -> Path:
        """Write `summary.json`, `report.html`, tables and figures again from the stored results. The figures come last.

        Args:
            waiting: is told for whom this process waits while another one writes the report; a Python warning unless given.
            figures: which files in `figures/` are drawn: `changed` for those that are missing or out of date, `all`, or `none`.
            page_written: is called with the path of the page before the first figure is drawn.
            phases: shows the progress of the figures.
            max_cost: another limit of what the requests of a judge may cost, for judges that ask a server.

        Returns:
            The path of the page.

        Raises:
            InputError: if the run holds no judged cell, or its folder cannot be written; and in the cases of `judge_stored`.
            WorkError: if every judge failed on every completion, or if the folder was moved or deleted meanwhile.
        """
        from demur.report.pictures.picture_files import update_pictures

        with self._store.report_held(waiting):
            self.judge_stored(max_cost)
            self._store.restore_directions()
            with collection_paused():
                page, sheets = self._write_page()  # no record is left for the collections that follow while figures are drawn
            page_written(page)
            if figures != "none":
                update_pictures(self.path, sheets, every=figures == "all", phases=phases)
            return page

    def _write_page(self) -> "tuple[Path, list[Sheet]]":
        """Write `summary.json`, the page and the tables. Returns the path of the page, and the figures that get files."""
        from demur.report.write_report import made_report

        summary, completions = self._judged()
        self._store.write_text("summary.json", summary.to_json())
        missing = [] if summary.cells else failure_warnings(self._store.failures(), self._progress()[1], self.judges())
        if missing:
            raise WorkError(f"there is no verdict to report: {' '.join(missing)} The next report asks the judges again.")
        report = made_report(summary, completions)
        if report.left_out:
            warned = summary.model_copy(update={"warnings": (*summary.warnings, *report.left_out)})
            self._store.write_text("summary.json", warned.to_json())
        return report.write_page(self.path), report.sheets

    def copied_to(self, target: str | Path) -> "Run":
        """A copy of the run in a new folder, without its report; for example of an archive that cannot be written.

        Args:
            target: a new folder, or one with an earlier copy of this run, which is replaced.

        Raises:
            InputError: if the folder holds something else, or cannot be written.
        """
        self._store.copy_to(Path(target))
        return open_run(target)


def open_run(folder: str | Path) -> Run:
    """Open a run that was made earlier.

    Args:
        folder: the run folder.

    Returns:
        The run.

    Raises:
        InputError: if the folder holds no run.

    Example:
        >>> import demur
        >>> demur.open_run("nowhere")
        Traceback (most recent call last):
        demur.core.errors.InputError: 'nowhere' holds no run of demur (no run.sqlite); make one with demur run STUDY --out DIR

        With a run folder, such as the one that `make demo` makes (not run as a doctest):

        >>> demur.open_run("runs/demo")  # doctest: +SKIP
        Run('demo', 28 cells, 2800 completions, in 'runs/demo')
    """
    store = Store.open(folder)
    try:
        check_consistent(store.folder, store.manifest(), store.cells())
    except BaseException:
        store.close()
        raise
    return Run(store)
