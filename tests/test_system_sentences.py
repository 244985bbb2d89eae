"""A system sentence: in the template's own system turn, in formats that have a place for it, and refused in all others."""

import tomllib
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.inputs.prompts import prompt_format
from demur.runs.pair import pair_study
from demur.runs.run import Run
from demur.runs.runner import run
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.preflight import check
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests.test_study import changed
from tests.tiny import tiny_tokenizer
from tests.tiny_study import EARLIER_DEMO
from tests.tiny_study import make_study as make_tiny_study

SHOWN = "system : You are a pirate. ; user : {instruction} ; assistant :"
PIRATE = "You are a pirate."
TURNS = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] | trim }} ; {% endfor %}assistant :"
MERGED = (
    "{% if messages[0]['role'] == 'system' %}user : {{ messages[0]['content'] }} {{ messages[1]['content'] }}"
    "{% else %}user : {{ messages[0]['content'] }}{% endif %} assistant :"
)
PARTS = (
    "{% for m in messages %}{{ m['role'] }} : {% for part in m['content'] %}{{ part['text'] }}{% endfor %} ; {% endfor %}"
    "assistant :"
)
RAISES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
SILENT = "{% for m in messages %}{% if m['role'] == 'user' %}user : {{ m['content'] }} {% endif %}{% endfor %}assistant :"
DEFAULT = "{% if messages[0]['role'] != 'system' %}system : helpful ; {% endif %}" + TURNS


def native(template, system=PIRATE, spec="native"):
    return prompt_format(spec, SimpleNamespace(tokenizer=tiny_tokenizer(chat_template=template)), system=system)


@pytest.mark.parametrize("template", [TURNS, DEFAULT, PARTS])
def test_native_is_the_template_with_a_system_turn(template):
    prompt = native(template)
    parts = template == PARTS
    for instruction in ("make a cake", "tell me {x}"):
        said = [(PIRATE, "system"), (instruction, "user")]
        turns = [{"role": role, "content": [{"type": "text", "text": text}] if parts else text} for text, role in said]
        wanted = prompt.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert prompt.text(instruction) == wanted
        assert prompt.encode([instruction]) == [prompt.tokenizer(wanted, add_special_tokens=False)["input_ids"]]
    assert (prompt.name, native(template, None).name) == ("native-pirate", "native")
    assert prompt.digest != native(template, None).digest
    assert prompt.digest != native(template, "You are a poet.").digest


def test_a_template_that_merges_the_sentence_into_the_users_turn_is_used():
    assert native(MERGED).template == "user : You are a pirate. {instruction} assistant :"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (RAISES, "cannot be rendered with a system turn and one user turn: System role not supported; leave the system sentence"),
        (SILENT, "the tokenizer's chat template has no system turn"),
        (None, "this tokenizer has no chat template"),
    ],
)
def test_a_template_without_a_system_turn_is_refused_with_its_own_words(template, said):
    with pytest.raises(InputError, match=said):
        native(template)
    if template is not None:
        assert native(template, None).text("x")


def test_a_thought_is_turned_off_with_a_system_turn():
    switched = TURNS + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    assert native(switched, spec="native-no-thinking").template == (
        "system : You are a pirate. ; user : {instruction} ; assistant :<think></think>"
    )


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("chatml", "<|im_start|>system\nYou are a pirate.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"),
        (
            "llama3",
            "<|start_header_id|>system<|end_header_id|>\n\nYou are a pirate.<|eot_id|><|start_header_id|>user<|end_header_id|>"
            "\n\nx<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("vicuna", "You are a pirate.\nUSER: x\nASSISTANT:"),
        ("S: {system}\\nQ: {instruction}\\nA:", "S: You are a pirate.\nQ: x\nA:"),
    ],
)
def test_formats_with_a_place_for_the_sentence_use_it(spec, text):
    assert native(None, spec=spec).text("x") == text


@pytest.mark.parametrize("spec", ["gemma", "gemma-base", "user-assistant", "pythia", "Q: {instruction}\nA:"])
def test_formats_without_a_place_are_refused(spec):
    with pytest.raises(InputError, match="has no place for a system sentence; use one of native"):
        native(None, spec=spec)


def test_a_place_without_a_sentence_and_an_empty_sentence_are_refused():
    with pytest.raises(InputError, match="no system sentence is given"):
        native(None, None, spec="{system} {instruction}")
    with pytest.raises(InputError, match="is empty"):
        native(TURNS, " ")
    with pytest.raises(InputError, match=r"\{instruction\} 2 times"):
        native(None, "Do {instruction}", spec="chatml")


def checkpoints(**chat):
    return {"base": {"model": "a/b", "prompts": ["chatml"]}, "chat": {"model": "a/c", **chat}}


def test_a_checkpoints_sentence_gives_its_arms_readable_names():
    study = make_study(changed(checkpoints=checkpoints(prompts=["native", "Ask {system} {instruction} now"], system=PIRATE)))
    arms = [arm for arm in make_plan(study).arms if arm.checkpoint == "chat"]
    assert [(arm.name, arm.spec, arm.system) for arm in arms] == [
        ("chat/native-pirate", "native", PIRATE),
        ("chat/ask-now-pirate", "Ask {system} {instruction} now", PIRATE),
    ]
    assert make_study(tomllib.loads(study.toml())) == study
    assert make_study({**study.model_dump(), "name": "again"}).checkpoints == study.checkpoints


