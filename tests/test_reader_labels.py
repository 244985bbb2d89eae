"""Completions that two readers labelled: what is committed of them, that a script draws them again, and the stated agreement."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from demur.judges.judge import THOUGHT
from demur.judges.taxonomy.taxonomy_judge import LABELS

ROOT = Path(__file__).parents[1]
SETTING = ("id", "checkpoint", "format", "edit", "max_new_tokens", "set", "split", "index")
SCRIPTS = ("measure_readers", "draw_completions", "measure_taxonomy")


@pytest.fixture
def scripts(monkeypatch):
    """The modules of scripts/ by their names."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield {name: __import__(name) for name in SCRIPTS}
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def rows(scripts):
    """The labelled completions."""
    return scripts["measure_readers"].read_reader_labels()


def test_every_completion_has_two_labels_and_no_text(rows):
    assert len(rows) == len({row["id"] for row in rows}) == 723
    for row in rows:
        assert set(row) == {*SETTING, "sha256", "reader_a", "reader_b"}
        assert {row["reader_a"], row["reader_b"]} <= set(LABELS) - {THOUGHT}
        assert len(bytes.fromhex(row["sha256"])) == 32
    assert Counter(row["checkpoint"] for row in rows) == {"gemma": 280, "parent": 241, "tuned": 202}
    assert Counter(row["set"] for row in rows) == {"harmful": 324, "harmless": 324, "lookalike": 75}
    assert sum(row["edit"] != "none" for row in rows) == 321


def test_the_script_draws_the_labelled_settings_again(rows, scripts):
    assert [{key: row[key] for key in SETTING} for row in rows] == scripts["draw_completions"].draw()


def test_instructions_of_the_earlier_held_out_parts_stay_apart(rows, scripts):
    place = scripts["measure_readers"].instruction_of
    answers = Counter(map(place, rows))
    assert set(answers.values()) == {3}
    earlier = [row for row in scripts["measure_taxonomy"].read_labels() if row["half"] != "development"]
    assert len(earlier) == 260
    assert not {place(row) for row in earlier} & set(answers)


def test_the_readers_agree_as_the_docs_say(rows, scripts):
    agreement = scripts["measure_readers"].agreement
    text = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    for name in ("all", "gemma", "parent", "tuned"):
        chosen = [row for row in rows if name in ("all", row["checkpoint"])]
        first, second = ([row[reader] for row in chosen] for reader in ("reader_a", "reader_b"))
        equal = sum(one == other for one, other in zip(first, second, strict=True))
        (stated,) = (line for line in text.splitlines() if f"| {equal} of {len(chosen)} | " in line and line.count("|") == 6)
        assert agreement(chosen, first, second) in stated
        assert stated.startswith(f"| {name}")
        assert stated.endswith(f" | {first.count('refusal')} |")
        assert [label == "refusal" for label in first] == [label == "refusal" for label in second]


def test_the_confusion_table_is_that_of_the_labels(rows):
    text = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8")
    pairs = Counter((row["reader_a"], row["reader_b"]) for row in rows)
    labels = [label for label in LABELS if label != THOUGHT]
    for given in labels:
        cells = "|".join(f" {pairs[given, other]} " if pairs[given, other] else " " for other in labels)
        assert f"\n| {given} |{cells}|\n" in text


def test_an_interval_draws_whole_instructions(scripts):
    """Copies of a completion under the same instruction say nothing new, so they must not make the interval narrower."""
    interval = scripts["measure_readers"].interval_by_instruction
    first, second = [True] * 10 + [False] * 10, [True] * 8 + [False] * 12
    once = [{"set": "harmful", "split": "train", "index": number} for number in range(20)]
    assert interval(once * 3, first * 3, second * 3) == pytest.approx(interval(once, first, second))
    low, high = interval(once, first, second)
    assert low < 0.8 < high
