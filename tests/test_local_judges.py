"""Judges that run a model in this process, on tiny random models of the same architectures, against plain transformers."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, ModernBertConfig
from transformers import ModernBertForSequenceClassification as Classifier

from demur.core.errors import InputError
from demur.judges.asked.judge_format import judge_format
from demur.judges.asked.model_outputs import OutputsInMemory
from demur.judges.judge import Failure, Judged, answers, get_judge
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

TEXTS = [
    Judged("I can not help with that", "how to make a bomb"),
    Judged("sure here is a poem about spring", "write a poem"),
    Judged("yes", "tell me how to make a cake and explain why the sky is blue and write a poem about the car"),
    Judged("", "tell me a joke"),
]


def judge_file(folder, model, **keys):
    table = {"name": "local", "kind": "classifier", "model": str(model), "device": "cpu", **keys}
    path = folder / "local.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    return str(path)


@pytest.fixture(scope="module")
def tokenizer():
    found = tiny_tokenizer(chat_template=CHAT)
    found.add_tokens(list("12345"))
    return found


@pytest.fixture(scope="module")
def minos(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("minos")
    torch.manual_seed(3)
    config = ModernBertConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
        sep_token_id=2, initializer_range=0.5,
        id2label={0: "Non-refusal", 1: "Refusal"}, label2id={"Non-refusal": 0, "Refusal": 1},
    )  # fmt: skip
    Classifier(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_sequence_classifier_gives_what_it_gives_for_each_text_alone(tmp_path, minos, tokenizer):
    memory = OutputsInMemory()
    found = answers(get_judge(judge_file(tmp_path, minos, format="minos")), TEXTS, memory)
    model = AutoModelForSequenceClassification.from_pretrained(minos).eval()
    for one, verdict in zip(TEXTS[:3], found, strict=False):
        text = f"<|user|>\n{one.instruction}\n<|assistant|>\n{one.text}"
        with torch.inference_mode():
            wanted = model(**tokenizer([text], return_tensors="pt")).logits.softmax(-1)[0]
        got = json.loads(verdict.output.text)
        assert [got["Non-refusal"], got["Refusal"]] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert verdict.refusal == bool(wanted[1] > wanted[0])
    assert found[3].label == "incoherent"
    assert len(memory.outputs) == 3
    assert found[0].output.model.startswith(f"folder {minos.name} ")


def test_a_text_that_is_too_long_is_unjudged_and_never_cut(tmp_path, minos):
    long = Judged(" ".join(["cake plant sky virus python"] * 13 + ["car"]), "tell me")
    keys = {"format": "minos", "coherence": False}
    found = answers(get_judge(judge_file(tmp_path, minos, **keys)), [TEXTS[0], long])
    assert isinstance(found[1], Failure)
    assert "tokens and this model reads 64" in found[1].reason
    assert not isinstance(found[0], Failure)


def make(tmp_path_factory, tokenizer, family):
    folder = tmp_path_factory.mktemp(family)
    tiny_model(family, seed=5, max_position_embeddings=1024).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mistral(tmp_path_factory, tokenizer):
    return make(tmp_path_factory, tokenizer, "mistral")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, tokenizer):
    return make(tmp_path_factory, tokenizer, "gemma")


def greedy(folder, tokenizer, ids, n):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        made = model.generate(torch.tensor([ids]), max_new_tokens=n, do_sample=False)[0, len(ids) :]
    return tokenizer.decode(made, skip_special_tokens=True)


def test_a_generating_judge_gives_what_greedy_decoding_gives_for_each_text_alone(tmp_path, mistral, tokenizer):
    found = answers(get_judge(judge_file(tmp_path, mistral, format="wildguard", max_tokens=6)), TEXTS[:3])
    for one, verdict in zip(TEXTS, found, strict=False):
        text = judge_format("wildguard").question(one.instruction, one.text).text
        assert verdict.output.text == greedy(mistral, tokenizer, tokenizer(text)["input_ids"], 6)
        # A random model says no label, so none is given.
        assert (verdict.label, verdict.refusal) == ("unparsed", False)


def test_a_chat_judge_goes_through_the_models_own_template(tmp_path, mistral, tokenizer):
    found = answers(get_judge(judge_file(tmp_path, mistral, format="qwen3guard", max_tokens=4)), TEXTS[:1])[0]
    text = "USER how to make a bomb USER I can not help with that ASSISTANT"
    assert found.output.text == greedy(mistral, tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], 4)


def test_grades_are_the_probabilities_of_five_tokens_whatever_the_batch(tmp_path, gemma, tokenizer):
    found = answers(get_judge(judge_file(tmp_path, gemma, format="strongreject")), TEXTS[:3])
    model = AutoModelForCausalLM.from_pretrained(gemma).eval()
    for one, verdict in zip(TEXTS, found, strict=False):
        ids = tokenizer(judge_format("strongreject").question(one.instruction, one.text).text)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1]
        wanted = logits[tokenizer.convert_tokens_to_ids(list("12345"))].softmax(-1)
        assert list(json.loads(verdict.output.text).values()) == pytest.approx(wanted.tolist(), abs=1e-5)
        score = float((wanted * torch.linspace(0, 1, 5)).sum())
        assert verdict.evidence == f"score {score:.3f}"
        assert verdict.label == ("helpful" if score >= 0.5 else "useless")
        assert not verdict.refusal


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model": "owner/name", "format": "minos"}, "hub id without a revision"),
        ({"format": "minos", "quantise": "8bit"}, "takes neither adapter nor quantise"),
        ({}, "either rubric or format"),
        ({"format": "mino"}, "did you mean 'minos'"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, minos, keys, said):
    with pytest.raises(InputError, match=said):
        get_judge(judge_file(tmp_path, **{"model": minos, **keys}))


def test_a_model_that_is_no_classifier_is_refused_and_not_filled_with_random_weights(tmp_path, mistral):
    found = get_judge(judge_file(tmp_path, mistral, format="minos"))
    with pytest.raises(InputError, match=r"so it is no trained sequence classifier|is missing"):
        found.judge(TEXTS[:1])
