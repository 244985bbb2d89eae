"""What a file loses or repeats is refused or told: text beside an instruction, and instructions that are the same."""

import json
import re
import warnings

import pandas as pd
import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.inputs.instructions import read_instructions
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.preflight import check
from demur.study.study_files import load_study
from tests.tiny import HARMFUL
from tests.tiny_study import make_study

ALPACA = [
    {"instruction": "Sum this text up.", "input": "Cats sleep all day.", "output": ""},
    {"instruction": "Name a cat.", "input": "", "output": ""},
    {"instruction": "Name a dog.", "input": "<noinput>", "output": "x"},
]


def written(folder, name, rows):
    path = folder / name
    path.write_text(json.dumps(rows))
    return str(path)


def turns(*pairs):
    return [{"role": role, "content": text} for role, text in pairs]


@pytest.mark.parametrize(
    ("rows", "column", "lost"),
    [
        (ALPACA, "instruction", "text in the column 'input' (1 of 3 rows)"),
        (
            [{"Behavior": "a", "ContextString": "c"}, {"Behavior": "b", "ContextString": None}],
            "Behavior",
            "'ContextString' (1 of 2",
        ),
        ([{"prompt": "a", "system_prompt": "be kind"}, {"prompt": "b", "system_prompt": "be kind"}], "prompt", "(2 of 2 rows)"),
        ([{"prompt": "a", "history": [["x", "y"]]}, {"prompt": "b", "history": []}], "prompt", "'history' (1 of 2 rows)"),
        ([{"prompt": "a", "context": "c", "image": "x.png"}], "prompt", "'context' (1 of 1 rows), text in the column 'image'"),
        ([{"instruction": "a", "messages": turns(("system", "s"), ("user", "a"))}], "instruction", "'messages' (1 of 1 rows)"),
        ([{"messages": turns(("system", "s"), ("user", "a"))}], "messages", "a system turn (1 of 1 rows)"),
        ([{"messages": turns(("assistant", "s"), ("user", "a"))}], "messages", "an earlier turn (1 of 1 rows)"),
        ([{"messages": turns(("user", "a"), ("assistant", "s"), ("user", "b"))}], "messages", "later turns of the user (1 of 1"),
        ([{"turns": ["a", "b"]}], "turns", "later turns of the user (1 of 1 rows)"),
    ],
)
def test_text_beside_the_instruction_is_refused_or_told(tmp_path, rows, column, lost):
    path = written(tmp_path, "set.json", rows)
    with pytest.raises(InputError) as caught:
        demur.load_instructions(path)
    if "has the columns" not in str(caught.value):
        assert lost in str(caught.value)
        assert f"name the column to ask them alone, as in set.json:{column}" in str(caught.value)
    with pytest.warns(UserWarning, match=re.escape(lost)) as told:
        found = demur.load_instructions(f"{path}:{column}", split=False)
    assert len(told) == 1
    assert told[0].filename == __file__
    first = rows[0][column]
    assert found.all()[0] == (first if isinstance(first, str) else "a")


