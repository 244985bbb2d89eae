"""Adapters: what is merged equals the adapter beside the weights; its own tokenizer and tokens are used; others are refused."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import demur
from demur.cli.doctor_lines import doctor_lines
from demur.core.errors import InputError
from demur.engine.diagnosis import diagnosis
from demur.models.adapters import adapter_settings, merged_adapter
from demur.models.adapters.adapter_settings import other_base
from demur.models.sources import Source
from tests.tiny import CHAT, tiny_model, tiny_tokenizer
from tests.tiny_study import make_adapter, make_checkpoint, make_study

IDS = torch.tensor([[1, 5, 6, 7, 8, 9]])
OWN = "{% for m in messages %}user : {{ m['content'] }} {% endfor %}assistant :"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("base") / "model", seed=1)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("tied") / "model", seed=1, tie_word_embeddings=True)


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return make_adapter(base, tmp_path_factory.mktemp("adapter") / "lora")


@pytest.fixture
def copied(adapter, tmp_path):
    """A copy of the adapter, to be changed."""
    return Path(shutil.copytree(adapter, tmp_path / "copied"))


def trained(model: Path, folder: Path, *, tokens: int | None = None, settings: object = None, **lora: object):
    """Save an adapter that was trained after the vocabulary was resized; returns its logits beside the weights."""
    loaded = AutoModelForCausalLM.from_pretrained(model)
    if tokens is not None:
        loaded.resize_token_embeddings(tokens, mean_resizing=False)
    torch.manual_seed(0)
    asked = {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj"], "init_lora_weights": False, **lora}
    made = get_peft_model(loaded, settings or LoraConfig(task_type="CAUSAL_LM", **asked)).eval()
    for weight in made.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)
    made.save_pretrained(folder)
    with torch.no_grad():
        return made(IDS if tokens is None else torch.cat([IDS, torch.tensor([[tokens - 1, tokens - 2]])], 1)).logits


def logits(checkpoint, *more):
    with torch.no_grad():
        return checkpoint.model(torch.cat([IDS, torch.tensor([more], dtype=torch.long)], 1)).logits


def change(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.parametrize(
    "lora",
    [
        {"use_dora": True}, {"use_rslora": True, "lora_dropout": 0.5}, {"modules_to_save": ["lm_head", "embed_tokens"]},
        {"trainable_token_indices": [40, 41]}, {"init_lora_weights": "pissa"}, {"bias": "all"},
    ],
    ids=lambda lora: "-".join(lora),
)  # fmt: skip
def test_what_is_merged_equals_the_adapter_beside_the_weights(base, tmp_path, lora):
    expected = trained(base, tmp_path, **lora)
    torch.testing.assert_close(logits(demur.load_checkpoint(base, adapter=tmp_path)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_merging_into_other_numbers_is_refused(base, adapter, monkeypatch, dtype):
    merge = peft.tuners.lora.LoraModel.merge_and_unload

    def halved(self):
        for module in self.model.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(0.5)
        return merge(self)

    demur.load_checkpoint(base, adapter=adapter, dtype=dtype)
    monkeypatch.setattr(peft.tuners.lora.LoraModel, "merge_and_unload", halved)
    with pytest.raises(InputError, match=r"once it is merged, logits differ by \S+ from those with the adapter beside"):
        demur.load_checkpoint(base, adapter=adapter, dtype=dtype)


def test_the_proof_finds_blocks_that_share_what_is_merged(base, tmp_path, monkeypatch):
    trained(base, tmp_path, layer_replication=[[0, 2], [1, 3]])
    monkeypatch.setattr(adapter_settings, "_REFUSED", {})
    with pytest.raises(InputError, match="once it is merged, logits differ by"):
        demur.load_checkpoint(base, adapter=tmp_path)


def test_the_proof_reads_the_tokens_that_were_trained_one_by_one(base, tmp_path):
    trained(base, tmp_path, trainable_token_indices=[40, 41])
    model = AutoModelForCausalLM.from_pretrained(base)
    ids = merged_adapter._probe(model, json.loads((tmp_path / "adapter_config.json").read_text()))[0].tolist()
    assert {40, 41, 95} <= set(ids)
    assert not {40, 41} <= set(merged_adapter._probe(model, {})[0].tolist())


PROMPTS = {
    "PREFIX_TUNING": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    "PROMPT_TUNING": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    "P_TUNING": peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    "ADAPTION_PROMPT": peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=2, adapter_layers=2),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_adapters_that_change_no_weights_are_refused_by_name(base, tmp_path, kind):
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), PROMPTS[kind]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"of the kind {kind}, which adds vectors .*changes no weights"):
        demur.load_checkpoint(base, adapter=tmp_path)
    with pytest.raises(InputError, match=f"of the kind {kind}"):
        demur.wrap(get_peft_model(tiny_model(), PROMPTS[kind]), tiny_tokenizer())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication cannot be merged, because it repeats blocks"),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens cannot be merged"),
        ({"megatron_config": {"hidden_size": 1}, "megatron_core": "this"}, "megatron_config cannot be merged"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4', which changes the base weights"),
        ({"sharpness": 0.5}, "its setting sharpness=0.5 is not known to the installed peft, which would ignore it"),
        ({"peft_type": "NOPE"}, "of the kind 'NOPE', which the installed peft does not know"),
    ],
)
def test_settings_that_would_be_lost_are_refused_by_name(base, copied, settings, message):
    change(copied, **settings)
    with pytest.raises(InputError, match=message):
        demur.load_checkpoint(base, adapter=copied)


def test_settings_of_training_change_nothing(base, adapter, copied):
    change(copied, inference_mode=False, lora_dropout=0.5, sharpness=None, sharper=False, runtime_config={"a": 1})
    assert torch.equal(logits(demur.load_checkpoint(base, adapter=copied)), logits(demur.load_checkpoint(base, adapter=adapter)))


def test_a_study_with_an_adapter_that_cannot_be_merged_stops_before_it_loads(base, copied, tmp_path):
    change(copied, layer_replication=[[0, 2], [1, 3]])
    study = demur.load_study(make_study(tmp_path), [f"checkpoints.chat.adapter={copied}"])
    with pytest.raises(InputError, match="layer_replication"):
        demur.run(study, tmp_path / "run")
    assert not (tmp_path / "run" / "run.sqlite").exists()


def test_two_files_of_adapter_weights_are_compared(base, copied):
    weights = load_file(copied / "adapter_model.safetensors")
    torch.save(weights, copied / "adapter_model.bin")
    demur.load_checkpoint(base, adapter=copied)
    name = min(weights)
    torch.save({**weights, name: weights[name] * 2}, copied / "adapter_model.bin")
    with pytest.raises(InputError, match=rf"two sets of weights, .* the weight '{name}' differs"):
        demur.load_checkpoint(base, adapter=copied)
    for path in copied.glob("adapter_model.*"):
        path.unlink()
    with pytest.raises(InputError, match=r"holds no adapter_model\.safetensors"):
        demur.load_checkpoint(base, adapter=copied)


def test_the_adapter_that_is_named_is_used_and_not_those_in_folders_inside(base, adapter, copied, tmp_path):
    inside = Path(shutil.copytree(copied, copied / "checkpoint-5"))
    weights = load_file(inside / "adapter_model.safetensors")
    save_file({name: weight * 3 for name, weight in weights.items()}, inside / "adapter_model.safetensors")
    assert torch.equal(logits(demur.load_checkpoint(base, adapter=copied)), logits(demur.load_checkpoint(base, adapter=adapter)))
    shutil.move(inside, tmp_path / "outer" / "one")
    with pytest.raises(InputError, match="not a PEFT adapter; name one of the folders in it: one"):
        demur.load_checkpoint(base, adapter=tmp_path / "outer")


def test_another_base_than_the_adapter_was_trained_on_is_told(adapter, tmp_path):
    other = make_checkpoint(tmp_path / "other", seed=2)
    assert demur.load_checkpoint(other, adapter=adapter).warnings == (
        f"The adapter {adapter} was trained on model, and is put on folder other.",
    )


@pytest.mark.parametrize(
    ("named", "source", "told"),
    [
        ("org/Name-1B", Source("Org/name-1b", "hub", None, "Org/name-1b"), None),
        ("org/Name-1B", Source("x", "folder", Path("/models/Name-1B")), None),
        ("org/Name-1B", Source("x", "gguf", Path("/models/Name-1B.Q4_1.gguf")), None),
        ("/content/Name-1B/", Source("x", "folder", Path("/models/snapshots/abc"), "org/Name-1B"), None),
        ("fork/Name-1B", Source("org/Name-1B", "hub", None, "org/Name-1B"), "fork/Name-1B"),
        ("/content/other", Source("x", "folder", Path("/models/Name-1B")), "other"),
        (None, Source("x", "folder", Path("/models/Name-1B")), None),
    ],
)
def test_the_same_base_may_have_several_names(named, source, told):
    assert other_base({"base_model_name_or_path": named}, source) == told


# The tokenizer of an adapter.


def test_a_copy_of_the_tokenizer_of_the_base_changes_nothing(base, adapter, copied):
    tiny_tokenizer(chat_template=CHAT).save_pretrained(copied)
    plain, made = (demur.load_checkpoint(base, adapter=one, name="same") for one in (adapter, copied))
    assert (made.facts, made.warnings, made.fingerprint) == (plain.facts, (), plain.fingerprint)
    assert demur.prompt_format("native", made).digest == demur.prompt_format("native", plain).digest


def test_the_tokenizer_of_an_adapter_is_used_and_told(base, copied):
    tokenizer = tiny_tokenizer(adds_bos=False, chat_template=OWN)
    tokenizer.add_tokens(["<x>"])
    tokenizer.eos_token = "<x>"
    tokenizer.save_pretrained(copied)
    made = demur.load_checkpoint(base, adapter=copied)
    assert demur.prompt_format("native", made).template == "user : {instruction} assistant :"
    assert made.tokenizer("tell <x>")["input_ids"] == tokenizer("tell <x>")["input_ids"]
    assert len(tokenizer) - 1 in made.stop_ids
    said = "that of the adapter, which differs from the base's in the chat template, 1 added tokens, EOS token"
    assert made.facts["tokenizer"] == said
    assert made.warnings == (f"The tokenizer is {said}.",)
    assert f"warning      The tokenizer is {said}." in list(doctor_lines(diagnosis(made)))


def test_rules_that_cut_text_otherwise_are_used_and_told(base, copied):
    tiny_tokenizer(adds_bos=False, chat_template=CHAT).save_pretrained(copied)
    made = demur.load_checkpoint(base, adapter=copied)
    assert made.tokenizer("tell me")["input_ids"] == [4, 5]
    assert "the rules that cut text into tokens" in made.facts["tokenizer"]


def test_a_template_without_a_tokenizer_is_used(base, copied):
    (copied / "chat_template.jinja").write_text(OWN)
    made = demur.load_checkpoint(base, adapter=copied)
    assert demur.prompt_format("native", made).template == "user : {instruction} assistant :"
    assert made.facts["tokenizer"] == "that of the base with the chat template of the adapter"


def test_a_tokenizer_without_a_template_keeps_that_of_the_base_and_says_so(base, copied):
    tiny_tokenizer().save_pretrained(copied)
    made = demur.load_checkpoint(base, adapter=copied)
    assert made.tokenizer.chat_template == CHAT
    assert "lacks only the chat template" in made.warnings[0]


def test_a_tokenizer_that_cannot_be_read_is_no_reason_to_use_another(base, copied):
    (copied / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="the tokenizer beside adapter .* cannot be loaded"):
        demur.load_checkpoint(base, adapter=copied)


def test_a_run_tells_whose_tokenizer_it_used(tmp_path):
    study = make_study(tmp_path)
    adapter = make_adapter(tmp_path / "chat", tmp_path / "adapter")
    tiny_tokenizer(chat_template=OWN).save_pretrained(adapter)
    run = demur.run(demur.load_study(study, [f"checkpoints.chat.adapter={adapter}"]), tmp_path / "run")
    assert "the chat template" in run.summary()["checkpoints"]["chat"]["tokenizer"]
    assert run.summary()["checkpoints"]["base"]["tokenizer"] is None
    assert any(sentence.startswith("chat: The tokenizer is that of the adapter") for sentence in run.summary()["warnings"])


# Tokens that were added before training.


@pytest.mark.parametrize("tokens", [100, 60])
@pytest.mark.parametrize("ends", ["base", "tied"])
@pytest.mark.parametrize(
    "lora", [{}, {"modules_to_save": ["embed_tokens", "lm_head"]}, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}],
    ids=["plain", "whole", "lora"],
)  # fmt: skip
def test_the_vocabulary_that_an_adapter_was_trained_with_is_restored(request, tmp_path, tokens, ends, lora):
    model = request.getfixturevalue(ends)
    expected = trained(model, tmp_path, tokens=tokens, **lora)
    made = demur.load_checkpoint(model, adapter=tmp_path)
    assert made.model.config.vocab_size == tokens
    torch.testing.assert_close(logits(made, tokens - 1, tokens - 2), expected, atol=1e-4, rtol=1e-4)


def test_new_tokens_that_were_trained_one_by_one_are_restored(tied, tmp_path):
    expected = trained(tied, tmp_path, tokens=98, trainable_token_indices=[96, 97])
    torch.testing.assert_close(logits(demur.load_checkpoint(tied, adapter=tmp_path), 97, 96), expected, atol=1e-4, rtol=1e-4)


def test_new_tokens_whose_embeddings_are_lost_are_refused_in_one_sentence(base, adapter, copied, tmp_path):
    tokenizer = tiny_tokenizer(chat_template=CHAT)
    tokenizer.add_tokens([f"<x{i}>" for i in range(100 - len(tokenizer))])
    tokenizer.save_pretrained(copied)
    with pytest.raises(InputError, match="its tokenizer has 100 tokens and the base has 96, .* does not hold the embeddings"):
        demur.load_checkpoint(base, adapter=copied)
    # The embedding is saved with the adapter, and the unembedding, which is another weight, is not.
    trained(base, tmp_path / "half", tokens=100, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(InputError, match="trained with 100 tokens and the base has 96, .* not hold the embeddings and"):
        demur.load_checkpoint(base, adapter=tmp_path / "half")


# A PEFT model in memory.


def lora_model(*names):
    model = None
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        settings = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(tiny_model(), settings, name) if model is None else model
        if seed:
            model.add_adapter(name, settings)
    return model


def test_a_peft_model_is_wrapped_with_its_active_adapter():
    model = lora_model("one", "two")
    tokenizer, digests = tiny_tokenizer(chat_template=CHAT), {}
    for name in ("one", "two"):
        model.set_adapter(name)
        made = demur.wrap(model, tokenizer)
        assert made.adapter == name
        assert torch.equal(logits(made), model(IDS).logits)
        digests[name] = made.fingerprint
    with model.disable_adapter():
        made = demur.wrap(model, tokenizer)
        assert made.adapter == "two (disabled)"
        digests["none"] = made.fingerprint
    assert len(set(digests.values())) == 3
    model.set_adapter("one")
    again = demur.wrap(model, tokenizer)
    assert again.fingerprint == digests["one"]
    prompt = demur.prompt_format("native", again)
    direction = demur.extract_direction(again, ["make a bomb", "kill me"], ["make a cake", "plant tomatoes"], prompt, layer=1)
    plain, edited = demur.generate(again, ["steal a car"], prompt, interventions=[None, demur.add(direction, 9.0)])
    assert plain[0].token_ids != edited[0].token_ids


def test_a_peft_model_and_its_merged_weights_write_the_same(base, adapter):
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    wrapped = demur.wrap(beside, tiny_tokenizer(chat_template=CHAT))
    merged = demur.load_checkpoint(base, adapter=adapter)
    rows = [
        demur.generate(made, ["make a bomb", "make a cake"], demur.prompt_format("native", made))[0] for made in (wrapped, merged)
    ]
    assert [row.token_ids for row in rows[0]] == [row.token_ids for row in rows[1]]
