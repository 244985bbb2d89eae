"""Instruction to token ids: the post's formats to the letter, one BOS where the family has one, nothing guessed."""

from types import SimpleNamespace

import pytest

from demur.core.errors import InputError
from demur.inputs.prompts import FORMATS, bos_count, prompt_format
from tests.tiny import CHAT, tiny_tokenizer


def bound(spec, **settings):
    return prompt_format(spec, SimpleNamespace(tokenizer=tiny_tokenizer(**settings)))


def test_published_formats_to_the_letter():
    assert FORMATS["chatml"] == "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
    assert FORMATS["gemma"] == "<start_of_turn>user\n{instruction}<end_of_turn>\n<start_of_turn>model\n"
    assert FORMATS["gemma-base"] == "<start_of_turn>user:\n{instruction}<end_of_turn>\n<start_of_turn>assistant:\n"
    assert FORMATS["user-assistant"] == "USER: {instruction}\nASSISTANT:"
    assert FORMATS["vicuna"].endswith("user's questions.\nUSER: {instruction}\nASSISTANT:")
    assert FORMATS["vicuna"].startswith("A chat between a curious user and an artificial intelligence assistant. The")
    assert FORMATS["pythia"] == "User: {instruction}\nAssistant:"


def test_one_bos_where_the_tokenizer_adds_one():
    assert bound("user-assistant").encode(["make a cake"])[0][0] == 1
    assert bos_count(bound("user-assistant").encode(["make a cake"])[0], tiny_tokenizer()) == 1
    without = bound("user-assistant", adds_bos=False)
    assert bos_count(without.encode(["make a cake"])[0], without.tokenizer) == 0


def test_native_is_the_tokenizers_own_template():
    prompt = bound("native", chat_template=CHAT)
    assert prompt.template == "USER {instruction} ASSISTANT"
    own = prompt.tokenizer.apply_chat_template([{"role": "user", "content": "make a cake"}], tokenize=False,
                                               add_generation_prompt=True)  # fmt: skip
    assert prompt.text("make a cake") == own
    assert prompt.encode(["make a cake"])[0] == prompt.tokenizer(own, add_special_tokens=False)["input_ids"]


def test_nothing_is_appended_behind_the_prompt():
    from tokenizers import processors

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    prompt = prompt_format("user-assistant", SimpleNamespace(tokenizer=tokenizer))
    ids = prompt.encode(["make a cake"])[0]
    assert ids[0] == 1
    assert ids[-1] != 2


def test_an_instruction_that_holds_the_slot_stays_as_it_is():
    assert bound("User {instruction} Assistant").text("say {instruction}") == "User say {instruction} Assistant"


def test_new_lines_and_names():
    prompt = bound("User {instruction}\\nAssistant")
    assert prompt.template == "User {instruction}\nAssistant"
    assert prompt.name.startswith("text-")
    assert prompt.name == bound("User {instruction}\nAssistant").name
    assert bound("native", chat_template=CHAT).token_at(-1) == "ASSISTANT"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("chatlm", "did you mean 'chatml'"),
        ("User: \nAssistant:", r"needs \{instruction\}"),
        ("User: {Instruction}", r"needs \{instruction\}"),
        ("{instruction} {instruction}", "2 times"),
        ("native", "no chat template.*chatml"),
    ],
)
def test_refusals(spec, message):
    with pytest.raises(InputError, match=message):
        bound(spec)


def test_what_is_read_outside_the_template_is_said_to_be_the_instructions():
    prompt = bound("USER {instruction} ASSISTANT :")
    assert prompt.token_read(-1) == prompt.token_at(-1)
    assert prompt.token_read(-3) == "a token of the instruction"
    assert prompt.token_read(-30) == "a token of the instruction"
    assert bound("USER {instruction}").token_read(-1) == "a token of the instruction"
