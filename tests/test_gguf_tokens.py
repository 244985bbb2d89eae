"""Token ids of a GGUF file's tokenizer are those of llama.cpp.

The expected ids come from the tokenizer that was written into the file, or from SentencePiece's rule by hand.
"""

import json
from itertools import pairwise

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from transformers import AutoTokenizer

from demur.core.errors import InputError
from demur.models import gguf_files
from demur.models.gguf.text_splitting import SPLITTINGS
from tests.gguf_writing import LLAMA3, SPECIAL, byte_level, sentencepiece, sized, write

TEXTS = [
    "How do I make a cake in 1984, and 20241 of them?", "don't WE'LL (a) poem\n\n about  spring!", "in  two   lines\n\tand 3.14  ", "x12 34",
    "  99 cakes", "naïve 中文 🙂", "<eos>in<bos> 7",
]  # fmt: skip
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


def opened(path):
    return AutoTokenizer.from_pretrained(gguf_files.convert(path))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def with_special(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(one, normalized=False) for one in SPECIAL])
    return tokenizer


@pytest.mark.parametrize(
    ("pre", "made"),
    [
        ("gpt-2", byte_level()),
        ("llama-bpe", byte_level(LLAMA3)),
        ("qwen2", byte_level(QWEN2)),
        ("smollm", byte_level(digits=True)),
        ("falcon", byte_level(r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")),
        ("default", byte_level(r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    ],
)
def test_text_is_cut_as_the_file_says(pre, made, tmp_path):
    # The merges know no words, so that a text that is cut elsewhere has other ids.
    model = sized("llama", made.get_vocab_size())
    got = opened(write(tmp_path / "model.gguf", model, made, pre=pre, change=lambda one: one.add_add_bos_token(False)))
    expected = with_special(made)
    if pre == "llama-bpe":
        expected.model.ignore_merges = True
    for text in TEXTS:
        assert got(text)["input_ids"] == ids(expected, text)
        assert got.decode(got(text)["input_ids"]) == text


def test_each_way_of_cutting_text_is_a_valid_expression():
    cuts = {
        name: [pre_tokenizers.Split(Regex(one), "isolated") for one in found.expressions] for name, found in SPLITTINGS.items()
    }

    def pieces(name, text):
        return [piece for piece, _ in pre_tokenizers.Sequence(cuts[name]).pre_tokenize_str(text)]

    assert all("".join(pieces(name, text)) == text for name in SPLITTINGS for text in TEXTS)
    # Known from the tokenizers of these families.
    assert pieces("llama-bpe", "in 12345") == ["in", " ", "123", "45"]
    assert pieces("qwen2", "in 123") == ["in", " ", "1", "2", "3"]
    assert pieces("gpt-2", "in 12345") == ["in", " 12345"]
    assert pieces("smollm", "in  12") == ["in", "  ", "1", "2"]
    assert pieces("gpt-4o", "CamelCase's") == ["Camel", "Case's"]
    assert pieces("tekken", "CamelCase's 12") == ["Camel", "Case", "'s", " ", "1", "2"]
    assert pieces("deepseek-v3", "a1234 中文") == ["a", "123", "4", " ", "中文"]
    assert pieces("default", "a,b 1234") == ["a", ",", "b", " ", "123", "4"]


def test_a_word_that_is_a_token_is_taken_whole_where_the_family_does_so(tmp_path):
    made = byte_level(LLAMA3)
    vocabulary = made.get_vocab()
    vocabulary["zqz"] = len(vocabulary)
    data = json.loads(made.to_str())
    data["model"]["vocab"] = vocabulary
    made = Tokenizer.from_str(json.dumps(data))
    model = sized("llama", len(vocabulary))
    whole, merged = (
        opened(write(tmp_path / f"{pre}.gguf", model, made, pre=pre, change=lambda one: one.add_add_bos_token(False)))
        for pre in ("llama-bpe", "smaug-bpe")
    )
    assert whole("zqz")["input_ids"] == [vocabulary["zqz"]]
    assert merged("zqz")["input_ids"] == [vocabulary[one] for one in "zqz"]


@pytest.mark.parametrize(
    ("pre", "bos", "eos", "expected"),
    [
        ("llama-bpe", None, None, ([1], [])),
        ("llama-bpe", False, None, ([], [])),
        ("gpt-2", None, None, ([], [])),
        ("gpt-2", True, True, ([1], [2])),
    ],
)
def test_what_is_added_to_a_text_is_what_the_file_says(pre, bos, eos, expected, tmp_path):
    def change(writer):
        for add, value in ((writer.add_add_bos_token, bos), (writer.add_add_eos_token, eos)):
            if value is not None:
                add(value)

    made = byte_level(LLAMA3)
    got = opened(write(tmp_path / "model.gguf", sized("llama", made.get_vocab_size()), made, pre=pre, change=change))
    plain = got("cake", add_special_tokens=False)["input_ids"]
    assert got("cake")["input_ids"] == [*expected[0], *plain, *expected[1]]


def test_control_and_user_defined_tokens_are_matched_whole_in_any_alphabet(tmp_path):
    made = byte_level(LLAMA3)
    vocabulary = made.get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), "<｜User｜>", "<|im_end|>", "    "]
    first = len(vocabulary)

    def change(writer):
        # GGUFWriter keeps the last value of a key.
        for key in ("tokens", "token_type"):
            writer.kv_data[0].pop(f"tokenizer.ggml.{key}")
        writer.add_token_list(tokens)
        # llama.cpp takes <|im_end|> for a control token whatever the file says.
        writer.add_token_types([*[3 if one in SPECIAL else 1 for one in tokens[:first]], 3, 1, 4])

    got = opened(write(tmp_path / "model.gguf", sized("llama", len(tokens)), made, pre="qwen2", change=change))
    assert got("<｜User｜>a<|im_end|>b    c")["input_ids"] == [
        first, vocabulary["a"], first + 1, vocabulary["b"], first + 2, vocabulary["c"]
    ]  # fmt: skip
    assert {"<｜User｜>", "<|im_end|>"} <= set(got.all_special_tokens) | {
        str(t) for t in got.added_tokens_decoder.values() if t.special
    }


def test_a_sentencepiece_file_is_merged_by_score_with_a_space_in_front(tmp_path):
    pieces = sentencepiece()
    model = sized("llama", len(pieces["tokens"]))
    got = opened(write(tmp_path / "model.gguf", model, pieces))
    bare = opened(write(tmp_path / "bare.gguf", model, pieces, change=lambda one: one.add_add_space_prefix(False)))

    def merged(text):
        """SentencePiece's rule, by hand: the neighbours whose token has the best score are merged first."""
        place = {token: number for number, token in enumerate(pieces["tokens"])}
        parts = list(text.replace(" ", "▁"))
        while True:
            pairs = [(pieces["scores"][place[a + b]], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in place]
            if not pairs:
                return [
                    number
                    for part in parts
                    for number in ([place[part]] if part in place else [3 + byte for byte in part.encode()])
                ]
            at = -max(pairs)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]

    for text in ("make a cake in 1984", "don't write", "  two  lines", "ü 中", "in\nlines"):
        assert bare(text)["input_ids"] == [1, *merged(text)]
        assert got(text)["input_ids"] == [1, *merged(" " + text)]
    # A text after a control token gets a space of its own.
    assert got("make[INST]a cake")["input_ids"] == [1, *merged(" make"), 259, *merged(" a cake")]
    assert bare("make<tool>a")["input_ids"] == [1, *merged("make"), 260, *merged("a")]
    assert got.decode(got("in 1984")["input_ids"], skip_special_tokens=True) == "in 1984"


def string(key, value):
    return lambda writer: writer.add_string(key, value)


@pytest.mark.parametrize(
    ("pre", "change", "expected"),
    [
        (None, None, "has no key 'tokenizer.ggml.pre'"),
        ("qwen22", None, r"a way of cutting text that demur does not know \(did you mean 'qwen2'"),
        ("gpt-2", string("tokenizer.ggml.model", "rwkv"), "'tokenizer.ggml.model' = 'rwkv'"),
        (
            "gpt-2",
            lambda one: one.add_remove_extra_whitespaces(True),
            "remove_extra_whitespaces' = True, which demur cannot apply",
        ),
        ("gpt-2", lambda one: one.add_add_sep_token(True), "add_sep_token"),
        ("gpt-2", lambda one: one.add_precompiled_charsmap(b"abc"), "precompiled_charsmap"),
        ("gpt-2", string("tokenizer.ggml.never_heard_of", "x"), "never_heard_of"),
        ("gpt-2", lambda one: one.add_eot_token_id(9999), "eot_token_id' = 9999, but it has"),
    ],
)
def test_a_tokenizer_that_cannot_be_built_is_refused_by_name(pre, change, expected, tmp_path):
    def changed(writer):
        for key in ("tokenizer.ggml.model",) if change is not None and expected.endswith("'rwkv'") else ():
            writer.kv_data[0].pop(key)
        if change is not None:
            change(writer)

    made = byte_level()
    path = write(tmp_path / "model.gguf", sized("llama", made.get_vocab_size()), made, pre=pre, change=changed)
    with pytest.raises(InputError, match=expected):
        gguf_files.convert(path)


@pytest.mark.parametrize(("rows", "repeated", "expected"), [(-3, False, "rows in its embedding"), (0, True, "twice")])
def test_a_vocabulary_that_does_not_fit_is_refused(rows, repeated, expected, tmp_path):
    made = byte_level()
    vocabulary = made.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)

    def change(writer):
        if repeated:
            writer.kv_data[0].pop("tokenizer.ggml.tokens")
            writer.add_token_list([*tokens[:-1], tokens[-2]])

    path = write(tmp_path / "model.gguf", sized("llama", len(tokens) + rows), made, change=change)
    with pytest.raises(InputError, match=expected):
        gguf_files.convert(path)


def test_more_rows_than_tokens_and_several_templates_are_no_fault(tmp_path):
    made = byte_level()

    def change(writer):
        writer.add_chat_template([{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}])

    got = opened(write(tmp_path / "model.gguf", sized("llama", made.get_vocab_size() + 6), made, change=change))
    assert got.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "D"
