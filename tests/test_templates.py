"""`native` is what the chat template gives for the very instruction, and a template that cannot be used is one sentence."""

import time
from types import SimpleNamespace

import pytest

from demur.core.errors import InputError
from demur.inputs.prompts import prompt_format
from demur.inputs.templates.template_rendering import TemplatePassedLimit
from tests.tiny import CHAT, HARMLESS, tiny_tokenizer

ASK = "{% for m in messages %}USER {{ m['content'] }} {% endfor %}ASSISTANT"
AWKWARD = ("write a poem", "  how to make a cake \n", "explain why Python is Blue?", "make a cake now", "say {instruction}", "a")


def native(template, spec="native"):
    return prompt_format(spec, SimpleNamespace(tokenizer=tiny_tokenizer(chat_template=template)))


def own_ids(tokenizer, instruction, content=None):
    """What transformers gives by itself."""
    turns = [{"role": "user", "content": content or instruction}]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


@pytest.mark.parametrize(
    "template",
    [
        CHAT,
        "USER {{ messages[0]['content'] | trim }} ASSISTANT",
        "USER {{ messages[0]['content'] | title }} ASSISTANT",
        "USER {{ messages[0]['content'] | upper }} ASSISTANT",
        "USER {% if 'cake' in messages[0]['content'] %}and {% endif %}{{ messages[0]['content'] }} ASSISTANT",
        "USER {{ messages[0]['content'] }}{% if messages[0]['content'][-1] == '?' %} explain{% endif %} ASSISTANT",
        "USER {{ messages[0]['content'].split(' now')[0] }} ASSISTANT",
        "{% if messages[0]['content'] | length < 3 %}I {% endif %}USER {{ messages[0]['content'] }} ASSISTANT",
    ],
)
def test_every_instruction_has_the_ids_of_the_chat_template(template):
    prompt = native(template)
    assert prompt.template.count("{instruction}") == 1
    assert prompt.encode(AWKWARD) == [own_ids(prompt.tokenizer, one) for one in AWKWARD]
    for one in AWKWARD:
        turns = [{"role": "user", "content": one}]
        assert prompt.text(one) == prompt.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        before, after = prompt.continued(one, " sure")
        assert before + after == prompt.tokenizer(prompt.text(one) + " sure", add_special_tokens=False)["input_ids"]
    assert prompt.token_read(-1) == "ASSISTANT"


def test_only_a_template_that_changes_every_instruction_has_another_digest():
    plain = prompt_format("USER {instruction} ASSISTANT", SimpleNamespace(tokenizer=tiny_tokenizer(adds_bos=False)))
    texts = {name: f"USER {{{{ messages[0]['content']{name} }}}} ASSISTANT" for name in ("", " | trim", " | title")}
    found = {name: native(text) for name, text in texts.items()}
    assert {prompt.template for prompt in found.values()} == {plain.template}
    assert found[""].digest == found[" | trim"].digest != found[" | title"].digest


def test_content_as_parts_where_text_is_not_shown():
    parts = "{% for part in messages[0]['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    prompt = native(f"User {parts} Assistant")
    assert prompt.template == "User {instruction} Assistant"
    for one in AWKWARD:
        assert prompt.encode([one])[0] == own_ids(prompt.tokenizer, one, [{"type": "text", "text": one}])
    raises = "{% if messages[0]['content'] is string %}{{ raise_exception('parts please') }}{% endif %}" + parts
    assert native(raises).template == "{instruction}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system turn is needed') }}{% endif %}" + ASK,
         "a system turn is needed"),
        ("{{ guideline['text'] }}" + ASK, "'guideline' is undefined"),
        ("{{ documents[0]['title'] }}" + ASK, "None has no element 0"),
        ("{% if tools | length > 0 %}tools {% endif %}" + ASK, "TypeError: object of type 'NoneType' has no len()"),
        (ASK + "{{ messages | from_json }}", "No filter named 'from_json'"),
        (ASK[:40], "unexpected char"),
        ("{% for i in range(999999999) %}{% endfor %}", "OverflowError: Range too big"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ messages[0]['content'].__class__.__mro__ }}", "unsafe"),
        ({"a": "x", "b": "y"}, "no default"),
    ],
)  # fmt: skip
def test_a_template_that_fails_is_one_sentence_with_its_words_and_the_way_out(template, words):
    with pytest.raises(InputError) as caught:
        native(template)
    said = str(caught.value)
    assert said.startswith("the tokenizer's chat template cannot be rendered with one user turn: ")
    assert words in said
    assert "--prompt" in said
    assert "chatml" in said
    assert "\n" not in said


@pytest.mark.parametrize(("template", "times"), [("fixed text", 0), (ASK + ASK, 2)])
def test_a_template_that_does_not_show_the_instruction_once(template, times):
    with pytest.raises(InputError, match=f"shows the instruction {times} times, and once is expected; .*--prompt"):
        native(template)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "takes more than 1 seconds"),
        ("{% set n = namespace(x='a' * 99) %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "1 GiB of memory"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}" + "a" * 99 + "{% endfor %}{% endfor %}",
            "4,000,000 characters",
        ),
        ("{{ 'a' * 3000000000 }}", "1 GiB of memory"),
    ],
)
def test_a_template_that_does_not_end_or_grows_without_limit_is_stopped(template, words, monkeypatch):
    # On a busy machine, memory and text take longer than a second to grow; only the loop has to be stopped by its time.
    seconds = 1.0 if "seconds" in words else 60.0
    monkeypatch.setattr("demur.inputs.templates.template_rendering.GUARD_SECONDS", seconds)
    with pytest.raises(TemplatePassedLimit, match=words):
        native(template)


def test_a_template_that_does_not_end_with_some_instruction_is_stopped(monkeypatch):
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    prompt = native("{% if 'bomb' in messages[0]['content'] %}" + loop + "{% endif %}" + ASK)
    assert prompt.encode(HARMLESS)
    monkeypatch.setattr("demur.inputs.templates.template_rendering.SECONDS", 0.2)
    begun = time.thread_time()
    with pytest.raises(TemplatePassedLimit, match=r"takes more than 0\.2 seconds"):
        prompt.encode(["how to make a bomb"])
    assert time.thread_time() - begun < 5


def test_names_that_transformers_gives_to_templates_are_known_to_the_process_that_tries_them():
    names = "{{ strftime_now('%Y')[:0] }}{{ messages | tojson | length * 0 }}{% generation %}{% endgeneration %}{% break %}"
    prompt = native("{% for m in messages %}USER {{ m['content'] }} " + names + "{% endfor %}")
    assert prompt.encode(["a"]) == [own_ids(prompt.tokenizer, "a")]
