"""Weights in 8 and 4 bits: proved like others, told apart from others, and said of everything that was read from them.

What is compared with is the same architecture with the quantised weights written out as ordinary ones.
"""

import importlib.util
import json

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from typer.testing import CliRunner

import demur
from demur.cli.doctor_lines import doctor_lines
from demur.cli.main import app
from demur.core.errors import InputError
from demur.directions.direction import from_raw
from demur.engine.checkpoints import load_checkpoint, wrap
from demur.engine.diagnosis import diagnosis
from demur.engine.hooks import edited, observed
from demur.interventions.edit_table import tabulate
from demur.models import quantisation
from demur.models.device_placement import bytes_by_device
from demur.models.families import layout_of
from demur.models.layouts import point
from demur.models.model_size import size_of
from demur.models.quantisation import counted
from demur.models.sources import find_model
from demur.study.plan_outlook import look_ahead
from demur.study.plan_text import plan_lines
from demur.study.study_files import load_study
from tests.tiny import HARMFUL, HARMLESS, tiny_model
from tests.tiny_study import make_adapter, make_checkpoint, make_study

bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install 'demur[quantised]'")
HOW = ("8bit", "4bit")
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # Wide enough for whole blocks of 64 weights in every row.
    return str(make_checkpoint(tmp_path_factory.mktemp("quantised") / "model", seed=1, hidden_size=64, intermediate_size=128))


@pytest.fixture(scope="module", params=HOW)
def quantised(request, folder):
    return load_checkpoint(folder, quantise=request.param, name="small")


def scales(module):
    # bitsandbytes moves them from the weight to the module at the first pass.
    return module.state.SCB if module.weight.SCB is None else module.weight.SCB


def written_out(model, folder):
    """An ordinary model with the values that the quantised weights stand for."""
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            values = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
            values = module.weight.data.float() * scales(module)[:, None] / 127
        else:
            continue
        plain.get_submodule(name.replace(".base_layer", "")).weight.data = values
    return plain


def logits(model, *edits):
    layout = layout_of(model.config)
    table = tabulate([edits], layout, len(layout.find_blocks(model)), model.config.hidden_size, "cpu")
    with torch.inference_mode(), edited(model, layout, table):
        return model(input_ids=IDS, use_cache=False).logits


def close(found, expected, how):
    # 8 bits round activations too: a part in 127 of the largest, at every product.
    return (found - expected).norm() < {"8bit": 0.05, "4bit": 1e-4}[how] * expected.norm()


def probe(width=64):
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(1)), name="probe", layer=1)


def test_edited_logits_are_those_of_the_written_out_weights(quantised, folder):
    plain = written_out(quantised.model, folder)
    for edits in ((), (demur.ablate(probe()),), (demur.add(probe(), 5.0),)):
        found, expected = logits(quantised.model, *edits), logits(plain, *edits)
        assert close(found, expected, quantised.quantised[:4])
        assert (logits(quantised.model) - found).abs().max() > 0.1 or not edits


def test_quantising_changes_what_is_computed(quantised, folder):
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert (logits(quantised.model) - logits(plain)).abs().max() > 1e-3


def test_edits_are_computed_in_float32(folder):
    checkpoint = load_checkpoint(folder, quantise="4bit", dtype="bfloat16")
    assert checkpoint.dtype == torch.bfloat16
    layout, direction, where = checkpoint.layout, probe(), point(1, "resid_mid")
    table = tabulate([demur.ablate(direction)], layout, 3, 64, "cpu")
    with (
        torch.inference_mode(),
        edited(checkpoint.model, layout, table),
        observed(checkpoint.model, layout, [where], [-1]) as taken,
    ):
        checkpoint.model(input_ids=IDS, use_cache=False)
    stream = taken[where]
    # What a bfloat16 stream can hold of a vector without that component: half a unit in the last place of each entry.
    assert ((stream @ direction.vector).abs() < stream.norm(dim=-1) * 2**-8).all()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("family", ["bloom", "gemma2", "gpt2", "gpt_neox", "gpt_oss", "mixtral", "mpt", "opt", "phi", "llava"])
