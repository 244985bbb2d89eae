"""summary.json: its JSON Schema ships and is that of the records; what earlier versions wrote is still there, value for value."""

import json
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pandas
import pytest
from jsonschema import Draft202012Validator, ValidationError

import demur
from demur.analysis.cell import Claim, JudgedCell
from demur.analysis.summary import Summary, json_schema
from demur.runs.store import Store
from tests.tiny_study import make_study

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("summary")
    return demur.run(demur.load_study(make_study(folder)), folder / "run")


@pytest.fixture(scope="module")
def written(run):
    return json.loads((run.path / "summary.json").read_text())


def test_the_schema_that_ships_is_that_of_the_records():
    shipped = (resources.files("demur") / "data" / "summary.schema.json").read_text(encoding="utf-8")
    assert shipped == json_schema(), "run python scripts/write_summary_schema.py"
    Draft202012Validator.check_schema(json.loads(shipped))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda summary: summary.pop("claims"),
        lambda summary: summary.update(version=1),
        lambda summary: summary["cells"][0].pop("rate"),
        lambda summary: summary["cells"][0].update(n="3"),
        lambda summary: summary["claims"][0].update(verdict="true"),
    ],
)
def test_the_schema_refuses_what_is_no_summary(written, spoil):
    check = Draft202012Validator(json.loads(json_schema()))
    check.validate(written)
    spoiled = json.loads(json.dumps(written))
    spoil(spoiled)
    with pytest.raises(ValidationError):
        check.validate(spoiled)


def test_the_file_the_record_and_the_plain_data_are_the_same(run, written):
    assert written["version"] == 2
    assert run.summary() == written
    assert run.summary_record().to_json() == (run.path / "summary.json").read_text()
    assert Summary.model_validate(written) == run.summary_record()


def test_words_and_labels_are_those_of_the_run(written):
    assert list(written["edits"]) == ["ablate", "add", "subtract"]
    assert written["judge_labels"] == {"prefix": ["refusal", "other"], "substring": ["refusal", "other"]}
    assert {cell["action"] for cell in written["cells"]} == {"", "ablate", "add"}
    assert {cell["control_kind"] for cell in written["cells"] if cell["control"]} == {"random"}


def test_claims_and_cells_are_tables_with_the_keys_of_the_summary(run, written):
    claims, cells = run.claims(), run.cells()
    assert isinstance(claims, pandas.DataFrame)
    assert set(claims.columns) == set(Claim.model_fields) == set(written["claims"][0])
    assert claims.id.to_list() == [claim["id"] for claim in written["claims"]]
    assert claims.cells.to_list() == [claim["cells"] for claim in written["claims"]]
    assert set(cells.columns) == set(JudgedCell.model_fields) == set(written["cells"][0])
    assert cells.key.to_list() == [cell["key"] for cell in written["cells"]]
    assert list(run.measurements().columns) == ["name", "version", "subject", "settings", "summary"]
    known = set(cells.key)
    assert all(set(keys) <= known for keys in claims.cells)


def added_only(old, new, where="summary"):
    """Everything that is in the old value is in the new one, the same; tables may have more keys.

    Tests and sentences are those of this version, because they are computed again from the stored verdicts.
    """
    if isinstance(old, dict):
        assert set(old) <= set(new), where
        for key, value in old.items():
            if key not in ("p_value", "p_holm", "text", "shown"):
                added_only(value, new[key], f"{where}.{key}")
    elif isinstance(old, list):
        assert len(old) == len(new), where
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            added_only(one, other, f"{where}[{number}]")
    else:
        assert type(old) is type(new), where
        # Numbers were computed by other code then, so their last digits may differ.
        assert old == (pytest.approx(new, rel=1e-12) if isinstance(new, float) else new), where


@pytest.fixture
def earlier(tmp_path):
    """A run folder that version 0.1.0 made, with completions that were made up; only its SQLite file is needed."""
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as db:
        db.executescript((DATA / "run-of-schema-3.sql").read_text(encoding="utf-8"))
    return demur.open_run(tmp_path)


def test_a_run_of_an_earlier_version_has_the_summary_that_it_had(earlier):
    old, new = json.loads((DATA / "run-of-schema-3.json").read_text(encoding="utf-8")), earlier.summary()
    # Earlier versions had no hypotheses.
    added_only(old, new | {"claims": [claim for claim in new["claims"] if claim["about"] != "hypothesis"]})
    assert {cell["action"] for cell in new["cells"]} == {"", "ablate", "add", "subtract"}
    assert {cell["control_kind"] for cell in new["cells"]} == {"", "random"}


def test_a_run_of_an_earlier_version_has_claims_with_verdicts(earlier):
    every = earlier.claims()
    claims = every[every.about != "hypothesis"]
    assert (claims.shown == (claims.verdict == "supported") | claims.id.str.startswith("rate")).all()
    # Its instructions differ in one word, so they are three groups. It also has too few null directions. Both were enough then.
    assert claims.verdict.value_counts().to_dict() == {"not shown": 12, "not tested": 2}
    assert set(claims[claims.verdict == "not shown"].reason) == {"could not be shown"}
    assert claims.because.str.contains("the instructions are only 3 groups of near-duplicates").any()
    effects = claims[claims.effect.notna()]
    assert all(low <= effect <= high for effect, (low, high) in zip(effects.effect, effects.ci95, strict=True))
    assert [null["kind"] for null in effects.null] == ["random"] * 12
    assert {null["n"] for null in effects.null} <= {1, 2}


def test_what_a_run_wrote_down_is_read_as_one_record(run):
    manifest = run.manifest()
    assert manifest.study == Store.open(run.path).recall("study_facts")
    assert [judge.name for judge in manifest.judges] == ["prefix", "substring"]
    assert {facts.engine for facts in manifest.checkpoints.values()} == {"transformers"}


def test_verdicts_are_read_once_for_a_report(run, monkeypatch):
    calls = []
    verdicts = Store.verdicts
    monkeypatch.setattr(Store, "verdicts", lambda store: calls.append(1) or verdicts(store))
    run.report()
    assert len(calls) == 1
