"""What is easily written in Python and means something else is refused in one sentence, and what is natural works."""

from inspect import unwrap

import pytest

import demur
from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.inputs.instructions import InstructionSet
from tests.tiny import HARMFUL

SET = InstructionSet("mine", {"test": tuple(HARMFUL)}, "here")


@pytest.fixture
def prompt(checkpoint):
    return demur.prompt_format("user-assistant", checkpoint)


def untyped(function):
    """A function as a user has it: in these tests, annotations are checked too."""
    return unwrap(function)


def test_one_text_and_a_set_are_no_list_of_instructions(checkpoint, prompt):
    for act in (
        lambda: demur.generate(checkpoint, "Write a poem", prompt),
        lambda: demur.capture(checkpoint, "Write a poem", prompt),
        lambda: demur.extract_direction(checkpoint, "Write a poem", HARMFUL, prompt, layer=1),
        lambda: demur.refusal_scores(checkpoint, "Write a poem", prompt, [1]),
        lambda: untyped(type(prompt).encode)(prompt, SET),
    ):
        with pytest.raises(InputError, match="not a list of texts"):
            act()


def test_one_edit_is_no_list_of_interventions(checkpoint, prompt):
    edit = demur.ablate(from_raw(checkpoint.model.lm_head.weight[0].detach(), name="d", layer=1))
    with pytest.raises(InputError, match=r"give \[edit\]"):
        untyped(demur.generate)(checkpoint, HARMFUL, prompt, edit)
    assert len(demur.generate(checkpoint, HARMFUL, prompt, [edit], max_new_tokens=1)) == 1


def test_judges_refuse_one_text_and_lists_of_lists(checkpoint, prompt):
    with pytest.raises(InputError, match=r"give \[text\]"):
        demur.judge("I cannot help")
    rows = demur.generate(checkpoint, HARMFUL[:2], prompt, max_new_tokens=1)
    with pytest.raises(InputError, match=r"judge\(rows\[0\]\)"):
        demur.judge(rows)
    assert len(demur.judge(rows[0])) == 2


def test_a_checkpoint_is_loaded_from_a_path(checkpoint, tmp_path):
    checkpoint.model.save_pretrained(tmp_path / "here")
    checkpoint.tokenizer.save_pretrained(tmp_path / "here")
    assert demur.load_checkpoint(tmp_path / "here").fingerprint == demur.load_checkpoint(str(tmp_path / "here")).fingerprint
