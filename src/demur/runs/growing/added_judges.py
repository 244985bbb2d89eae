"""Adds judges to a run that has been made, without generating anything."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur.analysis.study_facts import StudyFacts
from demur.core.errors import InputError
from demur.judges.early_stopping import check_foreseen
from demur.judges.judging import check_judge
from demur.runs.growing.stored_study import judge_specs, result_names

if TYPE_CHECKING:
    from demur.runs.store import Store


def add_judges(store: "Store", study: StudyFacts, names: Sequence[str]) -> None:
    """Write down judges that a run gets in addition to those of its study. They judge at the next report.

    Args:
        store: the run folder.
        study: the study of the run.
        names: names of judges, `module:Class`, or TOML files that describe judges. If the run has the judge of a file already,
            the file replaces its spec.

    Raises:
        InputError: if a judge is unknown, or what it needs is missing; or if a judge is not one of the study's, and the run ended
            each completion as soon as those had decided.
    """
    for name in names:
        check_judge(name)
    called = dict(zip(result_names(names), names, strict=True))
    other = [name for name in called if name not in study.judges]
    if study.until_verdict and other:
        check_foreseen([called[name] for name in other])
        raise InputError(
            f"the completions of this run end where {' and '.join(study.judges)} had decided, so they may be too short for "
            f"the judge {other[0]!r}; run a study with it among its judges, or without until_verdict, with another --out"
        )
    store.remember_judge_specs(judge_specs(names))
    store.remember_added_judges(list(called))
