"""Instruction to token ids: the post's formats to the letter, one BOS where the family has one, nothing guessed."""

import hashlib
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.core.registry import is_short_name, registry
from demur.inputs.format_names import format_name
from demur.inputs.prompt_formats import FORMATS, NATIVES, needs_tokenizer, prompt_names, template_text
from demur.inputs.prompts import bos_count, prompt_format
from tests.tiny import CHAT, HARMLESS, tiny_tokenizer
from tests.tiny_study import make_study


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
    assert prompt.name == "user-assistant-2"  # user-assistant is another text
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


def test_a_chat_template_that_cannot_be_rendered_is_refused():
    for broken in ("{{ raise_exception('no user turns') }}", "{{ messages"):
        with pytest.raises(InputError, match="chat template cannot be rendered with one user turn"):
            bound("native", chat_template=broken)


def test_what_is_read_outside_the_template_is_said_to_be_the_instructions():
    prompt = bound("USER {instruction} ASSISTANT :")
    assert prompt.token_read(-1) == prompt.token_at(-1)
    assert prompt.token_read(-3) == "a token of the instruction"
    assert prompt.token_read(-30) == "a token of the instruction"
    assert bound("USER {instruction}").token_read(-1) == "a token of the instruction"


LOUD = "HEAR THIS: {instruction} NOW"


class Greeting:
    """Greets by the name of the tokenizer's first token."""

    adds_special_tokens = True

    def template(self, tokenizer):
        return f"{tokenizer.convert_ids_to_tokens([1])[0]} {{instruction}} :"


@pytest.fixture
def formats():
    demur.register("prompt", "loud", LOUD)
    demur.register("prompt", "greeting", Greeting)
    yield
    registry("prompt").unregister("loud")
    registry("prompt").unregister("greeting")


@pytest.mark.parametrize(("spec", "name"), [("loud", "loud"), (f"{__name__}:LOUD", None), (LOUD, None)])
def test_a_text_from_outside(formats, spec, name):
    prompt = bound(spec)
    assert prompt.template == LOUD
    assert name is None or prompt.name == name
    assert prompt.encode(["make a cake"]) == bound(LOUD).encode(["make a cake"])
    assert (needs_tokenizer(spec), template_text(spec)) == (False, LOUD)


def test_an_object_from_outside(formats):
    for spec in ("greeting", f"{__name__}:Greeting"):
        prompt = bound(spec)
        assert is_short_name(prompt.name)
        assert (prompt.template, prompt.adds_special_tokens) == ("<bos> {instruction} :", True)
        assert needs_tokenizer(spec)
        with pytest.raises(InputError, match="depends on the tokenizer; load a checkpoint to see it"):
            template_text(spec)


def test_names_of_formats_from_outside_are_known(formats):
    assert set(prompt_names()) == {*FORMATS, *NATIVES, "loud", "greeting"}
    with pytest.raises(InputError, match="'greetng' is not a prompt format; did you mean 'greeting'?"):
        bound("greetng")
    with pytest.raises(InputError, match="a prompt text needs {instruction}"):
        bound("nowhere:at all")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{instruction} and {instruction}", "the prompt format 'bad' holds {instruction} 2 times"),
        (SimpleNamespace(template=len), "the prompt format 'bad' has no adds_special_tokens"),
        (SimpleNamespace(template=lambda tokenizer: "no slot", adds_special_tokens=True), "{instruction} 0 times; once is"),
        ("demur.inputs.prompt_formats:NOTHING", "the prompt format 'demur.inputs.prompt_formats:NOTHING' cannot be imported"),
    ],
)
def test_formats_from_outside_that_are_none(target, message):
    demur.register("prompt", "bad", target)
    try:
        with pytest.raises(InputError, match=message):
            bound("bad")
    finally:
        registry("prompt").unregister("bad")


def requests():
    """An instruction set from outside."""
    return {"train": HARMLESS[:4], "test": HARMLESS[4:7]}


def test_a_study_runs_with_a_format_and_instructions_from_outside(formats, tmp_path):
    study = make_study(tmp_path)
    text = study.read_text().replace('prompts = ["user-assistant"]', 'prompts = ["greeting"]')
    study.write_text(text.replace(f"{tmp_path}/harmless.jsonl", f"{__name__}:requests"))
    assert "greeting" in CliRunner().invoke(app, ["plan", str(study)]).output
    found = demur.run(demur.load_study(study), out=tmp_path / "run")
    completions = found.completions()
    assert set(completions["instruction"]) >= set(HARMLESS[4:7])
    assert {cell["prompt"] for cell in found.summary()["cells"]} == {"greeting", "native"}
    own = demur.load_direction(tmp_path / "run/directions/base.safetensors")
    assert (own.provenance.prompt, own.provenance.prompt_text) == ("greeting", "<bos> {instruction} :")


@pytest.mark.parametrize("spec", ["my/fmt", "my.fmt", "up/../fmt", "C:fmt", "füße", "/", "x" * 300, f"{__name__}:Greeting"])
def test_the_name_of_a_format_can_be_a_part_of_file_names(spec):
    demur.register("prompt", spec, Greeting)
    try:
        name = format_name(spec)
        assert is_short_name(name)
        assert len(name.encode()) <= 64
        assert format_name("chatml") == "chatml"
        demur.register("prompt", f"{spec}-", Greeting)
        assert format_name(f"{spec}-") != name
    finally:
        registry("prompt").unregister(spec)
        registry("prompt").unregister(f"{spec}-")


PERSONAS = {
    "assistant": "51408c10",
    "henchman": "d5931a7b",
    "neutral-document": "0ac21387",
    "transcript": "2a3ecded",
}


@pytest.mark.parametrize("name", PERSONAS)
def test_the_text_of_a_persona_never_changes_under_its_name(name):
    text = template_text(name)
    assert text.count("{instruction}") == 1
    assert hashlib.sha256(text.encode()).hexdigest()[:8] == PERSONAS[name]
    assert format_name(text) == name
