"""What judges said in shards: a shard may judge its own completions, and a merge keeps their verdicts."""

from collections.abc import Callable

from demur.analysis.study_facts import StudyFacts
from demur.runs.sharding.shard_checks import StoredShard
from demur.runs.store import Store

JUDGE_ENTRIES = ("judge_facts", "judge_versions", "judge_specs", "added judges")
"""The entries of a run folder that say which judges it has. They may differ: a judge decides about no completion."""


def join_judges(one: StoredShard, made: Store, tell: Callable[[str], object]) -> None:
    """Take over the judges of a shard with their verdicts on its own cells and the outputs of their models.

    Failures are not taken over: the completions without a verdict are judged after the merge.

    Args:
        one: the shard.
        made: the folder of the whole run.
        tell: called with a sentence if the verdicts are those of another version of the judge than verdicts that are there.
    """
    specs, there = (found if isinstance(found := store.recall("judge_specs"), dict) else {} for store in (one.store, made))
    made.remember_judge_specs({name: spec for name, spec in specs.items() if name not in there})
    planned = StudyFacts.of(made.manifest().study).judges
    named = [*StudyFacts.of(one.manifest.study).judges, *one.manifest.added_judges]
    made.remember_added_judges([name for name in named if name not in planned])
    known = {facts.name: facts for facts in made.manifest().judges}
    for facts in one.manifest.judges:
        if facts.name not in known:
            made.remember_judge(facts)
        elif known[facts.name].version != facts.version:
            tell(
                f"{one.name}: its verdicts of the judge {facts.name!r} are those of another version of the judge than verdicts "
                "of the other shards, so its completions are judged again."
            )
            continue
        made.take_answers(one.store, facts.name, one.cells)
