"""Files that a person may have: each is read as what it is, or refused by name, and never as something else."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest

import demur
from demur.core.errors import InputError

TWO = ("How do I bake a cake?", "Why is the sky blue?")


def read(path, column=None):
    return demur.load_instructions(str(path) if column is None else f"{path}:{column}", split=False).all()


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(mark, end="\n"):
    return end.join([f"id{mark}prompt", f"1{mark}{TWO[0]}", f"2{mark}{TWO[1]}", ""])


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["set.csv", "SET.CSV", "set.tsv"])
def test_separators_line_ends_and_encodings(tmp_path, mark, end, codec, name):
    path = written(tmp_path, name, table(mark, end).encode(codec))
    assert read(path, "prompt") == TWO
    named = {",": ";", ";": ", separated by semicolons;", "\t": ", separated by tabs;", "|": ", separated by vertical bars;"}[
        mark
    ]
    with pytest.raises(InputError, match=f"has the columns id, prompt{named} name the one .*:prompt"):
        read(path)


@pytest.mark.parametrize(
    ("content", "column", "right"),
    [
        ("prompt\nDo it; then stop\nSing; dance|jump\n", None, ("Do it; then stop", "Sing; dance|jump")),
        ("id,prompt\n1,Do it; then stop\n2,Sing; dance\n", "prompt", ("Do it; then stop", "Sing; dance")),
        ('id;prompt\n1;"Do it; then stop, please"\n2;"Say ""hi"""\n', "prompt", ("Do it; then stop, please", 'Say "hi"')),
        ("id;score;prompt\n1;0,5;Bake, please\n2;1,25;Sing\n", "prompt", ("Bake, please", "Sing")),
        ('"id";"prompt"\n"1";"Bake\na cake"\n"2";"Sing"\n', "prompt", ("Bake\na cake", "Sing")),
        ("sep=;\nid;prompt, long\n1;Bake, please\n2;Sing, please\n", "prompt, long", ("Bake, please", "Sing, please")),
        ("\n\nprompt\nBake\n\nSing\n", None, ("Bake", "Sing")),
        ('id,"prompt; en"\n1,Bake\n2,Sing; dance\n', "prompt; en", ("Bake", "Sing; dance")),
        (",prompt\n0,Bake\n1,Sing\n", None, ("Bake", "Sing")),
        ("Unnamed: 0,prompt\n0,Bake\n1,Sing\n", None, ("Bake", "Sing")),
        ("User prompt\nBake\nSing\n", None, ("Bake", "Sing")),
        ("id, prompt\n1,Bake\n2,Sing\n", "prompt", ("Bake", "Sing")),
    ],
)
def test_tables_whose_texts_hold_separators(tmp_path, content, column, right):
    assert read(written(tmp_path, "set.csv", content), column) == right


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.csv", "How do I bake a cake?\nWhy is the sky blue?\n", "has 'How do I bake a cake\\?' in place of the name"),
        ("set.csv", "Name a cat\nName a dog\n", "has 'Name a cat' in place of the name of a column; write a line of names above"),
        ("set.csv", "1;How do I bake a cake?\n2;Why is the sky blue?\n", "has '1' in place of the name of a column"),
        ("set.csv", "id~prompt\n1~Bake\n2~Sing\n", "has 'id~prompt' in place of the name"),
        ("set.csv", "a,b;c\n1,2;3\n", "holds commas and semicolons, and every row fits either of them"),
        ("set.csv", "a,b;c\n1;2;3\n1\n", "holds commas and semicolons, and for each of them some rows have other columns"),
        (
            "set.csv",
            "id;prompt\n1;Bake; then sing\n",
            "row 1 .* has more columns than the header; quote texts that hold semicolons",
        ),
        (
            "set.csv",
            "prompt,label\nBake\na cake,x\n",
            "row 1 .* has fewer columns than the header; quote texts that go over several",
        ),
        ("set.csv", "sep=~\na~b\n", "states the separator '~'; known"),
        (
            "set.csv",
            "\u201cprompt\u201d\ncaf\u00e9\n".encode("cp1252"),
            "cannot be read as UTF-8: line 1 .*0x93; in Windows-1252",
        ),
        (
            "set.csv",
            "prompt\ncaf\u00e9\n".encode("cp1252"),
            "line 2 holds the byte 0xe9; in Windows-1252.* is 'caf\u00e9'; save the",
        ),
        ("set.csv", "prompt\nBake\n".encode("utf-16-le"), "is UTF-16 without a byte order mark; save it as UTF-8"),
        ("set.csv", b"PK\x03\x04rest", "is an Excel workbook or another zip archive"),
        ("set.csv", b"\xd0\xcf\x11\xe0rest", "is an Excel workbook; save it as CSV UTF-8"),
        ("set.json", b"\x1f\x8brest", "is compressed with gzip"),
        ("set.jsonl", b"PAR1rest", "is a Parquet file; rename it"),
        ("set.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        ("set.csv", "\n<!DOCTYPE html>\n<html>", "is a web page, not the file that it shows"),
        ("set.xlsx", b"PK\x03\x04", "ends with '.xlsx', so it is an Excel workbook; save it as CSV UTF-8"),
        ("set.pkl", b"x", "so it is a Python pickle, which is never opened"),
        ("set.txt", "1. Bake\n2. Sing\n", "begins with its number, such as '1. '"),
        ("set.txt", "1) Bake\n2) Sing\n", "begins with its number"),
        ("set.txt", "1 Bake\n2 Sing\n3 Jump\n", "begins with its number"),
        ("set.txt", "#3: Bake\n#7: Sing\n", "begins with its number"),
        ("set.txt", "1\tBake\n2\tSing\n", "columns separated by tabs"),
        ("set.txt", "Q1: Bake\nQ2: Sing\n", "begins with its number, such as 'Q1: '"),
        ("set.tsv", 'id\tprompt\n1\t"Hello" said he\n', "cannot be read as UTF-8 tsv"),
        ("set.jsonl", '{"prompt": "a", "prompt": "b"}\n', "an object has the key 'prompt' twice"),
        ("set.txt", "- Bake\n- Sing\n", "begins with a bullet"),
        ("set.txt", '"Bake",\n"Sing"\n', "is in quotation marks"),
        ("set.txt", "instruction\nBake\n", "line 1 .* is 'instruction', the name of a column"),
        ("set.txt", "id,prompt\n1,Bake\n", "is a table with the columns id, prompt, separated by commas"),
        ("set.txt", '{"instruction": "Bake"}\n', "are JSON objects; rename the file to .jsonl"),
        ("set.csv", "prompt\n1. Bake\n2. Sing\n", "begins with its number"),
        ("set.json", '{"a": [1, 2], "b": [{"x": 1}], "c": [{"y": 2}]}', "not an object with 'a', 'b', 'c'"),
        ("set.json", '{"instruction": "x"}', "must hold a list of instructions, not an object with 'instruction'"),
        ("set.json", '{"0": {"0": "x"}}', "must hold a list"),
        ("set.json", '[{"instruction": "x"}\n{"instruction": "y"}]', "cannot be read as UTF-8 json"),
        (
            "set.csv",
            "messages\n\"[{'role': 'user', 'content': 'x'} {'role': 'y'}]\"\n",
            "has a conversation .* that cannot be read",
        ),
        ("set.jsonl", '{"prompt": {"a": 1}}', "has no text in column 'prompt'; it has a dict"),
        ("set.jsonl", '{"prompt": [{"role": "assistant", "content": "x"}]}', "has no text in column 'prompt'; it has a list"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(written(tmp_path, name, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "1984 is a book?\nName a cat\n",
        "2. Bake\n1. Sing\n",
        "12:30 is when?\n13:30 is when?\n",
        "3.5 is what?\n4.5 is what?\n",
        "1. Bake\n",
    ],
)
def test_numbers_that_belong_to_the_text(tmp_path, text):
    assert read(written(tmp_path, "set.txt", text)) == tuple(text.splitlines())


ROWS = [{"instruction": text} for text in TWO]
FRAME = pd.DataFrame({"instruction": TWO, "id": [1, 2]})


@pytest.mark.parametrize("name", ["set.json", "set.jsonl", "set.ndjson"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(map(json.dumps, ROWS)),
        json.dumps(list(TWO)),
        "\n".join(map(json.dumps, TWO)),
    ],
)
def test_json_and_json_lines_whatever_the_ending(tmp_path, name, text):
    assert read(written(tmp_path, name, text)) == TWO
    assert read(written(tmp_path, name, text.encode("utf-16"))) == TWO


@pytest.mark.parametrize(
    "found",
    [
        {"instruction": list(TWO), "id": [1, 2]},
        {"version": 1, "note": "x", "data": ROWS},
        {"version": 1, "tags": ["a"], "data": ROWS},
        {"instructions": list(TWO), "seed": 4},
        {"examples": ROWS},
        {"a": ROWS[0], "b": ROWS[1]},
        *(json.loads(FRAME.to_json(orient=orient)) for orient in ("columns", "index", "records", "split", "table")),
    ],
)
def test_json_of_unusual_shape(tmp_path, found):
    assert read(written(tmp_path, "set.json", json.dumps(found))) == TWO


def test_json_with_its_splits_as_keys(tmp_path):
    path = written(tmp_path, "set.json", json.dumps({"train": ["a", "b"], "test": [{"instruction": "c"}]}))
    assert demur.load_instructions(str(path)).splits == {"train": ("a", "b"), "validation": (), "test": ("c",)}


def turns(*pairs, names=("role", "content")):
    return [dict(zip(names, pair, strict=True)) for pair in pairs]


@pytest.mark.parametrize(
    "conversations",
    [
        [turns(("user", text), ("assistant", "no")) for text in TWO],
        [turns(("human", text), ("gpt", "no"), names=("from", "value")) for text in TWO],
        [turns(("system", ""), ("User", text)) for text in TWO],
        [turns(("user", [{"type": "text", "text": text}])) for text in TWO],
        [[text] for text in TWO],
    ],
)
def test_conversations_give_the_turn_of_the_user(tmp_path, conversations):
    rows = [{"messages": value} for value in conversations]
    assert read(written(tmp_path, "set.jsonl", "\n".join(map(json.dumps, rows)))) == TWO
    path = tmp_path / "set.parquet"
    pd.DataFrame({"messages": [np.array(value, dtype=object) for value in conversations]}).to_parquet(path)
    assert read(path) == TWO
    assert read(written(tmp_path, "lists.json", json.dumps(rows))) == TWO
    pd.DataFrame({"messages": list(map(json.dumps, conversations))}).to_csv(tmp_path / "text.csv", index=False)
    pd.DataFrame({"messages": list(map(repr, conversations))}).to_csv(tmp_path / "repr.csv", index=False)
    if isinstance(conversations[0][0], dict):
        assert read(tmp_path / "text.csv") == read(tmp_path / "repr.csv") == TWO
        assert read(written(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, conversations)))) == TWO


def test_a_real_workbook_under_another_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(InputError, match="is an Excel workbook or another zip archive"):
        read(tmp_path / "set.csv")