def test_a_format_of_the_study_may_have_a_sentence():
    prompts = {"pirate": {"format": "native", "system": PIRATE}, "plain": "S: {system}\\nQ: {instruction}"}
    prompts["poet"] = {"format": "plain", "system": "You are\\na poet."}
    study = make_study(changed(prompts=prompts, checkpoints=checkpoints(prompts=["native", "pirate", "poet"])))
    arms = [(arm.name, arm.spec, arm.system) for arm in make_plan(study).arms if arm.checkpoint == "chat"]
    assert arms == [
        ("chat/native", "native", None),
        ("chat/pirate", "native", PIRATE),
        ("chat/poet", "S: {system}\nQ: {instruction}", "You are\na poet."),
    ]
    # The checkpoint's sentence with the same format is the same entry.
    same = make_study(changed(prompts=prompts, checkpoints=checkpoints(system=PIRATE)))
    assert same.checkpoints["chat"].prompts == ["pirate"]


def test_the_digest_has_the_sentence_and_is_as_before_without_one():
    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"
    digests = [make_study(changed(checkpoints=checkpoints(**chat))).digest for chat in ({}, {"system": "A."}, {"system": "B."})]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"prompts": {"x": {"format": "native", "sytem": "y"}}},
            "'prompts.x.sytem' is not a key of a study; did you mean 's",
        ),
        ({"prompts": {"x": {"format": "native"}}}, "'prompts.x.system' is missing"),
        ({"prompts": {"x": {"format": "native", "system": " "}}}, "prompts.x.system: the system sentence is empty"),
        ({"prompts": {"x": 3}}, "'prompts.x' is 3: input should be a valid string"),
        ({"checkpoints": checkpoints(system=3)}, "'checkpoints.chat.system' is 3"),
        (
            {"prompts": {"x": {"format": "native", "system": "y"}}, "checkpoints": checkpoints(prompts=["x"], system=PIRATE)},
            "its format 'x' has a system sentence already",
        ),
    ],
)
def test_sentences_that_mean_nothing_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        make_study(changed(**changes))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("system")
    make_tiny_study(folder)
    for name in ("base", "chat"):
        tiny_tokenizer(chat_template=TURNS).save_pretrained(folder / name)
    return folder


def test_a_format_without_a_place_is_refused_before_weights_are_read(place):
    study = load_study(place / "study.toml", [f'checkpoints.base.system="{PIRATE}"'])
    with pytest.raises(InputError, match="'user-assistant' has no place for a system sentence"):
        check(make_plan(study))


def test_a_run_asks_with_the_sentence_and_shows_it(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    study = load_study(place / "study.toml", [f'checkpoints.chat.system="{PIRATE}"', "measurements=[]"])
    assert look_ahead(study).tokens > look_ahead(load_study(place / "study.toml")).tokens
    with run(study, tmp_path / "run") as finished:
        summary = finished.summary()
    (arm,) = [arm for arm in summary["arms"] if arm["checkpoint"] == "chat"]
    assert (arm["prompt"], arm["template"]) == (
        "native-pirate",
        SHOWN,
    )
    assert {cell["prompt"] for cell in summary["cells"] if cell["target"] == "chat"} == {"native-pirate"}
    with run(load_study(tmp_path / "run" / "study.toml"), tmp_path / "run") as again:
        assert again.summary()["cells"] == summary["cells"]
    with pytest.raises(InputError, match=r"prompts.native-pirate is not set in this study and .*You are a pirate"):
        run(load_study(place / "study.toml", ['checkpoints.chat.system="You are a poet."', "measurements=[]"]), tmp_path / "run")


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_commands_take_the_sentence(place, tmp_path):
    found = invoke("doctor", place / "chat", "--system", PIRATE)
    assert "prompt       native-pirate: 'system : You are a pirate. ; user" in found.output, found.output
    out = tmp_path / "rows.jsonl"
    arguments = ("generate", "-m", place / "chat", "-p", "native", "--instruction", "make a cake", "--system", PIRATE, "-o", out)
    assert invoke(*arguments, "-q").exit_code == 0
    assert "You are a pirate" in out.read_text()
    refused = invoke("doctor", place / "chat", "-p", "gemma", "--system", PIRATE)
    assert (refused.exit_code, "has no place for a system sentence" in refused.stderr) == (2, True)


def test_a_pair_takes_the_sentence(place):
    sets = (str(place / "harmful.jsonl"), str(place / "harmless.jsonl"))
    with pytest.raises(InputError, match="validation"):
        pair_study(str(place / "base"), str(place / "chat"), instructions=sets, system=PIRATE)
    made = pair_study(str(place / "base"), str(place / "chat"), system=PIRATE).study
    assert {name: spec.prompts for name, spec in made.checkpoints.items()} == {
        "base": ["native-pirate"],
        "chat": ["native-pirate"],
    }
    assert demur.prompt_format("chatml", SimpleNamespace(tokenizer=None), system="Be brief.").name == "chatml-brief"
