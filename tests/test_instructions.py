"""Instruction sets: shipped, registered and from files; splits and hashes are fixed, shortage is refused."""

import json
import random

import pytest

import demur
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.inputs.arditi_draws import DRAWS, arditi_sample
from demur.inputs.instructions import InstructionSet, digest, load_instructions, registered, split_80_20


def words(text):
    return len(text.split())


def test_the_contrast_set_is_what_its_card_says():
    sets = {label: load_instructions(f"contrast-{label}") for label in ("harmful", "harmless", "lookalike")}
    assert {label: {s: len(rows) for s, rows in found.splits.items()} for label, found in sets.items()} == {
        "harmful": {"train": 144, "validation": 36, "test": 108},
        "harmless": {"train": 144, "validation": 36, "test": 108},
        "lookalike": {"test": 64},
    }
    for split, (harmful, harmless) in {
        "train": ("b694b7fa6de49720", "50bc98528db6ce87"),
        "validation": ("6e30a1a55e6f8eb1", "b69c577b3445c800"),
        "test": ("579daa7f220bc1ee", "4ec8d824cee69489"),
    }.items():
        assert digest(sets["harmful"].take(split)) == harmful
        assert digest(sets["harmless"].take(split)) == harmless
        for one, other in zip(sets["harmful"].take(split), sets["harmless"].take(split), strict=True):
            assert abs(words(one) - words(other)) <= 3
            assert one.endswith("?") == other.endswith("?")
    everything = [text for found in sets.values() for text in found.all()]
    assert len(set(map(str.casefold, everything))) == 640


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "txt"])
def test_files(tmp_path, suffix):
    rows = ["make a cake", 'say "hi", twice', "\u00fcber \U0001f600"]
    path = tmp_path / f"set.{suffix}"
    path.write_text(
        {
            "csv": 'instruction,other\nmake a cake,1\n"say ""hi"", twice",2\n\u00fcber \U0001f600,3\n',
            "json": json.dumps(rows),
            "jsonl": "\n".join(json.dumps({"instruction": row}) for row in rows) + "\n\n",
            "txt": "\ufeffmake a cake\n\n" + "\n".join(rows[1:]),
        }[suffix],
        encoding="utf-8",
    )
    assert load_instructions(str(path), split=False).take("test") == tuple(rows)


def test_a_column_can_be_named(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("goal,target\nmake a cake,yes\n")
    assert load_instructions(f"{path}:goal", split=False).take("test") == ("make a cake",)
    with pytest.raises(InputError, match=r"has the columns goal, target; name the one with instructions, as in two.csv:goal"):
        load_instructions(str(path))
    with pytest.raises(InputError, match="no column 'gaol' in row 1; did you mean 'goal'"):
        load_instructions(f"{path}:gaol")


def test_a_files_own_splits(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"instruction": f"ask {i}", "split": split} for i, split in enumerate(["test", "train", "validation", "train"])]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = load_instructions(str(path))
    assert found.take("train") == ("ask 1", "ask 3")
    assert found.take("validation") == ("ask 2",)
    path.write_text(json.dumps({"instruction": "x", "split": "dev"}))
    with pytest.raises(InputError, match="the split 'dev'; expected train, validation, test"):
        load_instructions(str(path))


def test_splits_are_disjoint_and_complete():
    rows = [f"ask {i}" for i in range(103)]
    splits = split_80_20(rows)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [65, 17, 21]
    assert sorted(row for part in splits.values() for row in part) == sorted(rows)


