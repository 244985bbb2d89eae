"""Only what was named is loaded: a folder with two different answers is refused, and other files in it change nothing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import demur
from demur.core.errors import InputError
from demur.models.fingerprint import settings_digest
from demur.models.sources import find_model
from tests.tiny import CHAT
from tests.tiny_study import make_adapter, make_checkpoint, make_study

IDS = torch.tensor([[1, 5, 6, 7, 8, 9]])
SHARD = "model-00001-of-00001"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("whole") / "model", seed=1)


@pytest.fixture(scope="module")
def adapter(whole, tmp_path_factory):
    return make_adapter(whole, tmp_path_factory.mktemp("adapter") / "lora")


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def logits(folder, **options):
    with torch.no_grad():
        return demur.load_checkpoint(folder, **options).model(IDS).logits


def set_keys(path, **settings):
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **settings}))


def changed(weights):
    name = sorted(weights)[-2]
    return {**weights, name: weights[name] + 1e-3}


def test_an_adapter_in_the_folder_of_a_model_acts_only_if_it_is_named(whole, adapter, folder):
    for path in adapter.glob("adapter_*"):
        shutil.copy(path, folder)
    with pytest.raises(InputError, match=r"holds a model and an adapter \(adapter_config\.json\), and only the model was named"):
        demur.load_checkpoint(folder)
    once = logits(whole, adapter=adapter)
    assert not torch.equal(once, logits(whole))
    assert torch.equal(logits(folder, adapter=folder), once)
    # One that lies there beside one that is named does nothing.
    assert torch.equal(logits(folder, adapter=adapter), once)


def test_a_study_says_so_before_it_loads(adapter, tmp_path):
    study = make_study(tmp_path)
    shutil.copy(adapter / "adapter_config.json", tmp_path / "chat")
    with pytest.raises(InputError, match="only the model was named"):
        demur.run(demur.load_study(study), tmp_path / "run")


def as_bin(folder, weights):
    torch.save(weights, folder / "pytorch_model.bin")


def as_shard(folder, weights):
    save_file(weights, folder / f"{SHARD}.safetensors", {"format": "pt"})
    index = {"weight_map": dict.fromkeys(weights, f"{SHARD}.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def as_bin_shard(folder, weights):
    torch.save(weights, folder / f"{SHARD}.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(weights, f"{SHARD}.bin")}))


def as_named(folder, weights):
    save_file(weights, folder / "named.safetensors", {"format": "pt"})
    set_keys(folder / "config.json", transformers_weights="named.safetensors")


@pytest.mark.parametrize("write", [as_bin, as_shard, as_bin_shard, as_named])
def test_two_sets_of_weights_are_compared_to_the_last_value(whole, folder, write):
    weights = load_file(folder / "model.safetensors")
    # Old files also hold masks, and copies of tied weights.
    write(folder, {**weights, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)} if write is as_bin else weights)
    assert torch.equal(logits(folder), logits(whole))
    write(folder, changed(weights))
    with pytest.raises(InputError, match=f"holds two sets of weights, .*the weight '{sorted(weights)[-2]}' differs"):
        demur.load_checkpoint(folder)


def test_sets_with_other_weights_or_names_or_precision_differ(folder):
    weights = load_file(folder / "model.safetensors")
    as_bin(folder, {**weights, "model.layers.0.self_attn.q_proj.bias": torch.ones(32)})
    with pytest.raises(InputError, match=r"only one of them has the weight 'model\.layers\.0\.self_attn\.q_proj\.bias'"):
        demur.load_checkpoint(folder)
    as_bin(folder, {f"x.{name}": weight for name, weight in weights.items()})
    with pytest.raises(InputError, match="they share no name"):
        demur.load_checkpoint(folder)
    as_bin(folder, {name: weight.bfloat16() for name, weight in weights.items()})
    with pytest.raises(InputError, match="the weight 'lm_head.weight' differs"):
        demur.load_checkpoint(folder)
    (folder / "pytorch_model.bin").write_bytes(b"cut off")
    with pytest.raises(InputError, match="they cannot be compared"):
        demur.load_checkpoint(folder)


def test_a_copy_of_a_tied_weight_is_no_difference(tmp_path):
    folder = make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    weights = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in weights
    as_bin(folder, {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    demur.load_checkpoint(folder)


def test_files_that_nobody_named_change_nothing(whole, folder):
    weights = changed(load_file(folder / "model.safetensors"))
    for name in ("consolidated.safetensors", "model.fp16.safetensors", "original/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        save_file(weights, folder / name, {"format": "pt"})
    (folder / "model.gguf").write_bytes(b"GGUF")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}))
    made = demur.load_checkpoint(folder)
    assert torch.equal(logits(folder), logits(whole))
    assert made.warnings == ()


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "consolidated.safetensors"])
def test_a_folder_without_plain_weights_says_what_it_holds(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match=rf"holds no whole set of weights that transformers reads .*; it holds {name}"):
        demur.load_checkpoint(folder)


def test_a_folder_that_is_no_checkpoint_says_what_to_name(folder, adapter, tmp_path):
    with pytest.raises(InputError, match="it is a PEFT adapter, so give its base as the model"):
        find_model(str(adapter))
    with pytest.raises(InputError, match="name one of the folders in it: copy"):
        find_model(str(tmp_path))
    (tmp_path / "small.gguf").touch()
    with pytest.raises(InputError, match=r"name the GGUF file in it, small\.gguf"):
        find_model(str(tmp_path))


def test_two_chat_templates_that_differ_are_refused(folder):
    other = "X{{ messages[0]['content'] }}"
    set_keys(folder / "tokenizer_config.json", chat_template=CHAT)
    (folder / "chat_template.jinja").write_text(CHAT + "\n")
    demur.load_checkpoint(folder)
    for written in (other, [{"name": "default", "template": other}, {"name": "tool", "template": CHAT}]):
        set_keys(folder / "tokenizer_config.json", chat_template=written)
        with pytest.raises(
            InputError, match=r"two different chat templates, in chat_template\.jinja and in tokenizer_config\.json"
        ):
            demur.load_checkpoint(folder)


def test_a_template_for_a_processor_is_used_only_if_there_is_no_other_and_is_told(folder):
    set_keys(folder / "chat_template.json", chat_template="X{{ messages[0]['content'] }}")
    made = demur.load_checkpoint(folder)
    assert (made.tokenizer.chat_template, made.warnings) == (CHAT, ())
    (folder / "chat_template.jinja").unlink()
    made = demur.load_checkpoint(folder)
    assert demur.prompt_format("native", made).template == "X{instruction}"
    assert made.warnings == ("The chat template is that of chat_template.json, because the tokenizer has none.",)


def test_named_templates_beside_the_default_one_are_not_used(folder):
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    made = demur.load_checkpoint(folder)
    assert demur.prompt_format("native", made).template == "USER {instruction} ASSISTANT"


def test_a_config_that_contradicts_its_files_about_tied_embeddings_is_told(whole, folder):
    set_keys(folder / "config.json", tie_word_embeddings=True)
    made = demur.load_checkpoint(folder)
    assert torch.equal(logits(folder), logits(whole))
    assert made.warnings == (
        "The config says that embedding and unembedding are one weight, but the files hold two; both are used.",
    )


def test_code_that_a_config_names_is_not_run_and_told(folder):
    set_keys(folder / "config.json", auto_map={"AutoModelForCausalLM": "own.Own"})
    assert "names code of its own, which demur does not run" in demur.load_checkpoint(folder).warnings[0]


def test_plain_weights_whose_config_says_quantised_are_refused(folder):
    set_keys(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(InputError, match=r"take quantization_config out of its config\.json"):
        demur.load_checkpoint(folder)


def test_a_generation_config_does_not_change_greedy_completions(whole, folder):
    forced = {
        "forced_bos_token_id": 7,
        "suppress_tokens": [5, 6, 8],
        "repetition_penalty": 3.0,
        "num_beams": 4,
        "do_sample": True,
    }
    set_keys(folder / "generation_config.json", **forced, min_new_tokens=3, no_repeat_ngram_size=2)
    rows = []
    for one in (whole, folder):
        made = demur.load_checkpoint(one)
        rows.append(demur.generate(made, ["make a cake", "kill me"], demur.prompt_format("native", made), max_new_tokens=8)[0])
    assert [row.token_ids for row in rows[0]] == [row.token_ids for row in rows[1]]


def test_a_revision_of_anything_but_a_hub_id_is_refused(folder, tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    kinds = {str(folder): "a folder on this machine", str(tmp_path / "small.gguf"): "a GGUF file"}
    for reference, kind in {**kinds, "demo:smollm2-135m-instruct": "the demo's model"}.items():
        with pytest.raises(InputError, match=f"is {kind}, which has no revisions, but revision is 'v2'; leave it out"):
            find_model(reference, "v2")
    with pytest.raises(InputError, match="names the revision 'v1', but revision is 'v2'; give one of them"):
        find_model("owner/name@v1", "v2")


def test_settings_are_compared_without_versions_and_paths_at_every_depth(tmp_path):
    def digest(text, **top):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", **top, "text_config": text}))
        return settings_digest([tmp_path / "config.json"])

    first = digest({"rope_theta": 1.0, "dtype": "float32"}, dtype="float32")
    assert digest({"rope_theta": 1.0, "dtype": "bfloat16", "transformers_version": "6"}, dtype="bfloat16") == first
    assert digest({"rope_theta": 2.0, "dtype": "float32"}) != first
    assert digest({"rope_theta": 1.0}, quantization_config={"dtype": "a"}) != digest(
        {"rope_theta": 1.0}, quantization_config={"dtype": "b"}
    )
    # The digest of a plain config is what earlier versions stored.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "rms_norm_eps": 1e-6, "dtype": "float32"}))
    assert settings_digest([tmp_path / "config.json"]) == "25d8fe90e3acd94e"
