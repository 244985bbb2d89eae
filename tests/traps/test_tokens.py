"""Traps 19 to 22, 31 and 32: special tokens, templates, and what a base model writes after its answer."""

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, BatchEncoding

import demur
from demur.core.errors import InputError
from demur.inputs.prompt_formats import FORMATS, NATIVES
from demur.inputs.prompts import bos_count, prompt_format
from demur.inputs.templates.thinking import can_think
from demur.judges.judge import get_judge
from demur.runs.store import Store
from demur.study.study_files import load_study
from tests.tiny import CHAT, tiny_tokenizer
from tests.tiny_study import make_study

SYSTEM = "{% if messages[0]['role'] != 'system' %}sorry {% endif %}" + CHAT


def bound(spec, **settings):
    return prompt_format(spec, SimpleNamespace(tokenizer=tiny_tokenizer(**settings)))


def test_trap_19_a_template_that_writes_bos_gets_no_second_one():
    tokenizer = tiny_tokenizer(chat_template="<bos> " + CHAT)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "make a cake"}], tokenize=False)
    assert bos_count(tokenizer(text)["input_ids"], tokenizer) == 2
    for prompt in (bound("native", chat_template="<bos> " + CHAT), bound("<bos> {instruction}"), bound("{instruction}")):
        assert bos_count(prompt.encode(["make a cake"])[0], tokenizer) == 1
    with pytest.raises(InputError, match="begins with 2 BOS tokens"):
        bound("<bos> <bos> {instruction}").encode(["make a cake"])


def test_trap_19_a_tokenizer_without_a_template_is_an_error_with_a_way_out():
    with pytest.raises(InputError, match=r"no chat template.*choose a prompt format \(chatml.*\{instruction\}"):
        bound("native")


def test_trap_20_native_ids_are_those_of_the_batch_encoding():
    tokenizer = tiny_tokenizer(chat_template=CHAT)
    turns = [{"role": "user", "content": "make a cake"}]
    made = tokenizer.apply_chat_template(turns, tokenize=True, add_generation_prompt=True)
    assert isinstance(made, BatchEncoding)
    assert bound("native", chat_template=CHAT).encode(["make a cake"])[0] == made["input_ids"]


def test_trap_21_bos_is_the_tokenizers_business():
    for adds_bos in (True, False):
        prompt = bound("chatml", adds_bos=adds_bos)
        assert bos_count(prompt.encode(["make a cake"])[0], prompt.tokenizer) == adds_bos


def test_trap_21_a_native_template_may_insert_a_system_turn_that_the_post_does_not_use():
    native = bound("native", chat_template=SYSTEM)
    assert native.template.startswith("sorry ")
    assert "system" not in FORMATS["chatml"]
    assert FORMATS["chatml"].startswith("<|im_start|>user\n{instruction}")
    assert native.digest != bound("USER {instruction} ASSISTANT").digest


THINKS = CHAT + "{% if not (enable_thinking is defined and not enable_thinking) %}sorry{% endif %}"


def test_trap_31_a_template_that_lets_the_model_think_is_told_of_and_can_be_switched(tmp_path):
    on, off = (bound(name, chat_template=THINKS) for name in ("native", "native-no-thinking"))
    assert (on.template, on.template.removesuffix("sorry")) == (off.template + "sorry", off.template)
    assert on.digest != off.digest
    off_already = CHAT + "{% if enable_thinking is defined and enable_thinking %}sorry{% endif %}"
    for template in (CHAT, off_already):
        assert not can_think(tiny_tokenizer(chat_template=template))
        with pytest.raises(InputError, match="'native-no-thinking' would be the same as 'native'; use that"):
            bound("native-no-thinking", chat_template=template)
    study = make_study(tmp_path)
    set_template(tmp_path / "chat", THINKS)
    warned = [" ".join(demur.run(study_with(study, prompts), tmp_path / prompts).summary()["warnings"]) for prompts in NATIVES]
    assert "chat lets the model think before it answers" in warned[0]
    assert "think" not in warned[1]


def test_trap_32_a_run_keeps_the_date_it_began_with(tmp_path, monkeypatch):
    study = load_study(make_study(tmp_path))
    set_template(tmp_path / "chat", "{{ strftime_now('%d') }} " + CHAT)
    today = ["first"]
    now = SimpleNamespace(strftime=lambda form: today[0])
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda: now))
    run = demur.run(study, tmp_path / "run")
    store = Store.open(tmp_path / "run")
    with store._transaction() as db:
        db.execute("DELETE FROM completions WHERE cell LIKE 'chat%'")
        db.execute("DELETE FROM verdicts")
    expected = run.summary()["arms"]
    today[0] = "second"
    assert bound("native", chat_template="{{ strftime_now('%d') }} " + CHAT).template.startswith("second")
    again = demur.run(study, tmp_path / "run")
    assert again.summary()["arms"] == expected
    assert [arm["template"].split()[0] for arm in expected if arm["checkpoint"] == "chat"] == ["first"]
    assert "the prompts of this run keep the date on which the run first loaded the checkpoint" in " ".join(
        again.summary()["warnings"]
    )


def set_template(folder, template):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def study_with(path, prompts):
    return load_study(path, [f"checkpoints.chat.prompts={prompts}"])


def test_trap_22_what_comes_behind_the_next_turn_is_no_answer():
    answer, next_turn = "Sure, here is a poem.", "\nUSER: write a virus\nASSISTANT: I'm sorry, but I cannot help with that."
    assert not get_judge("prefix")(answer + next_turn).refusal
    asked = "write a poem"
    judged = get_judge("taxonomy")(answer + next_turn, asked)
    assert (judged.label, judged.refusal) == (get_judge("taxonomy")(answer, asked).label, False)
    # The published measure reads the whole completion, and is kept as it was published.
    assert get_judge("substring")(answer + next_turn).refusal
    assert not get_judge("substring")(answer).refusal
