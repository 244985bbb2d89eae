"""Thoughts are found by rendering and by what is written; judges but the published two judge the answer after them."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.doctor_lines import doctor_lines
from demur.cli.main import app
from demur.core.errors import InputError
from demur.core.thought_marks import after_thought, begins_thought, open_thought, thought_at_end
from demur.engine.diagnosis import diagnosis
from demur.engine.generate import CompletionRequest, _completion
from demur.inputs.prompts import prompt_format
from demur.inputs.templates.thinking import thinking_of
from demur.judges.judge import Failure, Judged, TextJudge, Verdict, answers, get_judge
from demur.judges.turn_end import special_thought_marks, turn_end_ids
from demur.runs.store import Store
from tests.tiny import CHAT, tiny_model, tiny_tokenizer
from tests.tiny_study import make_checkpoint, make_study

ASK = "{% for m in messages %}USER {{ m['content'] }} {% endfor %}"
HARMONY = (
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}<|start|>system<|message|>Reasoning:"
    " {{ reasoning_effort }} # Valid channels: analysis, final.<|end|>{% for m in messages %}<|start|>user<|message|>"
    "{{ m['content'] }}<|end|>{% endfor %}<|start|>assistant"
)
FINAL = "<|channel|>final<|message|>"
THINKS = {
    "enable_thinking": (ASK + "A{% if enable_thinking is defined and not enable_thinking %} <think> </think>{% endif %}",
                        "A <think> </think>"),
    "on by default": ("{% if thinking is not defined %}{% set thinking = true %}{% endif %}" + ASK
                      + "A{% if not thinking %} <think> </think>{% endif %}", "A <think> </think>"),
    "a system line": ("{% if enable_thinking | default(true) %}/think {% else %}/no_think {% endif %}" + ASK + "A", "} A"),
    "a negative switch": (ASK + "A{% if no_think %} <think></think>{% endif %}", "A <think></think>"),
    "a switch of words": (ASK + "A{% if (mode | default('deep')) == 'off' %} <think></think>{% endif %}", "A <think></think>"),
    "a budget": (ASK + "A{% if budget is defined and budget == 0 %}<seed:think></seed:think>{% endif %}",
                 "A<seed:think></seed:think>"),
    "another mark": (ASK + "A{% if reasoning is defined and not reasoning %}<|START_THINKING|><|END_THINKING|>{% endif %}",
                     "A<|START_THINKING|><|END_THINKING|>"),
    "ends inside": (ASK + "A <think>\n", "A <think>\n\n</think>\n\n"),
    "ends inside another": (ASK + "A \u25c1think\u25b7", "A \u25c1think\u25b7\n\n\u25c1/think\u25b7\n\n"),
    "channels": (HARMONY, "assistant" + FINAL),
    "asks for thoughts": ("Draft in [THINK]thoughts[/THINK]. " + ASK, None),
}  # fmt: skip
DOES_NOT = {
    "plain": CHAT,
    "off by default": "{% if thinking %}Think please. {% endif %}" + ASK + "A",
    "off and closed": ASK + "A{% if enable_thinking %}<think>{% else %}<think>\n\n</think>{% endif %}",
    "off by a set": "{% if not thinking is defined %}{% set thinking = false %}{% endif %}" + ASK
    + "A{% if thinking %}<think>{% else %}</think>{% endif %}",
    "a note of another kind": "{% if reason_for_refusal %}{{ reason_for_refusal }}{% endif %}" + ASK + "A",
}  # fmt: skip


def bound(template, spec):
    return prompt_format(spec, SimpleNamespace(tokenizer=tiny_tokenizer(chat_template=template)))


@pytest.mark.parametrize("case", THINKS)
def test_a_template_that_lets_a_model_think_is_known_and_closed_where_it_can_be(case):
    template, end = THINKS[case]
    found = thinking_of(tiny_tokenizer(chat_template=template))
    assert found is not None
    assert found.sure
    if end is None:
        with pytest.raises(InputError, match="no switch that turns thinking off, and its prompt begins no thought that could be"):
            bound(template, "native-no-thinking")
    else:
        closed = bound(template, "native-no-thinking")
        assert closed.template.endswith(end)
        assert closed.template.count("{instruction}") == 1
        assert open_thought(closed.template) == ""


@pytest.mark.parametrize("case", DOES_NOT)
def test_a_template_with_which_no_model_thinks(case):
    assert thinking_of(tiny_tokenizer(chat_template=DOES_NOT[case])) is None
    with pytest.raises(InputError, match="would be the same as 'native'; use that"):
        bound(DOES_NOT[case], "native-no-thinking")


def test_a_template_that_only_removes_thoughts_from_earlier_answers_says_that_they_may_come():
    template = "{% for m in messages %}{{ m['content'].split('</think>')[-1] }}{% endfor %} A"
    found = thinking_of(tiny_tokenizer(chat_template=template))
    assert found is not None
    assert not found.sure
    lines = doctor_lines(diagnosis(demur.wrap(tiny_model(), tiny_tokenizer(chat_template=template)), "native"))
    assert any(line.startswith("thinking     the first tokens may be thoughts, because") for line in lines)


@pytest.mark.parametrize(
    ("text", "opened", "answer"),
    [
        ("Sure, here is a poem.", "", "Sure, here is a poem."),
        ("<think> They ask. </think> I can't.", "", " I can't."),
        ("They ask. </think> I can't.", "", " I can't."),
        ("They ask. </think> I can't.", "<think>", " I can't."),
        ("They ask for", "<think>", None),
        ("\n<think>\nThey ask for", "", None),
        ("<thinking>They</thinking>No.", "", "No."),
        ("<seed:think>They</seed:think>No.", "", "No."),
        ("[THINK]They[/THINK]No.", "", "No."),
        ("<|START_THINKING|>They<|END_THINKING|>No.", "", "No."),
        ("\u25c1think\u25b7They\u25c1/think\u25b7No.", "", "No."),
        ("<|channel|>analysis<|message|>They<|end|><|start|>assistant<|channel|>final<|message|>No.", "", "No."),
        ("<|channel|>analysis<|message|>They ask", "", None),
        ("<|channel|>final<|message|>No.", "", "No."),
        ("analysisThe user asks.assistantfinalNo.", "", "No."),
        ("analysisThe user asks", "", None),
        ("analysis of the poem", "", "analysis of the poem"),
        ("I think that <b> is bold", "", "I think that <b> is bold"),
        ("", "<think>", None),
        ("", "", ""),
    ],
)
def test_where_the_answer_begins(text, opened, answer):
    assert after_thought(text, opened) == answer
    if not opened:
        assert begins_thought(text) == (answer != text and not text.startswith("<|channel|>final"))


def test_marks_in_an_instruction_do_not_make_a_prompt_end_inside_a_thought():
    assert thought_at_end("USER: x ASSISTANT: <think>\n") == "<think>"
    assert thought_at_end("USER: what is <think>? ASSISTANT:") == ""


class Saying(TextJudge):
    """Gives the text back as evidence."""

    name, version, labels = "saying", 1, ("refusal", "compliance")

    def __call__(self, text, instruction="", /):
        return Verdict(self.name, False, "compliance", text)


BATCH = [
    Judged("I cannot say? </think> Sure, here it is: take two eggs.", thought="<think>"),
    Judged("I cannot help with", thought="<think>"),
    Judged("<think> Sure. </think> I cannot help with that."),
    Judged("Sure, here it is."),
]


def test_published_judges_judge_everything_and_others_the_answer():
    assert [one.refusal for one in answers(get_judge("prefix"), BATCH)] == [True, True, False, False]
    said = answers(get_judge("taxonomy"), BATCH)
    assert [(one.label, one.refusal) for one in said] == [
        ("compliance", False), ("thought", False), ("refusal", True), ("compliance", False),
    ]  # fmt: skip
    first, second, third, _ = answers(Saying(), BATCH)
    assert (first.evidence, third.evidence) == (" Sure, here it is: take two eggs.", " I cannot help with that.")
    assert second == Failure("saying", "the completion ends inside its thought, so it has no answer to judge")
    assert answers(Saying(), BATCH[1:2])[0] == second


def test_a_completion_brings_its_prompt_and_keeps_marks_that_are_special_tokens():
    inside = demur.Completion("a", "They want", (1,), prompt="USER a ASSISTANT <think>\n")
    assert demur.judge([inside], "taxonomy")[0].label == "thought"
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    ids = tokenizer("[THINK] I can not [/THINK] sure here <eos>", add_special_tokens=False)["input_ids"]
    made = _completion(tokenizer, CompletionRequest("a", ()), ids, turn_end_ids(tokenizer), special_thought_marks(tokenizer))
    assert made.text == "I can not sure here"
    assert made.own_turn is not None
    assert after_thought(made.own_turn).strip() == "sure here"


def test_generate_and_judge_tell(tmp_path):
    make_checkpoint(tmp_path / "m")
    tiny_tokenizer(chat_template=THINKS["ends inside"][0]).save_pretrained(tmp_path / "m")
    (tmp_path / "i.txt").write_text("write a poem\n")
    asked = ["-m", str(tmp_path / "m"), "-p", "native", "-i", str(tmp_path / "i.txt"), "--max-new-tokens", "2", "--device", "cpu",
             "-q", "--out", str(tmp_path / "c.jsonl")]  # fmt: skip
    done = CliRunner().invoke(app, ["generate", *asked])
    assert "note: the first tokens are thoughts, because the prompt ends inside a thought (<think>)" in done.stderr
    assert "note: 1 of 1 completions begin with a thought" in done.stderr
    CliRunner().invoke(app, ["judge", str(tmp_path / "c.jsonl"), "-j", "taxonomy", "--out", str(tmp_path / "v.jsonl")])
    assert json.loads((tmp_path / "v.jsonl").read_text())["label"] == "thought"


def test_a_run_tells_and_its_judges_know(tmp_path):
    study = make_study(tmp_path)
    tiny_tokenizer(chat_template=ASK + "ASSISTANT <think>\n").save_pretrained(tmp_path / "chat")
    run = demur.run(demur.load_study(study, ['judges=["prefix", "taxonomy"]']), tmp_path / "run")
    warned = " ".join(run.summary()["warnings"])
    assert "chat lets the model think before it answers (the prompt ends inside a thought (<think>))" in warned
    assert "3 of 3 completions of chat with the prompt native on harmful instructions begin with a thought" in warned
    assert "completions of base" not in warned
    rows = [row for row in Store.open(tmp_path / "run").verdicts() if row.judge == "taxonomy"]
    thoughts = {row.cell.startswith("chat") for row in rows if row.label == "thought"}
    answered = {row.cell.startswith("chat") for row in rows if row.label != "thought"}
    assert (thoughts, answered) == ({True}, {False})
