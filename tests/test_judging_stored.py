"""Verdicts on what is stored: batches that are kept, failures that are stated and tried again, judges that are not installed."""

import pytest

import demur
from demur.analysis.cell import Cell
from demur.analysis.manifest import JudgeFacts
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.judges.judge import Failure, Verdict
from demur.runs import judging_stored
from demur.runs.judging_stored import failure_warnings, judge_stored
from demur.runs.rows import StoredCompletion, StoredFailure
from demur.runs.run import Run
from demur.runs.store import Store
from tests.tiny_study import make_study, warnings_of


class Moody:
    """A judge that counts its batches, and fails on texts that hold a word."""

    name, version, labels, refusal_labels = "moody", 1, ("no", "maybe", "yes"), ("no",)
    reads_instruction, needs = False, "server"

    def __init__(self):
        self.sizes, self.bad, self.stop_after = [], "broken", None

    def judge(self, batch):
        if self.stop_after is not None and len(self.sizes) == self.stop_after:
            raise KeyboardInterrupt
        self.sizes.append(len(batch))
        return [self.answer(one.text) for one in batch]

    def answer(self, text):
        if self.bad in text:
            return Failure("moody", "the server gave no answer")
        return Verdict("moody", True, "no") if "no" in text else Verdict("moody", False, "yes")


@pytest.fixture
def moody():
    judge = Moody()
    registry("judge").register("moody", judge)
    yield judge
    registry("judge").unregister("moody")


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "run", "digest", "")
    store.remember_study({"judges": ["prefix", "moody"], "checkpoints": {"c": {}}})
    store.add_cells([Cell(key="cell", target="c", prompt="p", instructions="harmful", intervention="none")])
    texts = ["I cannot", "sure", "broken", "no", "broken, too"]
    store.add_completions(StoredCompletion("cell", i, f"ask {i}", text, (1, 2)) for i, text in enumerate(texts))
    yield store
    store.close()


def test_failures_are_stored_told_and_tried_again(store, moody):
    judge_stored(store, ["prefix", "moody"])
    reason = "the server gave no answer"
    assert store.failures() == [StoredFailure("cell", 2, "moody", reason), StoredFailure("cell", 4, "moody", reason)]
    assert {row.position for row in store.verdicts() if row.judge == "moody"} == {0, 1, 3}
    assert failure_warnings(store.failures(), 5, ["prefix", "moody"]) == [
        "The judge moody failed on 2 of 5 completions: the server gave no answer."
    ]
    moody.bad = "too"
    judge_stored(store, ["prefix", "moody"])
    assert moody.sizes == [5, 2]
    assert [row.position for row in store.failures()] == [4]
    moody.bad = "nothing"
    judge_stored(store, ["prefix", "moody"])
    assert store.failures() == []
    assert failure_warnings(store.failures(), 5, ["prefix", "moody"]) == []
    assert len(store.verdicts()) == 10


def test_an_interrupted_judge_keeps_its_finished_batches(store, moody, monkeypatch):
    monkeypatch.setattr(judging_stored, "BATCH", 2)
    moody.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        judge_stored(store, ["moody"])
    assert len(store.verdicts()) + len(store.failures()) == 4
    moody.stop_after = None
    judge_stored(store, ["moody"])
    # The failure of the first call, and the completion that was not reached.
    assert moody.sizes == [2, 2, 2]


def test_version_and_labels_are_stored_and_a_new_version_judges_anew(store, moody):
    judge_stored(store, ["prefix", "moody"])
    facts = JudgeFacts(name="moody", version=1, labels=("no", "maybe", "yes"), refusal_labels=("no",))
    assert store.manifest().judges[1] == facts
    moody.version = "2b"
    judge_stored(store, ["moody"])
    assert moody.sizes == [5, 5]
    assert store.manifest().judges[1] == facts.model_copy(update={"version": "2b"})


def test_a_run_can_be_read_and_judged_where_its_judge_is_not_installed(store, moody):
    judge_stored(store, ["prefix", "moody"])
    before = store.verdicts()
    registry("judge").unregister("moody")
    judge_stored(store, ["prefix", "moody"])
    assert store.verdicts() == before
    assert store.manifest().judges[1].labels == ("no", "maybe", "yes")
    with pytest.raises(InputError, match="there is no judge 'mody'"):
        judge_stored(store, ["mody"])


def test_judges_of_earlier_versions_get_their_labels(store):
    """Runs made before schema 4 stored the versions of judges and nothing else."""
    store.remember("judge_versions", {"taxonomy": 2, "gone": 7, "prefix": 1})
    store.add_answers("gone", [("cell", 0, Verdict("gone", True, "nope")), ("cell", 1, Verdict("gone", False, "fine"))])
    found = {judge.name: judge for judge in store.manifest().judges}
    assert list(found) == ["prefix", "taxonomy", "gone"]
    assert found["taxonomy"].labels[0] == "refusal"
    assert (found["taxonomy"].version, found["gone"].version) == (2, 7)
    assert (found["gone"].labels, found["gone"].refusal_labels) == (("nope", "fine"), ("nope",))


def test_a_summary_says_on_how_many_completions_a_judge_failed(tmp_path, moody):
    study = demur.load_study(make_study(tmp_path), ['judges=["prefix", "moody"]'])
    moody.bad = ""
    made = demur.run(study, tmp_path / "run")
    assert warnings_of(made.summary()) == ["The judge moody failed on 66 of 66 completions: the server gave no answer."]
    # Nothing is counted as what it is not: there is no cell of this judge.
    assert {cell["judge"] for cell in made.summary()["cells"]} == {"prefix"}
    moody.bad = "nothing"
    again = Run(Store.open(tmp_path / "run"))
    again.report()
    assert warnings_of(again.summary()) == []
    assert {cell["n"] for cell in again.summary()["cells"] if cell["judge"] == "moody"} == {3}