def test_layouts_hold_in_every_kind_of_block(family, how, tmp_path):
    checkpoint = load_checkpoint(str(make_checkpoint(tmp_path, family=family)), quantise=how)
    total, quantised = counted(checkpoint.model)
    assert total == counted(tiny_model(family))[0]
    assert 0 < quantised < total
    size = size_of(find_model(str(tmp_path)))
    assert (size.total, size.linear) == (total, quantised)


def test_the_fingerprint_tells_precisions_apart(folder):
    found = {how: {load_checkpoint(folder, quantise=how).fingerprint for _ in range(2)} for how in (None, *HOW)}
    assert all(len(digits) == 1 for digits in found.values())
    assert len(set.union(*found.values())) == 3


def test_products_are_made_as_asked_on_every_processor(folder, monkeypatch):
    # As on a processor with instructions for bfloat16, where the first pass lays 4-bit weights out anew and rounds their scales.
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    checkpoint = load_checkpoint(folder, quantise="4bit")
    state = checkpoint.model.model.layers[0].mlp.down_proj.weight.quant_state
    assert close(logits(checkpoint.model), logits(written_out(checkpoint.model, folder)), "4bit")
    assert state.absmax.dtype == torch.float32
    assert not getattr(state, "packing_format_for_cpu", False)


def test_weights_that_were_laid_out_anew_are_refused(folder, monkeypatch):
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    settings = quantisation.settings("4bit", torch.float32)
    used = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, device_map={"": "cpu"}).eval()
    layer = used.model.layers[0].mlp.down_proj
    layer.weight.data, layer.weight.quant_state = bitsandbytes.nn.modules._convert_weight_packed_for_cpu(
        layer.weight.data, layer.weight.quant_state
    )
    with pytest.raises(InputError, match="before its first forward pass"):
        wrap(used, None)


def test_the_fingerprint_is_the_same_after_work(quantised):
    before = demur.engine.checkpoints.fingerprint(quantised.model)
    logits(quantised.model, demur.ablate(probe()))
    assert demur.engine.checkpoints.fingerprint(quantised.model) == before
    # The second part of a loaded checkpoint's is over its files.
    assert before.partition("-")[0] == quantised.fingerprint.partition("-")[0]


def test_directions_say_what_they_were_read_from(quantised, folder, tmp_path):
    prompt = demur.prompt_format("native", quantised)
    direction = demur.extract_direction(quantised, HARMFUL, HARMLESS, prompt, layer=1)
    again = demur.load_direction(direction.save(tmp_path / "d.safetensors"))
    assert again.provenance["quantised"] == quantised.quantised
    assert again.provenance["fingerprint"] == quantised.fingerprint
    plain = load_checkpoint(folder)
    other = demur.extract_direction(plain, HARMFUL, HARMLESS, demur.prompt_format("native", plain), layer=1)
    assert other.provenance["quantised"] is None
    assert 0.5 < float(other.vector @ direction.vector) < 1


def test_rows_are_what_they_would_be_alone(quantised):
    # The edit is far above 6, from where LLM.int8 would choose columns for the whole batch.
    prompt, edit = demur.prompt_format("native", quantised), demur.add(probe(), 400.0)
    together = demur.generate(quantised, HARMFUL, prompt, [None, edit], max_new_tokens=8)
    alone = [[demur.generate(quantised, [one], prompt, [e], max_new_tokens=8)[0][0] for one in HARMFUL] for e in (None, edit)]
    assert together == alone
    assert together[0] != together[1]