@pytest.mark.parametrize(
    "rows",
    [
        ALPACA[1:],
        [{"instruction": "Sum up: Cats sleep.", "input": "Cats sleep."}],
        [{"instruction": "Sum up.", "output": "x", "category": "y", "source": "z", "input": float("nan")}],
        [{"input": "Name a cat."}],
        [{"instruction": "a", "messages": turns(("user", "a"), ("assistant", "b"))}],
    ],
)
def test_what_is_not_lost_is_not_told(tmp_path, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(demur.load_instructions(written(tmp_path, "set.json", rows), split=False).all()) == len(rows)


def test_commands_and_studies_tell_it(tmp_path):
    harmful = [{"instruction": text, "context": "a letter", "n": n} for n, text in enumerate(HARMFUL)]
    path = written(tmp_path, "harmful.json", [*harmful, harmful[0]])
    result = CliRunner().invoke(
        app, ["generate", "-m", "nowhere", "-p", "x {instruction}", "-i", f"{path}:instruction", "--out", "o"]
    )
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    n = len(HARMFUL)
    assert [note for note in notes if f"text in the column 'context' ({n + 1} of {n + 1} rows)" in note] == notes[:1]
    assert f"1 of {n + 1} instructions of 'harmful.json' repeat an earlier one" in notes[1]
    assert len(notes) == 2


def split_rows(label, texts, extra=()):
    half = len(texts) // 2
    rows = [{"instruction": text, "split": "train" if n < half else "test"} for n, text in enumerate(texts)]
    return [*rows, *({"instruction": text, "split": part} for text, part in extra)]


REPEATS = [
    "Bake a cake",
    "bake a  CAKE",
    "Bake\u00a0a cake\u200b",
    "Caf\u00e9?",
    "Cafe\u0301?",
    "What is 2\u00b2?",
    "What is 22?",
]


@pytest.mark.parametrize("name", ["set.json", "set.csv", "set.txt"])
def test_each_instruction_counts_once(tmp_path, name):
    path = tmp_path / name
    if name.endswith("json"):
        path.write_text(json.dumps(REPEATS))
    elif name.endswith("csv"):
        pd.DataFrame({"prompt": REPEATS}).to_csv(path, index=False)
    else:
        path.write_text("\n".join(REPEATS))
    with pytest.warns(
        UserWarning, match="3 of 7 instructions of .* repeat an earlier one, .* such as 'bake a  CAKE'; each is used"
    ):
        found = demur.load_instructions(str(path), split=False)
    assert found.all() == ("Bake a cake", "Caf\u00e9?", "What is 2\u00b2?", "What is 22?")


def test_no_instruction_is_in_two_splits_that_were_drawn(tmp_path):
    rows = [text for n in range(20) for text in (f"ask {n}", f"ASK  {n}")]
    found = read_instructions(written(tmp_path, "set.json", rows))
    assert sorted(len(part) for part in found.splits.values()) == [4, 4, 12]
    assert sorted(found.all()) == sorted(rows[::2])


def test_splits_of_a_file_that_share_instructions_are_told(tmp_path):
    rows = split_rows("x", ["a", "b", "c", "d"], [("A ", "train"), ("C", "validation")])
    found = read_instructions(written(tmp_path, "set.json", rows))
    assert found.splits == {"train": ("a", "b"), "validation": ("C",), "test": ("c", "d")}
    repeated, shared = found.notes
    assert "1 of 6 instructions of 'set.json' repeat an earlier one" in repeated
    assert shared == "1 instruction is in more than one split of 'set.json', such as 'c'"


def study_with(folder, **rows):
    """The tiny study with other instructions; a file's column is named where it has several."""
    settings = ["direction.pairs=2"]
    for label in ("harmful", "harmless"):
        own = rows.get(label, split_rows(label, [f"{label} {n}" for n in range(6)]))
        path = written(folder, f"{label}-set.json", own)
        settings += [f"instructions.{label}.source={path}:instruction", f"instructions.{label}.test=2"]
    return load_study(make_study(folder), settings)


def test_a_study_is_told_before_and_in_its_results(tmp_path):
    rows = [{**row, "context": "a letter"} for row in split_rows("harmful", ["a", "b", "c", "d"], [("A", "train")])]
    study = study_with(tmp_path, harmful=rows)
    warned = check(make_plan(study)).warnings
    assert warned == (
        "'harmful-set.json' has text in the column 'context' (5 of 5 rows), which is not part of the instructions in "
        "'instruction'.",
        "1 of 5 instructions of 'harmful-set.json' repeat an earlier one, exactly or but for case, white space or Unicode form, "
        "such as 'A'; each is used once.",
    )
    assert set(warned) <= set(look_ahead(study, "cpu").warnings)
    with demur.run(study, out=tmp_path / "run") as run:
        assert set(warned) <= set(run.summary()["warnings"])


def test_instructions_that_are_both_harmful_and_harmless_are_told(tmp_path):
    study = study_with(tmp_path, harmless=split_rows("harmless", ["a", "HARMFUL  0", "c", "d"]))
    (warned,) = check(make_plan(study)).warnings
    assert warned == "1 instruction is in more than one set (harmful and harmless) of this study, such as 'HARMFUL  0'."


def test_a_study_refuses_instructions_that_are_trained_and_tested_on(tmp_path):
    study = study_with(tmp_path, harmful=split_rows("harmful", ["a b", "c", "A\u00a0 b", "d"]))
    with pytest.raises(InputError, match="1 instructions are in both the training and the test part"):
        check(make_plan(study))


def test_a_registered_set_keeps_its_repeats_and_they_are_told(tmp_path):
    demur.register("instructions", "twice", {"train": ["a", "b"], "test": ["c", "C "]})
    try:
        study = load_study(
            make_study(tmp_path), ["instructions.harmful.source=twice", "instructions.harmful.test=2", "direction.pairs=2"]
        )
        (warned,) = check(make_plan(study)).warnings
    finally:
        registry("instructions").unregister("twice")
    assert warned == "The harmful set 'twice' has 1 of 2 instructions twice."
