"""The engine `vllm` without vLLM: a stand-in for the package whose `LLM` runs the files that it is given with transformers.

`tests/soak/test_vllm_rows.py` compares rows of the real package with those of demur's own engine.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

import demur
from demur.core.errors import InputError, NotFinite
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_adapter, make_checkpoint

PROMPT = "USER {instruction} ASSISTANT :"


class StandIn:
    """What demur uses of vLLM."""

    def __init__(self):
        self.calls, self.settings, self.nan = [], {}, False

    def SamplingParams(self, **settings):
        assert (settings["temperature"], settings["ignore_eos"], settings["logprobs"]) == (0, True, 0)
        return SimpleNamespace(**settings)

    def LLM(self, **settings):
        self.settings = settings
        model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["dtype"]).eval()

        def generate(prompts, asked, use_tqdm):
            assert not use_tqdm
            self.calls.append(len(prompts))
            return [self.output(model, one["prompt_token_ids"], asked) for one in prompts]

        return SimpleNamespace(generate=generate)

    def output(self, model, ids, asked):
        tokens, chances = list(ids), []
        while len(chances) < asked.max_tokens and not (chances and tokens[-1] in asked.stop_token_ids):
            with torch.inference_mode():
                logits = model(torch.tensor([tokens])).logits[0, -1]
            tokens.append(int(logits.argmax()))
            chances.append({tokens[-1]: SimpleNamespace(logprob=float("nan") if self.nan else 0.0)})
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens[len(ids) :], logprobs=chances)])


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    found = StandIn()
    monkeypatch.setitem(sys.modules, "vllm", found)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("made") / "model")


def test_rows_and_facts_are_those_of_the_engine_transformers(vllm, folder, tmp_path):
    for adapter in (None, make_adapter(folder, tmp_path / "adapter")):
        own = demur.load_checkpoint(folder, adapter=adapter, device="cpu")
        other = demur.load_checkpoint(folder, adapter=adapter, device="cpu", engine="vllm")
        assert (vllm.settings["model"] == str(folder)) is (adapter is None)
        assert other.fingerprint == own.fingerprint
        assert (other.n_layers, other.d_model, other.stop_ids) == (own.n_layers, own.d_model, own.stop_ids)
        assert other.facts["engine"] == "vllm"
        rows = [
            demur.generate(one, HARMFUL, demur.prompt_format(PROMPT, one), max_new_tokens=4, batch_rows=2) for one in (own, other)
        ]
        assert [row.token_ids for row in rows[0][0]] == [row.token_ids for row in rows[1][0]]
    assert set(vllm.calls) <= {1, 2}  # of batch_rows = 2


def test_what_it_cannot_do_is_refused_with_the_reason(vllm, folder):
    checkpoint = demur.load_checkpoint(folder, device="cpu", engine="vllm")
    prompt = demur.prompt_format(PROMPT, checkpoint)
    direction = demur.from_raw(torch.ones(checkpoint.d_model), name="d", layer=1)
    because = "vLLM gives no access to the residual stream or to all logits from outside"
    for edit in (demur.ablate(direction), demur.add(direction, coefficient=1.0)):
        with pytest.raises(InputError, match=f"cannot edit the residual stream: {because}"):
            demur.generate(checkpoint, HARMFUL, prompt, [edit])
    with pytest.raises(InputError, match=f"cannot read activations: {because}"):
        demur.capture(checkpoint, HARMFUL, prompt)
    with pytest.raises(InputError, match=f"cannot give next-token logits: {because}"):
        demur.refusal_scores(checkpoint, HARMFUL, prompt, [5])
    with pytest.raises(InputError, match=f"cannot give token losses: {because}"):
        demur.text_losses(checkpoint, HARMLESS)
    with pytest.raises(InputError, match="and the model takes"):
        demur.generate(checkpoint, HARMFUL, prompt, max_new_tokens=100_000)
    with pytest.raises(InputError, match="does not quantise weights"):
        demur.load_checkpoint(folder, engine="vllm", quantise="8bit")
    vllm.nan = True
    with pytest.raises(NotFinite, match="logits"):
        demur.generate(checkpoint, HARMFUL, prompt)


def test_without_the_package_it_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="the engine 'vllm' needs vLLM, which cannot be imported"):
        demur.load_checkpoint(folder, engine="vllm")