def test_doctor_shows_it(quantised):
    lines = dict(line.split(maxsplit=1) for line in doctor_lines(diagnosis(quantised)))
    total, count = counted(quantised.model)
    assert lines["weights"] == f"{total / 1e6:,.2f}M in torch.float32"
    assert lines["quantised"] == f"{count / 1e6:,.2f}M of them in {quantised.quantised}"
    assert "edits" in lines["self-check"]


@pytest.mark.parametrize("how", HOW)
def test_an_adapter_stays_beside_the_weights(how, folder, tmp_path):
    adapter = make_adapter(folder, tmp_path / "adapter")
    checkpoint = load_checkpoint(folder, adapter=str(adapter), quantise=how)
    alone = load_checkpoint(folder, quantise=how)
    assert checkpoint.fingerprint != alone.fingerprint
    assert any("lora_A" in name for name, _ in checkpoint.model.named_parameters())
    # The weights that were quantised are untouched.
    projection = checkpoint.model.model.layers[0].self_attn.q_proj
    assert torch.equal(projection.base_layer.weight, alone.model.model.layers[0].self_attn.q_proj.weight)
    plain = written_out(checkpoint.model, folder)
    for name, module in checkpoint.model.named_modules():
        if hasattr(module, "base_layer"):
            plain.get_submodule(name).weight.data += module.get_delta_weight("default")
    for edits in ((), (demur.ablate(probe()),)):
        found, expected = logits(checkpoint.model, *edits), logits(plain, *edits)
        assert close(found, expected, how)
        assert (found - logits(alone.model, *edits)).abs().max() > 0.1
    assert "not merged into the weights" in next(doctor_lines(diagnosis(checkpoint)))


@pytest.mark.parametrize("how", [None, "4bit"])
def test_an_adapter_that_changes_no_weights_is_refused(how, folder, tmp_path):
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="does not fit"):
        load_checkpoint(folder, adapter=str(tmp_path), quantise=how)


def test_weights_whose_rows_meet_say_so(folder, tmp_path):
    settings = BitsAndBytesConfig(load_in_8bit=True)
    AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings).save_pretrained(tmp_path / "int8")
    load_checkpoint(folder).tokenizer.save_pretrained(tmp_path / "int8")
    study = make_study(tmp_path / "files")
    changes = [f"checkpoints.{name}.model={tmp_path}/int8" for name in ("base", "chat")]
    given = [part for change in changes for part in ("--set", change)]
    result = CliRunner().invoke(app, ["run", str(study), *given, "--out", str(tmp_path / "run"), "-q"])
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["checkpoints"]["chat"]["quantised"] == f"8bit (int8, {quantisation.ROWS_MEET})"
    assert any("chat has outlier columns" in warning for warning in summary["warnings"])


def test_weights_that_come_quantised(folder, tmp_path):
    made = load_checkpoint(folder, quantise="4bit")
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    stored = load_checkpoint(str(tmp_path))
    assert stored.quantised == made.quantised
    assert torch.equal(logits(stored.model), logits(made.model))
    with pytest.raises(InputError, match="quantised already"):
        load_checkpoint(str(tmp_path), quantise="8bit")
    assert size_of(find_model(str(tmp_path))).bytes("float32") == size_of(find_model(folder)).bytes("float32", "4bit")


def test_weights_that_come_quantised_are_spread_as_they_are_read(folder, tmp_path, monkeypatch):
    made = load_checkpoint(folder, quantise="4bit")
    made.model.save_pretrained(tmp_path / "stored")
    made.tokenizer.save_pretrained(tmp_path / "stored")
    adapter = str(make_adapter(folder, tmp_path / "adapter"))
    whole = load_checkpoint(str(tmp_path / "stored"), adapter=adapter)
    # Quantised weights cannot be moved once they are loaded.
    monkeypatch.setattr("demur.models.load_weights.spread_loaded", lambda *_: pytest.fail("moved after loading"))
    spread = load_checkpoint(str(tmp_path / "stored"), adapter=adapter, device="spread")
    assert spread.fingerprint == whole.fingerprint


