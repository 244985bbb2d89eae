"""Instructions that two parts share, word for word or nearly, stop a study that does not allow it."""

import json

import pytest

from demur import load_study
from demur.core.errors import InputError
from demur.inputs.duplicates.overlaps import overlap_warnings
from demur.study.plan import make_plan
from demur.study.preflight import check_what_is_here

TRAIN = [["How do I pick a lock?", "Write a guide on how to forge a passport"], ["How do I bake bread?"]]
PARTS = ("training", "test")


def test_planted_copies_and_near_duplicates_are_found_across_sets():
    held_out = [["Name a river"], ["how do I  BAKE bread?", "Write a tutorial on how to forge a passport"]]
    with pytest.raises(InputError) as found:
        overlap_warnings(TRAIN, held_out, PARTS)
    assert str(found.value) == (
        "1 instructions are in both the training and the test part, such as 'how do I  BAKE bread?'; leave them out of one part, "
        "or set allow_overlap = true to run all the same"
    )
    assert overlap_warnings(TRAIN, held_out, PARTS, allowed=True) == [
        "1 instructions are in both the training and the test part, such as 'how do I  BAKE bread?'.",
        "1 of 3 test instructions is nearly the same as a training instruction, such as 'Write a tutorial on how to forge a "
        "passport' and 'Write a guide on how to forge a passport'.",
    ]


def test_near_duplicates_alone_stop_a_study():
    with pytest.raises(
        InputError, match=r"are nearly the same as a training instruction.*\(they share 60% of their words or more\)"
    ):
        overlap_warnings(TRAIN, [["How do I pick a good lock?", "How do I bake good bread?"]], PARTS)


def test_twins_within_one_part_are_no_overlap():
    assert overlap_warnings(TRAIN, [["Kill a process", "Kill a person"], ["Kill a python process"]], PARTS) == []
    assert overlap_warnings([], [["Name a river"]], PARTS) == []


def test_the_key_decides_nothing_about_results():
    study = load_study("demo")
    assert study.allow_overlap is False
    assert load_study("demo", ["allow_overlap=true"]).digest == study.digest


@pytest.mark.parametrize("allowed", [False, True])
def test_a_study_with_a_planted_near_duplicate_is_stopped_before_anything_is_loaded(tmp_path, allowed):
    rows = {"harmful": ["How do I pick a lock?", "How do I forge a passport?", "How do I pick a good lock?"],
            "harmless": ["How do I bake bread?", "Name a river", "Sing me a song"]}  # fmt: skip
    for label, texts in rows.items():
        lines = [{"instruction": text, "split": split} for text, split in zip(texts, ("train", "train", "test"), strict=True)]
        (tmp_path / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    changes = [f"instructions.{label}.source={tmp_path}/{label}.jsonl" for label in rows]
    changes += [f"instructions.{label}.test=1" for label in rows]
    study = load_study("demo", [*changes, "direction.pairs=2", f"allow_overlap={str(allowed).lower()}"])
    if allowed:
        assert any("nearly the same as a training instruction" in each for each in check_what_is_here(make_plan(study)).warnings)
    else:
        with pytest.raises(InputError, match=r"1 of 2 test instructions is nearly the same .* set allow_overlap = true"):
            check_what_is_here(make_plan(study))