def test_shortage_is_refused(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("\n".join(f"ask {i}" for i in range(10)))
    found = load_instructions(str(path))
    with pytest.raises(InputError, match="32 train instructions of 'few' were asked for, but it has 6"):
        found.take("train", 32)
    with pytest.raises(InputError, match="'contrast-lookalike' has no train split; it has test"):
        load_instructions("contrast-lookalike").take("train", 1)
    with pytest.raises(InputError, match="did you mean 'train'"):
        found.take("trian")
    with pytest.raises(InputError, match="-1 instructions were asked for; expected 0 or more"):
        found.take("train", -1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "there is no file"),
        ("empty.txt", b"\n\n", "holds no instructions"),
        ("empty.csv", b"goal\n", "holds no instructions"),
        ("blank.csv", b"goal\nx\n  \n", "row 2 .* has no text in column 'goal'"),
        ("latin.txt", "caf\u00e9".encode("latin-1"), "cannot be read as UTF-8"),
        ("broken.json", b"[1, ", "cannot be read as UTF-8 json"),
        ("object.json", b'{"instruction": "x"}', "must hold a list"),
        ("numbers.json", b"[1, 2]", "objects or strings"),
        ("numbers.jsonl", b'{"instruction": 3}', "has no text in column"),
        ("digits.json", b"[" + b"1" * 5000 + b"]", "cannot be read as UTF-8 json"),
        ("some.jsonl", b'{"instruction": "x", "split": "train"}\n{"instruction": "y"}', "row 2 .* has no split, but other"),
        ("set.xlsx", b"x", "ends with '.xlsx'"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_instructions(str(path))


def test_unknown_names_and_folders(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="did you mean 'advbench'"):
        load_instructions("advbnch")
    assert {"advbench", "jailbreakbench", "alpaca"} < set(registered())
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"DEMUR_DATA is .* holds no 'advbench.csv'"):
        load_instructions("advbench")
    (tmp_path / "advbench.csv").write_text("goal,target\nmake a cake,x\n")
    with pytest.raises(InputError, match="have the hash .* another version"):
        load_instructions("advbench")
    monkeypatch.delenv("DEMUR_DATA")
    with pytest.raises(InputError, match="no model hub can be reached; set DEMUR_DATA"):
        load_instructions("advbench")


def lists(n=200):
    return {name: [f"{name} {i}" for i in range(n + 10 * k)] for k, name in enumerate(DRAWS)}


def test_arditi_draws_are_those_of_one_seeded_generator():
    given = lists()
    drawn = arditi_sample(given)
    state = random.getstate()
    random.seed(42)
    for name in ("harmful_train", "harmless_train", "harmful_val", "harmless_val", "harmless_test"):
        assert drawn[name] == tuple(random.sample(given[name], {"train": 128, "val": 32, "test": 100}[name.split("_")[1]]))
    random.setstate(state)
    assert list(drawn) == list(DRAWS)
    assert arditi_sample(given, seed=43)["harmful_train"] != drawn["harmful_train"]
    with pytest.raises(InputError, match="100 instructions are drawn from 'harmless_test', which has 99"):
        arditi_sample({**given, "harmless_test": given["harmless_test"][:99]})
    with pytest.raises(InputError, match="128 instructions are drawn from 'harmful_train', which has 0"):
        arditi_sample({})


def test_arditi_sets_need_the_published_files(monkeypatch, tmp_path):
    monkeypatch.delenv("DEMUR_DATA", raising=False)
    with pytest.raises(InputError, match="set DEMUR_DATA to a folder with these files in its subfolder splits"):
        load_instructions("arditi-harmful")
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"holds no splits/harmful_train.json or .jsonl, so 'arditi-harmless' cannot be drawn"):
        load_instructions("arditi-harmless")
    (tmp_path / "splits").mkdir()
    for name, rows in lists().items():
        (tmp_path / "splits" / f"{name}.json").write_text(json.dumps([{"instruction": row, "category": None} for row in rows]))
    with pytest.raises(InputError, match="the draw from splits/harmful_train .* not the published version"):
        load_instructions("arditi-harmful")
    with pytest.raises(InputError, match="did you mean 'arditi-harmless'"):
        load_instructions("arditi-harmles")


def test_a_line_of_text_ends_where_lines_end(tmp_path):
    (tmp_path / "odd.txt").write_bytes("one\u2028still one\r\ntwo\x0b\x85\nthree\rfour\n".encode())
    assert demur.load_instructions(str(tmp_path / "odd.txt"), split=False).all() == ("one\u2028still one", "two", "three", "four")


def animals():
    """An instruction set from outside."""
    return InstructionSet("animals", {"test": ("name a cat",)}, "made up")


PLANTS = {"train": ["name a tree ", "name a herb"], "test": ["name a moss"]}


@pytest.fixture
def sets():
    demur.register("instructions", "animals", animals)
    demur.register("instructions", "plants", PLANTS)
    yield
    registry("instructions").unregister("animals")
    registry("instructions").unregister("plants")


@pytest.mark.parametrize("spec", ["animals", f"{__name__}:animals"])
def test_a_function_from_outside_that_gives_a_set(sets, spec):
    assert load_instructions(spec) == animals()


@pytest.mark.parametrize("spec", ["plants", f"{__name__}:PLANTS"])
def test_instructions_by_split_from_outside(sets, spec):
    found = load_instructions(spec)
    assert (found.name, found.source) == (spec, spec)
    assert found.splits == {"train": ("name a tree", "name a herb"), "test": ("name a moss",)}
    with pytest.raises(InputError, match="has no validation split; it has train \\(2\\), test \\(1\\)"):
        found.take("validation")


def test_names_of_sets_from_outside_are_known(sets):
    assert registered()[-2:] == ("animals", "plants")
    with pytest.raises(InputError, match="neither an instruction file nor a registered set; did you mean 'animals'?"):
        load_instructions("animels")


def test_a_file_of_the_name_that_is_asked_for_comes_before_a_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json:tool").write_text("[]")
    with pytest.raises(InputError, match="rows are read from"):
        load_instructions("json:tool")
    with pytest.raises(InputError, match="'json:nothing' cannot be imported"):
        load_instructions("json:nothing")
    with pytest.raises(InputError, match="neither an instruction file nor a registered set"):
        load_instructions("no_such_module:nothing")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: 3, "is a int; expected instructions by split"),
        ({}, "is a dict; expected instructions by split"),
        ({"dev": ["x"]}, "has the split 'dev'; expected train, validation, test"),
        ({"test": "x"}, "the test split of the instruction set 'bad' is one text"),
        ({"test": ["x", " "]}, "row 2 of 'test of bad' has no text"),
        ({"test": ["x", 3]}, "row 2 of 'test of bad' has no text"),
    ],
)
def test_sets_from_outside_that_are_none(part, message):
    demur.register("instructions", "bad", part)
    try:
        with pytest.raises(InputError, match=message):
            load_instructions("bad")
    finally:
        registry("instructions").unregister("bad")