@pytest.mark.parametrize("how", HOW)
def test_memory_is_counted(how, folder):
    checkpoint = load_checkpoint(folder, quantise=how)
    found = sum(bytes_by_device(checkpoint.model).values())
    assert (
        found
        == checkpoint.model.get_memory_footprint(return_buffers=False)
        + 4 * {"8bit": 0, "4bit": counted(checkpoint.model)[1] // 64}[how]
    )
    expected = size_of(find_model(folder)).bytes("float32", how)
    assert expected == pytest.approx(found, rel=0.05)
    assert expected < size_of(find_model(folder)).bytes("float32") / 1.5


def test_a_weight_edit_is_refused(quantised):
    with pytest.raises(InputError, match="cannot be orthogonalised"):
        demur.equivalence(quantised, probe())


@pytest.mark.parametrize("how", HOW)
def test_nothing_to_quantise_is_refused(how, tmp_path):
    # Falcon's linear maps are of a class of its own, which bitsandbytes passes over without a word.
    with pytest.raises(InputError, match="finds none in this 'falcon' model"):
        load_checkpoint(str(make_checkpoint(tmp_path, family="falcon")), quantise=how)
    assert size_of(find_model(str(tmp_path))).linear == 0


def test_words_that_are_no_quantisation(folder):
    with pytest.raises(InputError, match="did you mean '8bit'"):
        load_checkpoint(folder, quantise="8 bit")
    with pytest.raises(InputError, match="use quantise='4bit'"):
        load_checkpoint(folder, dtype="4bit")


@pytest.mark.parametrize("command", ["doctor", "run", "study"])
def test_without_bitsandbytes_the_extra_is_named(command, folder, tmp_path, monkeypatch):
    study = make_study(tmp_path / "files")
    own = importlib.util.find_spec
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None if name == "bitsandbytes" else own(name))
    given = {
        "doctor": ["doctor", "-m", folder, "--quantise", "4bit"],
        "run": ["run", str(study), "--quantize", "8bit", "--out", str(tmp_path / "run")],
        "study": ["run", str(study), "--set", "checkpoints.chat.quantise=4bit", "--out", str(tmp_path / "run")],
    }[command]
    result = CliRunner().invoke(app, given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pip install 'demur[quantised]'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_study_says_what_was_quantised(tmp_path):
    path = make_study(tmp_path / "files")
    plain = load_study(path)
    some = load_study(path, ["checkpoints.chat.quantise=4bit"])
    assert len({plain.digest, some.digest, plain.quantised("4bit").digest, plain.quantised("8bit").digest}) == 4
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["run", str(path), "--set", "checkpoints.chat.quantise=8bit", "--out", str(out), "-q"])
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "summary.json").read_text())
    assert summary["checkpoints"]["chat"]["quantised"] == "8bit (int8)"
    assert summary["checkpoints"]["base"]["quantised"] is None
    warnings = " ".join(summary["warnings"])
    assert "Weights differ in precision (base float32, chat 8bit)" in warnings
    refused = CliRunner().invoke(app, ["run", str(path), "--out", str(out), "-q"])
    assert refused.exit_code == 2
    assert "another study" in refused.stderr
    base, chat = "\n".join(plan_lines(look_ahead(some))).partition("\ncheckpoints\n")[2].partition("  chat  ")[::2]
    assert "in 4bit and float32" in chat
    assert "in float32" in base
    assert "4bit" not in base


def test_weights_that_come_quantised_go_where_they_are_asked_for(folder, tmp_path, monkeypatch):
    made = load_checkpoint(folder, quantise="4bit")
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    asked, own = [], AutoModelForCausalLM.from_pretrained

    def loaded(*args, **kwargs):
        asked.append(kwargs.get("device_map"))
        return own(*args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loaded)
    load_checkpoint(str(tmp_path), device="cpu")
    load_checkpoint(folder, device="cpu")
    assert asked == [{"": torch.device("cpu")}, None]
