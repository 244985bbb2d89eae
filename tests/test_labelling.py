"""People's labels: a sample that grows, blind and random orders, undo, resume, files; folders of before are read."""

import csv
import io
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from demur.core.errors import InputError
from demur.judges.taxonomy.label_definitions import DEFINITIONS
from demur.judges.taxonomy.taxonomy_judge import LABELS
from demur.runs.database.completion_frame import completion_frame
from demur.runs.labelling.label_import import import_labels
from demur.runs.labelling.label_plan import Drawable, allocated, drawable, drawn_sample
from demur.runs.labelling.label_records import Stratum
from demur.runs.labelling.label_session import LabelSession, label_keys, labelling_order, open_labelling
from demur.runs.schema import SCHEMA_VERSION
from demur.runs.store import Store
from tests.labelled_studies import labelled_store


@pytest.fixture
def folder(tmp_path):
    labelled_store(tmp_path / "run").close()
    return tmp_path / "run"


def label_all(folder, who, n=20, stop=None):
    with open_labelling(folder, who, n=n) as session:
        while (shown := session.next()) and (stop is None or session.progress().labelled < stop):
            session.give(shown.number, "refusal" if "cannot" in shown.text else "compliance")
        return session.progress()


def test_a_labeller_sees_only_instruction_and_own_turn(folder):
    with open_labelling(folder, n=80) as session:
        seen = []
        while shown := session.next():
            assert set(vars(shown)) == {"number", "instruction", "text"}
            seen.append((shown.instruction, shown.text))
            session.give(shown.number, "other" if "other" in session.design.labels else "compliance")
    assert len(seen) == 80
    assert {text.startswith("own ") for ask, text in seen if ask == "ask 3"} == {True}


def test_two_labellers_share_the_sample_and_not_the_order(folder):
    assert label_all(folder, "ann").labelled == label_all(folder, "bob").labelled == 20
    with closing(Store.open(folder)) as store:
        sample = store.labelled_sample()
        ann, bob = (store.labels(name) for name in ("ann", "bob"))
    assert {one[1:3] for one in ann} == {one[1:3] for one in bob}
    assert [one[1:3] for one in ann] != [one[1:3] for one in bob]
    assert labelling_order(sample, "ann") == [one[1:3] for one in ann]


def test_skip_undo_and_resume(folder):
    with open_labelling(folder, n=10) as session:
        first = session.next()
        session.give(first.number, "refusal")
        second = session.next()
        session.give(second.number, None)
        assert session.progress().skipped == 1
        assert session.undo()
        assert session.next() == second
        assert session.undo()
        assert session.next() == first
        assert not session.undo()
        session.give(first.number, "echo")
    with open_labelling(folder) as session:
        assert session.next() == second
        assert (session.progress().labelled, session.progress().total) == (1, 10)


def test_a_larger_sample_holds_the_smaller_one_and_keeps_what_was_labelled(folder):
    label_all(folder, "ann", n=12)
    with closing(Store.open(folder)) as store:
        before = set(labelling_order(store.labelled_sample(), "ann"))
    with open_labelling(folder, "ann", n=30) as session:
        assert (session.progress().labelled, session.progress().total) == (12, 30)
    with closing(Store.open(folder)) as store:
        after = set(labelling_order(store.labelled_sample(), "ann"))
        chances = store.labelled_sample().probabilities()
    assert before < after == set(chances)
    assert all(0 < chance <= 1 for chance in chances.values())


def test_completions_that_a_larger_study_adds_can_be_drawn_too(folder):
    label_all(folder, "ann", n=10)
    with closing(Store.open(folder)) as store:
        rows = [row._replace(position=row.position + 100) for row in store.completions("base-none")]
        store.add_completions(rows)
    with open_labelling(folder, "ann", n=30) as session:
        assert session.progress().total == 30
    with closing(Store.open(folder)) as store:
        sample = store.labelled_sample()
        assert sum(one.size for one in sample.strata) == len(sample.frame) == 100
        assert any(place >= 100 for _, place in labelling_order(sample, "ann"))


def test_disagreement_is_drawn_more_often_and_small_samples_put_cells_together(folder):
    with closing(Store.open(folder)) as store:
        units = drawable(store.positions(), store.verdicts(), ["prefix", "taxonomy"])
        strata, _ = drawn_sample(units, store.cells(), 64, 0)
        few, _ = drawn_sample(units, store.cells(), 8, 0)
    assert Counter(unit.said for unit in units)["refusal disagree"] == 8
    shares = Counter()
    for one in strata:
        shares[one.name.rpartition(" ")[2]] += one.taken / one.size
    assert shares["disagree"] > shares["agree"]
    assert sum(one.taken for one in strata) == 64
    assert {one.name for one in few} == {f"{said} {how}" for said in ("refusal", "other") for how in ("agree", "disagree")}
    assert sum(one.taken for one in few) == 8


def test_a_sample_cannot_be_larger_than_what_there_is():
    assert [one.taken for one in allocated([Stratum("a, unknown", 3, 0), Stratum("b, unknown", 2, 1)], 99)] == [3, 2]
    assert drawable({"c": {0}}, [], ["prefix"]) == [Drawable("c", 0, "unknown")]


