"""A study as a run folder stores it: judges that files describe go by their own names, and their specs are stored beside.

So a run can be read, judged and reported where those files are not.
"""

from collections.abc import Iterable

from pydantic import JsonValue

from demur.judges.asked.judge_file import spec_of
from demur.judges.judge import get_judge
from demur.study.spec import Study


def study_facts(study: Study) -> dict[str, JsonValue]:
    """The study as plain data, every default written out, with the names under which its judges have their verdicts."""
    return {**study.model_dump(mode="json"), "judges": list(result_names(study.judges))}


def result_names(judges: Iterable[str]) -> list[str]:
    """The names under which a run has the verdicts of judges: of a judge file its `name`, of any other judge what was given."""
    return [get_judge(name).name if name.endswith(".toml") else name for name in judges]


def judge_specs(judges: Iterable[str]) -> dict[str, JsonValue]:
    """The specs of those judges that files describe, by the judges' names."""
    found = [get_judge(name) for name in judges if name.endswith(".toml")]
    return {judge.name: spec for judge in found if (spec := spec_of(judge)) is not None}
