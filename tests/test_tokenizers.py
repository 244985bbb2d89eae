"""A loaded tokenizer cuts text as its tokenizer.json says, whatever class and settings tokenizer_config.json names."""

import json
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import demur
from demur.cli.doctor_lines import doctor_lines
from demur.core.errors import InputError
from demur.engine.checkpoints import wrap
from demur.engine.diagnosis import diagnosis
from demur.inputs.prompts import prompt_format
from demur.models.tokenizers import load_tokenizer, notes_of, tokens_beyond
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer
from tests.tiny_study import make_checkpoint

TEXT = "In 1984 there were 12345 cakes,  we'll eat\n\nthem CAFÉ"
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(**changes):
    """A small BPE whose way to split text is not that of any class of transformers."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(
        [*HARMFUL, *HARMLESS, TEXT] * 9,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=["<pad>", "<bos>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def saved(folder, own, **config):
    """A folder with the tokenizer and a config.json of the llama family."""
    PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>").save_pretrained(folder)
    own.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def ids_of(tokenizer, text=TEXT):
    return prompt_format("Q: {instruction}", SimpleNamespace(tokenizer=tokenizer), control_tokens="tokens").encode([text])[0]


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "GPT2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizerFast"])
@pytest.mark.parametrize("normalizer", [None, normalizers.Lowercase()])
def test_the_class_that_the_config_names_does_not_decide(tmp_path, name, normalizer):
    own = byte_level() if normalizer is None else byte_level(normalizer=normalizer)
    loaded = load_tokenizer("m", saved(tmp_path, own, tokenizer_class=name))
    expected = own.encode(f"Q: {TEXT}").ids
    assert ids_of(loaded) == expected
    assert loaded.decode(expected, skip_special_tokens=True) == own.decode(expected)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (1, 2, 0)
    # GPT2Tokenizer has <|endoftext|> as its own default for unk_token, which is in no file.
    assert not tokens_beyond(loaded, own.get_vocab_size())


def test_a_difference_is_named(tmp_path):
    assert notes_of(load_tokenizer("m", saved(tmp_path / "same", byte_level()))) == ()
    notes = notes_of(load_tokenizer("m", saved(tmp_path / "other", byte_level(), tokenizer_class="GPTNeoXTokenizerFast")))
    assert notes[0] == "text is cut as tokenizer.json says, not as transformers' class GPTNeoXTokenizer does"
    size = len(load_tokenizer("m", tmp_path / "other"))
    tiny_model(vocab_size=size).save_pretrained(tmp_path / "other")
    checkpoint = demur.load_checkpoint(tmp_path / "other", device="cpu")
    assert f"warning      The tokenizer: {notes[0]}." in list(doctor_lines(diagnosis(checkpoint, "chatml")))


@pytest.mark.parametrize(("adds", "single"), [(True, "$A"), (False, "<bos> $A")])
def test_bos_is_added_as_the_file_says_and_the_config_that_says_otherwise_is_named(tmp_path, adds, single):
    ends = processors.TemplateProcessing(single=single, special_tokens=[("<bos>", 1)])
    own = byte_level(post_processor=ends)
    loaded = load_tokenizer("m", saved(tmp_path, own, add_bos_token=adds))
    assert ids_of(loaded) == own.encode(f"Q: {TEXT}").ids
    note = notes_of(loaded)[-1]
    assert "add_bos_token" in note or "a text begins with" in note
    assert "'<bos>'" in note


def test_settings_for_training_batches_neither_cut_nor_pad_prompts(tmp_path):
    own = byte_level()
    whole = own.encode(f"Q: {TEXT}").ids
    own.enable_truncation(4)
    own.enable_padding(length=99)
    loaded = load_tokenizer("m", saved(tmp_path, own, truncation_strategy="longest_first", max_length=4, model_max_length=4))
    assert ids_of(loaded) == whole


def test_marks_of_a_template_stay_tokens_where_the_config_would_split_them(tmp_path):
    loaded = load_tokenizer("m", saved(tmp_path, byte_level(), split_special_tokens=True))
    assert ids_of(loaded, "a <eos>")[-1] == 2
    assert "split_special_tokens" in notes_of(loaded)[0]


def test_tokens_that_only_other_files_name_are_added_with_their_ids(tmp_path):
    own = byte_level()
    size = own.get_vocab_size()
    token = {"content": "<|im_end|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False,
             "single_word": False}  # fmt: skip
    folder = saved(tmp_path, own, tokenizer_class="GPT2Tokenizer", added_tokens_decoder={str(size): token})
    assert ids_of(load_tokenizer("m", folder), "a<|im_end|>")[-1] == size
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(size + 7): token}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"'<\|im_end\|>' the id {size + 7}, but tokenizer.json lacks it and has {size}"):
        load_tokenizer("m", folder)


def test_how_an_added_token_is_found_in_text_is_the_files(tmp_path):
    own = byte_level()
    own.add_tokens([AddedToken("<mark>", lstrip=True, normalized=False)])
    size = own.get_vocab_size()
    token = {"content": "<mark>", "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    loaded = load_tokenizer("m", saved(tmp_path, own, added_tokens_decoder={str(size - 1): token}))
    assert ids_of(loaded, "a   <mark> b") == own.encode("Q: a   <mark> b").ids
    # The config says that it is special, so it is left out of completions.
    assert "<mark>" not in loaded.decode([size - 1], skip_special_tokens=True)


def test_a_tokenizer_without_the_file_is_as_transformers_makes_it(tmp_path):
    folder = saved(tmp_path, byte_level())
    facts = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(facts["vocab"]))
    merges = [one if isinstance(one, str) else " ".join(one) for one in facts["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "GPT2Tokenizer"}))
    loaded = load_tokenizer("m", folder)
    assert ids_of(loaded) == ids_of(AutoTokenizer.from_pretrained(folder))
    assert notes_of(loaded) == ()


def test_ordinary_tokens_without_a_row_are_refused_on_loading(tmp_path):
    folder = make_checkpoint(tmp_path, vocab_size=40)
    with pytest.raises(InputError, match="9 tokens for which the embedding has no row, such as 'can' with id 40, and the embedd"):
        demur.load_checkpoint(folder, device="cpu")


def test_an_added_token_without_a_row_is_told_and_refused_where_a_prompt_holds_it():
    tokenizer = tiny_tokenizer(chat_template=CHAT)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<image>"]})
    checkpoint = wrap(tiny_model(vocab_size=size), tokenizer)
    text = "\n".join(doctor_lines(diagnosis(checkpoint, "native")))
    assert f"2 of its tokens have no row in the embedding of {size} rows, such as '[PAD]' with id {size}" in text
    with pytest.raises(InputError, match=rf"the token '<image>', whose id is {size + 1}, .* has {size} rows.* --prompt"):
        prompt_format("<image> {instruction}", checkpoint).encode(["write a poem"])
    # The pad token has no row either, so another one fills up shorter rows.
    rows = demur.generate(
        checkpoint, ["write", "write a poem about spring"], prompt_format("native", checkpoint), max_new_tokens=2
    )
    assert [len(row.token_ids) for row in rows[0]] == [2, 2]
