"""The engine `vllm` without vLLM, on the stand-in for the package in `vllm_stand_in.py`.

`tests/soak/test_vllm_rows.py` compares the real package with demur's own engine.
"""

import sys

import pytest
import torch

import demur
from demur.core.errors import InputError, NotFinite, WorkError
from demur.engine.engine_protocol import Continuation, Row
from tests.tiny import HARMFUL, HARMLESS
from tests.tiny_study import make_adapter, make_checkpoint
from tests.vllm_stand_in import install

PROMPT = "USER {instruction} ASSISTANT :"


@pytest.fixture
def vllm(monkeypatch):
    return install(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def both(vllm, folder):
    return [demur.load_checkpoint(folder, device="cpu", engine=name) for name in ("transformers", "vllm")]


def edits_of(checkpoint):
    """Edits of every kind of arithmetic, place and span of positions."""
    one, other = (
        demur.from_raw(torch.randn(checkpoint.d_model, generator=torch.Generator().manual_seed(seed)), name="d", layer=1)
        for seed in (1, 2)
    )
    return [
        None,
        demur.ablate(one),
        demur.ablate(one, positions="prompt"),
        demur.add(one, 3.0),
        demur.add(one, 3.0, layers=[2], sites=["resid_post"], positions="generated"),
        demur.add(one, -3.0, layers=[0], sites=["resid_pre", "resid_mid", "resid_post"]),
        demur.ablate(demur.subspace([one, other]), sites=["resid_mid"]),
        demur.edit("angular", demur.subspace([one, other]), angle=60.0, layers=[1]),
        [demur.ablate(one), demur.add(other, 2.0)],
    ]


def test_rows_and_facts_are_those_of_the_engine_transformers(vllm, folder, tmp_path):
    for adapter in (None, make_adapter(folder, tmp_path / "adapter")):
        own = demur.load_checkpoint(folder, adapter=adapter, device="cpu")
        other = demur.load_checkpoint(folder, adapter=adapter, device="cpu", engine="vllm")
        assert (vllm.settings["model"] == str(folder)) is (adapter is None)
        assert other.fingerprint == own.fingerprint
        assert (other.n_layers, other.d_model, other.stop_ids) == (own.n_layers, own.d_model, own.stop_ids)
        assert other.facts["engine"] == "vllm"
        vllm.calls.clear()
        rows = [
            demur.generate(one, HARMFUL, demur.prompt_format(PROMPT, one), max_new_tokens=4, batch_rows=2) for one in (own, other)
        ]
        assert [row.token_ids for row in rows[0][0]] == [row.token_ids for row in rows[1][0]]
        assert set(vllm.calls) <= {1, 2}  # of batch_rows = 2


def test_edited_rows_are_those_of_the_engine_transformers(both):
    edits = edits_of(both[0])
    found = []
    for checkpoint in both:
        prompt = demur.prompt_format(PROMPT, checkpoint)
        rows = demur.generate(checkpoint, [*HARMFUL, HARMFUL[0]], prompt, edits, max_new_tokens=6)
        found.append([[row.token_ids for row in arm] for arm in rows])
    assert found[1] == found[0]
    assert sum(arm != found[0][0] for arm in found[0]) >= 6  # the edits do something


def test_streams_logits_and_losses_are_those_of_the_engine_transformers(both):
    prompts = [demur.prompt_format(PROMPT, one) for one in both]
    for site in ("resid_pre", "resid_mid", "resid_post"):
        own, other = (demur.capture(one, HARMFUL, prompt, site=site) for one, prompt in zip(both, prompts, strict=True))
        torch.testing.assert_close(other, own, rtol=1e-4, atol=1e-4)
    whole = [demur.capture(one, HARMFUL, prompt, positions="all") for one, prompt in zip(both, prompts, strict=True)]
    for own, other in zip(*whole, strict=True):
        torch.testing.assert_close(other, own, rtol=1e-4, atol=1e-4)
    ids, edits = [tuple(one) for one in prompts[0].encode(HARMFUL)], edits_of(both[0])
    rows = [Row(one, edit) for edit in edits for one in ids]
    follows = [Continuation(row.prompt, (7, 9, 30)[: 1 + place % 3], row.edits) for place, row in enumerate(rows)]
    found = []
    for checkpoint in both:
        logits, states, losses = {}, {}, {}
        for some in checkpoint.engine.next_tokens(rows):
            logits.update(zip(some.indices, some.logits, strict=True))
        for some in checkpoint.engine.next_tokens(rows, layers=[0, 2]):
            states.update(zip(some.indices, some.states, strict=True))
        for indices, some in checkpoint.engine.losses(follows):
            losses.update(zip(indices, some, strict=True))
        found.append((logits, states, losses))
    for own, other in zip(*found, strict=True):
        assert own.keys() == other.keys() == set(range(len(rows)))
        for index, numbers in own.items():
            torch.testing.assert_close(other[index], numbers, rtol=1e-4, atol=1e-4)


def test_exact_refusal_probabilities_are_those_of_the_engine_transformers(both):
    edits = edits_of(both[0])[:4]
    own, other = (demur.refusal_probability(one, HARMFUL[:3], demur.prompt_format(PROMPT, one), edits) for one in both)
    torch.testing.assert_close(other, own, rtol=1e-4, atol=1e-6)


def test_what_it_cannot_do_is_refused_with_the_reason(vllm, folder):
    vllm.faults.skips = 1
    checkpoint = demur.load_checkpoint(folder, device="cpu", engine="vllm")
    prompt = demur.prompt_format(PROMPT, checkpoint)
    because = "the proof of its residual stream failed: vLLM's model of family 'llama' did not pass resid_pre of layer 1"
    for edit in edits_of(checkpoint)[1:4]:
        with pytest.raises(InputError, match=f"cannot edit the residual stream: {because}"):
            demur.generate(checkpoint, HARMFUL, prompt, [edit])
    with pytest.raises(InputError, match=f"cannot read activations: {because}"):
        demur.capture(checkpoint, HARMFUL, prompt)
    with pytest.raises(InputError, match=f"cannot give next-token logits: {because}"):
        demur.refusal_scores(checkpoint, HARMFUL, prompt, [5])
    with pytest.raises(InputError, match=f"cannot give token losses: {because}"):
        demur.text_losses(checkpoint, HARMLESS)
    assert len(demur.generate(checkpoint, HARMFUL, prompt)[0]) == len(HARMFUL)
    with pytest.raises(InputError, match="and the model takes"):
        demur.generate(checkpoint, HARMFUL, prompt, max_new_tokens=100_000)
    with pytest.raises(InputError, match="does not quantise weights"):
        demur.load_checkpoint(folder, engine="vllm", quantise="8bit")
    for device in ("spread", "cuda:1"):
        with pytest.raises(InputError, match=f"vLLM runs on the device 'cpu' here, not on '{device}'"):
            demur.load_checkpoint(folder, engine="vllm", device=device)
    with pytest.raises(InputError, match="float32, bfloat16, float16, not float64"):
        demur.load_checkpoint(folder, engine="vllm", dtype="float64")
    vllm.faults.nan = True
    with pytest.raises(NotFinite, match="logits"):
        demur.generate(checkpoint, HARMFUL, prompt)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"starts": lambda starts: [0, *(one + 1 for one in starts[1:-1]), starts[-1]]}, "its rows cannot be told apart"),
        ({"starts": lambda starts: [0, starts[-1]]}, "its rows cannot be told apart"),
        ({"cut": 3}, "it may have cut a prompt in pieces"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused_at_loading(vllm, folder, fault, said):
    for name, value in fault.items():
        setattr(vllm.faults, name, value)
    checkpoint = demur.load_checkpoint(folder, device="cpu", engine="vllm")
    assert said in checkpoint.engine.cannot("edits")


def test_a_model_in_another_process_is_not_read(vllm, folder, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    checkpoint = demur.load_checkpoint(folder, device="cpu", engine="vllm")
    assert "in a process of its own" in checkpoint.engine.cannot("activations")


def test_other_numbers_than_those_of_transformers_are_refused_at_loading(vllm, folder, tmp_path, monkeypatch):
    wrong = make_checkpoint(tmp_path / "wrong", seed=2)
    own = vllm.LLM
    monkeypatch.setattr(vllm, "LLM", lambda **settings: own(**{**settings, "model": str(wrong)}))
    checkpoint = demur.load_checkpoint(folder, device="cpu", engine="vllm")
    assert "of what transformers gives" in checkpoint.engine.cannot("edits")


def test_an_edit_that_stops_acting_after_loading_fails(vllm, both):
    checkpoint = both[1]
    prompt, edit = demur.prompt_format(PROMPT, checkpoint), edits_of(checkpoint)[1]
    vllm.faults.skips = 2
    with pytest.raises(WorkError, match="did not pass resid_pre of layer 2 where demur reads and edits it"):
        demur.generate(checkpoint, HARMFUL, prompt, [edit])
    vllm.faults.skips = None
    # After an error, nothing of it is left.
    own, other = (demur.generate(one, HARMFUL, demur.prompt_format(PROMPT, one), [edit])[0] for one in both)
    assert [row.token_ids for row in own] == [row.token_ids for row in other]
    vllm.faults.order = lambda outputs: outputs[::-1]
    with pytest.raises(WorkError, match="vLLM answered other prompts"):
        demur.generate(checkpoint, HARMFUL, prompt)


def test_without_the_package_it_is_said(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="the engine 'vllm' needs vLLM, which cannot be imported"):
        demur.load_checkpoint(folder, engine="vllm")