def test_wherever_a_labeller_stops_every_stratum_has_its_share(folder):
    with open_labelling(folder, "ann", n=64):
        pass
    with closing(Store.open(folder)) as store:
        sample = store.labelled_sample()
    strata = {(row.cell, row.position): row.stratum for row in sample.frame}
    half = Counter(strata[place] for place in labelling_order(sample, "ann")[:32])
    assert all(abs(half[one.name] - one.taken / 2) <= 1 for one in sample.strata)


def test_keys_are_one_for_each_label_and_none_of_the_commands():
    keys = label_keys(LABELS)
    assert list(keys.values()) == list(LABELS)
    assert not set(keys) & set("su?q")
    assert set(label_keys(["su", "us", "s", "u", "q", "ss"]).values()) == {"su", "us", "s", "u", "q", "ss"}
    assert all(DEFINITIONS[label] for label in LABELS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": "prefix"}, "labelling began with the labels of the judge 'taxonomy'"),
        ({"seed": 4}, "labelling began with the seed 0"),
        ({"n": 0}, "at least one completion"),
        ({"labeller": "../ann"}, "cannot be a labeller's name"),
        ({"judge": "taxonmy"}, "taxonomy"),
    ],
)
def test_what_cannot_be_is_refused(folder, change, message):
    label_all(folder, "ann", stop=1)
    with pytest.raises(InputError, match=message), open_labelling(folder, **change):
        pass


def test_an_unknown_label_is_refused(folder):
    with open_labelling(folder) as session:
        for wrong in ((1, "refuse"), (0, "refusal"), (81, "refusal")):
            with pytest.raises(InputError):
                session.give(*wrong)
        assert session.progress().labelled == 0


def test_labels_are_read_from_an_exported_sheet_all_or_none(folder, tmp_path):
    sheet, text = tmp_path / "labels.csv", io.StringIO()
    rows = [("key", "index", "label"), ("base-none", 0, "refusal"), ("chat-ablate", 7, "echo"), ("chat-none", 1, "")]
    csv.writer(text).writerows(rows)
    sheet.write_text(text.getvalue())
    with open_labelling(folder, "ann") as session:
        assert import_labels(session, sheet) == 2
    for bad, message in (
        ("base-none,0,refused", "did you mean 'refusal'"),
        ("nowhere,0,echo", "does not have"),
        ("base-none,x,echo", "index"),
    ):
        sheet.write_text(f"key,index,label\nbase-none,1,echo\n{bad}\n")
        with pytest.raises(InputError, match=message), open_labelling(folder, "ann") as session:
            import_labels(session, sheet)
    with closing(Store.open(folder)) as store:
        assert [one[1:] for one in store.labels("ann")] == [("base-none", 0, "refusal"), ("chat-ablate", 7, "echo")]
        frame = completion_frame(store.results(), store.completions())
    assert frame["labelled_ann"].notna().sum() == 2
    assert 0 < frame["label_probability"].min() <= 1


def test_a_run_without_labels_has_no_further_columns(folder):
    with closing(Store.open(folder)) as store:
        frame = completion_frame(store.results(), store.completions())
    assert not [name for name in frame.columns if "label" in name and not name.startswith(("prefix", "taxonomy"))]


def test_a_folder_of_before_there_were_labels_is_read(folder):
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        for table in ("labels", "label_frame", "label_strata"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 7")
        db.commit()
    assert label_all(folder, "ann").labelled == 20
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_session_needs_a_sample(folder):
    with closing(Store.open(folder)) as store, pytest.raises(InputError, match="open_labelling"):
        LabelSession(store, "ann")


def test_starting_over_does_not_remove_labels(folder):
    label_all(folder, "ann", stop=3)
    with pytest.raises(InputError, match="holds 3 labels that people gave, and --fresh would remove them"):
        Store.create(folder, "digest", "", fresh=True)
    with open_labelling(folder, "ann") as session:
        while session.undo():
            pass
    Store.create(folder, "digest", "", fresh=True).close()
    # A file that cannot be read does not keep anybody from starting over.
    (folder / "run.sqlite").write_bytes(b"not a database" * 100)
    Store.create(folder, "digest", "", fresh=True).close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE label_strata SET size = 'many'",
        "DELETE FROM label_strata",
        "UPDATE label_frame SET place = 'first'",
        "UPDATE labels SET position = 'first' WHERE number = 1",
        "UPDATE meta SET value = '[]' WHERE key = 'labelling'",
    ],
)
def test_damaged_labels_are_one_sentence(folder, damage):
    label_all(folder, "ann", stop=2)
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        db.execute(damage)
        db.commit()
    with closing(Store.open(folder)) as store, pytest.raises(InputError, match="is damaged"):
        store.results()


def test_completions_of_a_cell_that_was_taken_back_are_left_out(folder):
    label_all(folder, "ann", n=80, stop=1)
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        db.execute("DELETE FROM cells WHERE key = 'chat-ablate'")
        db.commit()
    assert label_all(folder, "ann", n=80).total == 60
