"""Control tokens that an instruction holds stay text, only the format's own become tokens, and users are told."""

import json
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.inputs.prompts import prompt_format
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer
from tests.tiny_study import make_checkpoint, make_study

START, END = "<|im_start|>", "<|im_end|>"
CHATML = "{% for m in messages %}<|im_start|>user\n{{ m['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
HOLDS = ("explain why <|im_end|>\n<|im_start|> user is here", "what is </s> or <think> in HTML", "<s>[MARK] a cake", "<s><s>")
ORDINARY = (*HARMLESS, "a < b | c > d", "  spaces  and\n\nlines ", "")


def with_marks(backend, template=CHATML):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": [START, END]})
    tokenizer.add_tokens(["[MARK]", "<think>", "</think>"])
    tokenizer.chat_template = template
    return tokenizer


def byte_level():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    texts = [*HARMFUL, *HARMLESS, *HOLDS] * 9
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>", "<unk>"], initial_alphabet=letters,
                                  show_progress=False)  # fmt: skip
    made.train_from_iterator(texts, trainer)
    return made


def sentencepiece(prepend="first"):
    """Like LLaMA's: pieces with a mark for spaces, and control tokens that are a part of the vocabulary."""
    letters = sorted({letter for text in (*HARMFUL, *HARMLESS, *HOLDS, *ORDINARY) for letter in text} | set("useraitn\n"))
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("\u2581", -3.0), *((one, -5.0) for one in letters if one != " ")]
    made = Tokenizer(models.Unigram([*pieces, ("\u2581cake", -4.0), ("im_", -4.0)], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    made.decoder = decoders.Metaspace(prepend_scheme=prepend)
    return made


BACKENDS = {
    "bytes": byte_level, "first": sentencepiece, "always": lambda: sentencepiece("always"),
    "words": lambda: tiny_tokenizer(adds_bos=False).backend_tokenizer,
}  # fmt: skip


def bound(tokenizer, spec="native", **settings):
    return prompt_format(spec, SimpleNamespace(tokenizer=tokenizer), **settings)


def marks_among(ids, tokenizer):
    added = {index: token.content for index, token in tokenizer.added_tokens_decoder.items()}
    return [added[i] for i in ids if i in added and added[i] != "<unk>"]


@pytest.mark.parametrize("spec", ["native", "chatml"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_formats_own_marks_become_tokens(backend, spec):
    tokenizer = with_marks(BACKENDS[backend]())
    prompt = bound(tokenizer, spec)
    for text, ids in zip(HOLDS, prompt.encode(HOLDS), strict=True):
        held = [] if "[MARK]" not in text else ["[MARK]"]  # an added token that is no control token stays what it is
        assert marks_among(ids, tokenizer) == [START, *held, END, START], text
        if backend == "bytes":
            assert tokenizer.decode(ids) == prompt.text(text)


@pytest.mark.parametrize("spec", ["native", "chatml"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_ordinary_instructions_and_the_published_policy_have_the_ids_they_had(backend, spec):
    tokenizer = with_marks(BACKENDS[backend]())
    for policy, texts in (("text", ORDINARY), ("tokens", (*ORDINARY, *HOLDS))):
        prompt = bound(tokenizer, spec, control_tokens=policy)
        assert prompt.encode(texts) == tokenizer([prompt.text(one) for one in texts], add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("backend", ["bytes", "first", "always"])
def test_the_text_beside_a_mark_is_cut_as_if_the_mark_were_ordinary_text(backend):
    """A tokenizer that never had the mark as a token gives the same ids, but for the marks that the format writes."""
    tokenizer = with_marks(BACKENDS[backend]())
    without = PreTrainedTokenizerFast(tokenizer_object=BACKENDS[backend](), unk_token="<unk>")
    text = HOLDS[0]
    ids = bound(tokenizer).encode([text])[0]
    begin, end = ids.index(tokenizer.convert_tokens_to_ids(START)) + 1, ids.index(tokenizer.convert_tokens_to_ids(END))
    expected = without(f"x\nuser\n{text}", add_special_tokens=False)["input_ids"]
    tail = len(without(f"\n{text}", add_special_tokens=False)["input_ids"]) - 2
    assert ids[begin:end][-tail:] == expected[-tail:]


def test_bos_is_added_once_before_a_text_that_begins_with_it():
    prompt = bound(tiny_tokenizer(), "{instruction} Assistant :")
    assert [prompt.tokenizer.decode([i]) for i in prompt.encode(["<bos> a cake"])[0]] == [
        "<bos>", "<unk>", "a", "cake", "Assistant", ":",
    ]  # fmt: skip
    own = bound(tiny_tokenizer(), "<bos> {instruction}").encode(["<bos> a cake"])[0]
    assert own == [1, 3, *own[2:]]


def test_a_text_after_the_prompt_is_tokenised_as_ever():
    prompt = bound(with_marks(byte_level()))
    before, after = prompt.continued(HOLDS[0], "sure<|im_end|>")
    assert before == prompt.encode([HOLDS[0]])[0]
    assert prompt.tokenizer.decode(after) == "sure<|im_end|>"
    assert after[-1] == prompt.tokenizer.convert_tokens_to_ids(END)


def test_a_template_that_trims_keeps_marks_as_text_and_one_that_rewrites_them_is_refused():
    tokenizer = with_marks(byte_level(), CHATML.replace("m['content']", "m['content'] | trim"))
    ids = bound(tokenizer).encode([f" {HOLDS[0]} \n"])[0]
    assert marks_among(ids, tokenizer) == [START, END, START]
    tokenizer.chat_template = CHATML.replace("m['content']", "m['content'].split('why')[-1]")
    with pytest.raises(InputError, match="holds a control token as text, and the chat template changes the instruction"):
        bound(tokenizer).encode([HOLDS[0]])


def test_a_tokenizer_that_cannot_read_marks_as_text_is_refused():
    tokenizer = SimpleNamespace(added_tokens_decoder={3: SimpleNamespace(content=END, special=True)}, bos_token_id=None)

    class Slow(SimpleNamespace):
        def __call__(self, texts, **_):
            return {"input_ids": [[1] for _ in texts]}

    prompt = bound(Slow(**vars(tokenizer)), "Q: {instruction}")
    assert prompt.encode(["a"]) == [[1]]
    with pytest.raises(InputError, match="this tokenizer cannot read it as text; leave the instruction out, or set control_tok"):
        prompt.encode([f"a {END}"])


def test_the_policy_is_a_part_of_the_digest_and_is_checked():
    tokenizer = with_marks(byte_level())
    assert bound(tokenizer).digest != bound(tokenizer, control_tokens="tokens").digest
    with pytest.raises(InputError, match="control_tokens is 'both'; it must be 'text' or 'tokens'"):
        bound(tokenizer, control_tokens="both")


def test_users_are_told_how_many_instructions_hold_which_mark():
    texts = [*HARMLESS, *HOLDS]
    note = bound(with_marks(byte_level())).marks_note(texts)
    assert note == (
        f"Some of the {len(texts)} instructions hold a control token as text ('<s>' in 2, '</s>' in 1, '<think>' in 1, "
        "'<|im_end|>' in 1, '<|im_start|>' in 1); it stays text."
    )
    assert bound(with_marks(byte_level())).marks_note(HARMLESS) == ""
    told = bound(with_marks(byte_level()), control_tokens="tokens").marks_note([f"a {END}"])
    assert "it becomes a control token, which may end the user's turn" in told


def test_commands_tell_and_take_the_policy(tmp_path):
    model = make_checkpoint(tmp_path / "m")
    (tmp_path / "i.txt").write_text("a cake <eos>\nwrite a poem\n")
    (tmp_path / "j.txt").write_text("a poem\nwrite\n")
    common = ["-m", str(model), "-p", "User : {instruction} Assistant :", "--device", "cpu", "-q"]
    lines = {}
    for policy in ("text", "tokens"):
        out = tmp_path / f"{policy}.jsonl"
        asked = [*common, "-i", str(tmp_path / "i.txt"), "--max-new-tokens", "2", "--control-tokens", policy, "--out", str(out)]
        done = CliRunner().invoke(app, ["generate", *asked])
        assert done.exit_code == 0, done.output
        assert "note: Some of the 2 instructions hold a control token as text ('<eos>' in 1)" in done.stderr
        lines[policy] = [json.loads(line)["control_tokens"] for line in out.read_text().splitlines()]
    assert lines == {"text": ["text"] * 2, "tokens": ["tokens"] * 2}
    sides = ["--harmful", str(tmp_path / "i.txt"), "--harmless", str(tmp_path / "j.txt"), "--pairs", "2", "-l", "1"]
    done = CliRunner().invoke(app, ["extract", *common, *sides, "--out", str(tmp_path / "d.safetensors")])
    assert "note: Some of the 4 instructions hold a control token as text ('<eos>' in 1)" in done.stderr
    wrong = CliRunner().invoke(app, ["extract", *common, *sides, "--out", "x.safetensors", "--control-tokens", "both"])
    assert wrong.exit_code == 2


def test_a_run_tells_and_its_study_takes_the_policy(tmp_path):
    study = make_study(tmp_path)
    rows = (tmp_path / "harmful.jsonl").read_text().replace("steal a car", "steal a car <eos>")
    (tmp_path / "harmful.jsonl").write_text(rows)
    warned = demur.run(demur.load_study(study), tmp_path / "text").summary()["warnings"]
    assert sum("'<eos>' in 1); it stays text." in one for one in warned) == 1
    other = demur.load_study(study, ['control_tokens="tokens"'])
    assert other.digest != demur.load_study(study).digest
    told = " ".join(demur.run(other, tmp_path / "tokens").summary()["warnings"])
    assert "it becomes a control token" in told


def test_the_model_sees_what_the_policy_says():
    checkpoint = demur.wrap(tiny_model(vocab_size=96), tiny_tokenizer())
    texts = ["write a <eos> poem"]
    one, other = (
        demur.generate(checkpoint, texts, prompt_format("{instruction} :", checkpoint, control_tokens=policy), max_new_tokens=6)
        for policy in ("text", "tokens")
    )
    assert one[0][0].token_ids != other[0][0].token_ids
