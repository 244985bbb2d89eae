"""Near-duplicates are found by their words, in long lists too, and so are the known overlaps of published sets."""

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.inputs.duplicates.near_duplicates import alike_between, alike_within, groups_of, word_set
from demur.inputs.instructions import load_instructions
from demur.inputs.repeated_instructions import sameness
from demur.runs.summarising.analysed_run import instruction_groups

DATA = Path(__file__).parents[2] / "shared" / "data"
published = pytest.mark.skipif(not DATA.is_dir(), reason="the published sets are not on this machine")


def jaccard(one, other):
    return len(one & other) / len(one | other)


TEXTS = st.lists(st.text("abcdef ", max_size=14), max_size=14)


@settings(max_examples=200)
@given(TEXTS, TEXTS, st.sampled_from([0.4, 0.5, 0.6, 2 / 3, 0.8, 1.0]))
def test_the_same_pairs_as_comparing_all(first, second, least):
    every = [
        (i, j)
        for (i, one), (j, other) in itertools.product(enumerate(map(word_set, first)), enumerate(map(word_set, second)))
        if jaccard(one, other) >= least - 1e-12
    ]
    assert [(pair.first, pair.second) for pair in alike_between(first, second, least)] == every
    within = [(i, j) for i, j in itertools.combinations(range(len(first)), 2)
              if jaccard(word_set(first[i]), word_set(first[j])) >= least - 1e-12]  # fmt: skip
    found = alike_within(first, least)
    assert [(pair.first, pair.second) for pair in found] == within
    assert all(
        pair.likeness == pytest.approx(jaccard(word_set(first[pair.first]), word_set(first[pair.second]))) for pair in found
    )


def test_groups_are_joined_by_a_third():
    texts = ["a b c d e", "x", "c d e f g", "b c d e f", "y z"]
    assert groups_of(texts) == [0, 1, 0, 0, 4]
    assert groups_of(texts, least=0.9) == [0, 1, 2, 3, 4]
    assert groups_of([]) == []


def test_case_marks_and_forms_of_letters_make_no_difference():
    assert alike_between(["Caf\u00e9s, in PARIS?"], ["cafe\u0301s in paris"], 1.0)[0].likeness == 1.0
    assert alike_between(["!!!"], ["???"], 1.0) == []
    assert word_set("don't") == {"don't"}


def test_thousands_of_instructions_take_less_than_a_second():
    # As many words as a list of requests has, with the frequencies of a language: word k is drawn about 1 / k times as often.
    import numpy as np

    rng = np.random.default_rng(0)
    words = np.minimum(rng.zipf(1.35, (5000, 11)), 9000)
    texts = [" ".join(f"w{word}" for word in row) for row in words]
    started = time.process_time()
    groups_of(texts)
    assert time.process_time() - started < 3  # a second on an idle machine; the tests also run on busy ones


class Completions:
    """A store with the instructions of two cells; the second cell has one more."""

    rows = {"one": ["pick a lock", "name a river"], "two": ["pick a lock", "name a river", "", "pick a good lock"]}

    def completions(self, cell):
        return [SimpleNamespace(position=place, instruction=text) for place, text in enumerate(self.rows[cell]) if text]


def test_a_run_groups_the_instructions_that_it_stored():
    facts = {name: SimpleNamespace(n=n) for name, n in (("harmful", 4), ("harmless", 2))}
    cells = [SimpleNamespace(key=key, instructions="harmful") for key in ("one", "two")]
    found = instruction_groups(Completions(), cells, SimpleNamespace(instructions=facts))
    # The third harmful instruction and both harmless ones have no completion yet.
    assert found == {"harmful": [0, 1, 2, 0], "harmless": [0, 1]}


@pytest.fixture
def sets(monkeypatch):
    monkeypatch.setenv("DEMUR_DATA", str(DATA))
    return load_instructions("advbench"), load_instructions("jailbreakbench").take("test")


@published
@pytest.mark.parametrize(("least", "number"), [(0.7, 17), (0.8, 14)])
def test_the_jailbreakbench_requests_that_advbench_has_too(sets, least, number):
    advbench, jailbreakbench = sets
    assert len({pair.first for pair in alike_between(jailbreakbench, advbench.all(), least)}) == number


@published
def test_the_exact_copies(sets):
    advbench, jailbreakbench = sets
    assert (
        len({sameness(text).rstrip(".") for text in jailbreakbench} & {sameness(text).rstrip(".") for text in advbench.all()})
        == 11
    )


@published
@pytest.mark.parametrize(("least", "number"), [(0.5, 7), (0.6, 1), (0.7, 0)])
def test_the_posts_training_and_test_requests(sets, least, number):
    advbench, _ = sets
    assert len(alike_between(advbench.take("train", 32), advbench.take("test", 100), least)) == number


@published
def test_the_posts_training_requests_and_jailbreakbench(sets):
    advbench, jailbreakbench = sets
    assert len({pair.second for pair in alike_between(advbench.take("train", 32), jailbreakbench)}) == 2


@published
def test_advbench_repeats_itself(sets):
    advbench, _ = sets
    alike = alike_within(advbench.all(), 0.7)
    assert 75 <= len({place for pair in alike for place in (pair.first, pair.second)}) <= 85


@published
def test_a_published_list_of_thousands_is_searched_fast():
    lines = (DATA / "alpaca_no_input.jsonl").read_text(encoding="utf-8").splitlines()[:5000]
    texts = [json.loads(line)["instruction"] for line in lines]
    started = time.process_time()
    assert len(alike_within(texts)) > 10
    assert time.process_time() - started < 3
