"""demur export: the same rows and values in every format, with their types; Parquet is refused in words without pyarrow."""

import csv
import io
import json
import sys

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.cli.shell_completion import export_formats
from demur.core.registry import registry
from demur.runs.exports.export import Export, export_format


def exported(run, name):
    return export_format(name).content(run)


def rows_of(run):
    return [json.loads(line) for line in exported(run, "jsonl").splitlines()]


@pytest.fixture
def run(runs):
    return demur.open_run(runs[0])


def test_jsonl_keeps_types_and_is_read_by_judge(run, runs, tmp_path):
    rows = rows_of(run)
    assert len(rows) == len(run.completions())
    edited = next(row for row in rows if row["intervention"] == "add")
    plain = next(row for row in rows if row["intervention"] == "none")
    assert {"instruction", "completion", "prompt", "token_ids", "target", "intervention"} <= set(plain)
    assert (plain["layer"], plain["coefficient"], plain["sites"], plain["direction"]) == (None, None, None, None)
    assert (edited["layer"], edited["coefficient"], edited["sites"]) == (1, 2.0, ["resid_pre"])
    assert isinstance(edited["layer"], int)
    assert all(isinstance(number, int) for number in edited["token_ids"])
    assert len(edited["token_ids"]) == edited["n_tokens"]
    assert isinstance(edited["prefix_refusal"], bool)
    result = CliRunner().invoke(app, ["export", str(runs[0]), "-f", "jsonl", "-o", str(tmp_path / "all.jsonl")])
    assert result.output.strip() == str(tmp_path / "all.jsonl")
    assert f"of {len(rows)} refuse" in CliRunner().invoke(app, ["judge", str(tmp_path / "all.jsonl")]).output


def test_csv_holds_the_same(run):
    rows, table = rows_of(run), list(csv.DictReader(io.StringIO(exported(run, "csv"))))
    assert len(table) == len(rows)
    for wanted, found in zip(rows, table, strict=True):
        assert found["completion"] == wanted["completion"]
        assert json.loads(found["token_ids"]) == wanted["token_ids"]
        assert found["layer"] == ("" if wanted["layer"] is None else str(wanted["layer"]))
        assert found["prefix_refusal"] == str(wanted["prefix_refusal"])


def test_a_lone_carriage_return_ends_no_row_of_a_csv(run, monkeypatch):
    texts = ["one\rtwo", 'three\r"four", five', "six\r\nseven", "eight\nnine"]
    changed = run.completions().head(len(texts)).assign(completion=texts)
    monkeypatch.setattr(run, "completions", lambda: changed)
    table = list(csv.DictReader(io.StringIO(exported(run, "csv"), newline="")))
    assert [row["completion"] for row in table] == texts
    assert [row["key"] for row in table] == changed.key.to_list()


def test_parquet_holds_the_same_with_types(run):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    table = parquet.read_table(io.BytesIO(exported(run, "parquet")))
    types = {field.name: str(field.type).replace("element", "item") for field in table.schema}
    expected = {
        "token_ids": "list<item: int64>", "layers": "list<item: int64>", "sites": "list<item: string>", "layer": "int64",
        "index": "int64", "coefficient": "double", "control": "bool", "prefix_refusal": "bool", "completion": "string",
        "direction": "string", "prefix_evidence": "string",
    }  # fmt: skip
    assert {name: types[name] for name in expected} == expected
    assert table.to_pylist() == rows_of(run)


def test_a_missing_verdict_is_missing_and_no_false(run, monkeypatch):
    whole = run.completions()
    whole["prefix_refusal"] = whole["prefix_refusal"].astype(object)
    whole.loc[0, "prefix_refusal"] = None
    monkeypatch.setattr(run, "completions", lambda: whole)
    assert rows_of(run)[0]["prefix_refusal"] is None
    assert next(csv.DictReader(io.StringIO(exported(run, "csv"))))["prefix_refusal"] == ""


def test_parquet_without_pyarrow_names_the_extra(runs, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = CliRunner().invoke(app, ["export", str(runs[0]), "-f", "parquet", "-o", str(tmp_path / "x.parquet")])
    assert result.exit_code == 2
    assert "pip install 'demur[parquet]'" in result.output
    assert not (tmp_path / "x.parquet").exists()


def test_latex_is_the_result_table(run):
    assert r"\toprule" in exported(run, "latex")


class Listing:
    """An export from outside demur."""

    name, binary = "listing", False

    def content(self, run):
        return "".join(f"{cell}\n" for cell in sorted(set(run.completions().key)))


class Packed(Listing):
    name, binary = "packed", True

    def content(self, run):
        return super().content(run).encode()


def test_an_export_of_ones_own_is_found_by_command_and_completion(run, runs, tmp_path):
    parts = registry("export")
    parts.register("listing", Listing)
    parts.register("packed", Packed)
    try:
        printed = CliRunner().invoke(app, ["export", str(runs[0]), "--format", "listing"])
        assert printed.output == exported(run, "listing")
        refused = CliRunner().invoke(app, ["export", str(runs[0]), "--format", "packed"])
        assert (refused.exit_code, "is not text; name a file with --out FILE" in refused.stderr) == (2, True)
        written = CliRunner().invoke(app, ["export", str(runs[0]), "--format", "packed", "--out", str(tmp_path / "x")])
        assert written.exit_code == 0, written.output
        assert (tmp_path / "x").read_text() == printed.output
        assert export_formats("list") == ["listing"]
        by_module = CliRunner().invoke(app, ["export", str(runs[0]), "--format", "tests.cli.test_export:Listing"])
        assert by_module.output == printed.output
    finally:
        parts.unregister("listing")
        parts.unregister("packed")
    assert all(isinstance(export_format(name), Export) for name in parts.names())


def test_no_folder_is_made_unasked(runs, tmp_path):
    result = CliRunner().invoke(app, ["export", str(runs[0]), "--out", str(tmp_path / "new" / "rows.csv")])
    assert (result.exit_code, "there is no folder" in result.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
