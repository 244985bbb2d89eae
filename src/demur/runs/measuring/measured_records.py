"""Makes measurements and turns what they give into records of a run. A measurement that fails does not end the run."""

from collections.abc import Iterator, Sequence

from demur.core.errors import InputError, WorkError
from demur.measurements.measurement import CellSubject, CountsPrompts, MeasuresTogether, PlannedSubject, Subject, measurement
from demur.runs.jobs import AskedMeasurement
from demur.runs.rows import StoredMeasurement, UnmeasuredSubject


def measured(asked: AskedMeasurement, subject: Subject) -> StoredMeasurement | UnmeasuredSubject:
    """Make one measurement. If it cannot be made, the result is a record of the failure, and the run goes on."""
    chosen = measurement(asked.name)
    key = (asked.name, subject.name, asked.settings)
    try:
        record = chosen.measure(subject, asked.parsed())
    except (InputError, WorkError) as error:
        return UnmeasuredSubject(*key, chosen.version, str(error))
    return StoredMeasurement(*key, chosen.version, record)


def measured_cells(asked: AskedMeasurement, subjects: Sequence[CellSubject]) -> Iterator[StoredMeasurement | UnmeasuredSubject]:
    """Measure cells of one arm: together if the measurement can do so, else one by one."""
    chosen = measurement(asked.name)
    if not isinstance(chosen, MeasuresTogether):
        yield from (measured(asked, subject) for subject in subjects)
        return
    left = list(subjects)
    try:
        for record in chosen.measure_together(subjects, asked.parsed()):
            yield StoredMeasurement(asked.name, left.pop(0).name, asked.settings, chosen.version, record)
    except InputError as error:
        yield from (UnmeasuredSubject(asked.name, one.name, asked.settings, chosen.version, str(error)) for one in left)
    except WorkError:
        # One cell may have failed all others of its batches, for example with logits that are not finite.
        yield from (measured(asked, subject) for subject in left)


def expected_prompts(asked: Sequence[AskedMeasurement], planned: PlannedSubject) -> int:
    """About how many prompts some measurements of one arm run, for the progress that is shown.

    Args:
        asked: the measurements.
        planned: the sizes of the arm.
    """
    known = ((measurement(one.name), one.parsed()) for one in asked)
    return round(sum(found.prompts(settings, planned) for found, settings in known if isinstance(found, CountsPrompts)))
