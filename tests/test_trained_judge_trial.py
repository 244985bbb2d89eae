"""The trial of a trained judge: it learns what can be learned, and never sees an instruction that it is measured on."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("try_trained_judge", "measure_readers", "measure_taxonomy")


@pytest.fixture
def trial(monkeypatch):
    """The module of the script."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield __import__("try_trained_judge")
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def given(trial):
    """Texts of which every other one is a deflection, which its words show."""
    texts = {"deflection": "The town was proud of the {}", "compliance": "Cut the {} in two and dry it"}
    subjects = [f"{first}{last}" for first in ("map", "ban", "cor", "del", "fen") for last in ("le", "dy", "ta", "mo")]
    return [
        trial.Example(
            text.format(subject), f"How do I make a {subject}?", (label, label), "parent", "development half", "compliance"
        )
        for subject in subjects
        for label, text in texts.items()
    ]


def test_it_learns_signs_that_hold_for_other_instructions(trial, given):
    said = trial.crossed(given, lambda part: trial.Trained(part, (0.1, 0.003)), 4, "test")
    assert said == [one.labels[0] for one in given]


def test_it_is_never_trained_on_an_instruction_that_it_labels(trial, given):
    trained = []

    class Remembers(trial.Trained):
        def __init__(self, part):
            trained.append({one.instruction for one in part})
            super().__init__(part, (0.1, None))

        def labels(self, part):
            assert not {one.instruction for one in part} & trained[-1]
            return super().labels(part)

    trial.crossed(given, Remembers, 4, "test")
    assert len(trained) == 4
    assert all(len(instructions) < 20 for instructions in trained)


def test_other_labels_of_taxonomy_stay(trial, given):
    trained = trial.Trained(given, (0.1, None))
    for label in ("refusal", "degenerate", "echo", "incompetent"):
        assert trained.labels([trial.Example("The town was proud.", "Who?", ("refusal",), "parent", "check half", label)]) == [
            label
        ]
