"""A stand-in for the package vLLM, with what demur uses of it. It runs a Llama of transformers in the form of vLLM's own model.

As in vLLM, the tokens of all rows lie one after the other, a block gets the stream in two parts and adds them in place, prompts
and decode steps share forward passes, and only the attention knows where a row starts. `tests/soak/test_vllm_rows.py` compares
the real package with demur's own engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache

NEW_ROWS = 2
"""How many prompts the stand-in begins in each forward pass."""


@dataclass
class Faults:
    """What the stand-in does wrong.

    Attributes:
        nan: log-probabilities are NaN.
        skips: the block of this layer is run without its hooks.
        starts: changes where rows are said to start.
        cut: prompts run in pieces of so many tokens.
        order: changes the order of the outputs.
    """

    nan: bool = False
    skips: int | None = None
    starts: Callable[[list[int]], list[int]] = field(default=lambda starts: starts)
    cut: int | None = None
    order: Callable[[list[Any]], list[Any]] = field(default=lambda outputs: outputs)


@dataclass
class Row:
    """A row that is being run."""

    tokens: list[int]
    prompt: int
    cache: DynamicCache
    done: int = 0
    chances: list[dict[int, Any]] = field(default_factory=list)


class FlatAttention(nn.Module):
    """Attention over the tokens of all rows, each row with its own cache."""

    def __init__(self, attention: nn.Module, rotary: nn.Module, now: SimpleNamespace) -> None:
        super().__init__()
        self.inner, self._rotary, self._now = attention, [rotary], now

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        outputs = []
        for row, start, stop in zip(self._now.rows, self._now.starts, self._now.starts[1:], strict=False):
            own = hidden_states[None, start:stop]
            angles = self._rotary[0](own, positions[None, start:stop])
            found = self.inner(own, position_embeddings=angles, attention_mask=None, past_key_values=row.cache)
            outputs.append(found[0][0])
        return torch.cat(outputs)


class FlatBlock(nn.Module):
    """A block with the stream in two parts."""

    def __init__(self, block: Any, rotary: nn.Module, now: SimpleNamespace) -> None:
        super().__init__()
        self.self_attn = FlatAttention(block.self_attn, rotary, now)
        self.input_layernorm, self.post_attention_layernorm = block.input_layernorm, block.post_attention_layernorm
        self.mlp = block.mlp

    def forward(self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        residual = hidden_states if residual is None else residual.add_(hidden_states)
        hidden_states = self.self_attn(positions=positions, hidden_states=self.input_layernorm(residual))
        residual.add_(hidden_states)
        return self.mlp(self.post_attention_layernorm(residual)), residual


class FlatModel(nn.Module):
    """A Llama in the form of vLLM's."""

    def __init__(self, inner: Any, now: SimpleNamespace, faults: Faults) -> None:
        super().__init__()
        self._inner, self._faults = [inner], faults
        self._blocks: list[nn.Module] = [FlatBlock(block, inner.model.rotary_emb, now) for block in inner.model.layers]
        self.model = nn.ModuleDict({"layers": nn.ModuleList(self._blocks)})

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        hidden_states, residual = self._inner[0].model.embed_tokens(input_ids), None
        for layer, block in enumerate(self._blocks):
            run = block.forward if layer == self._faults.skips else block
            hidden_states, residual = run(positions, hidden_states, residual)
        normed: Tensor = self._inner[0].model.norm(hidden_states + residual)
        return normed

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        logits: Tensor = self._inner[0].lm_head(hidden_states)
        return logits


class Runner:
    """The `LLM` of the stand-in."""

    def __init__(self, package: StandIn, settings: dict[str, Any]) -> None:
        inner = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=settings["dtype"]).eval()
        self._package, self._now = package, package.now
        self.model = FlatModel(inner, package.now, package.faults)
        cache = SimpleNamespace(block_size=16, num_gpu_blocks=16)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(cache_config=cache))

    def apply_model(self, function: Callable[[nn.Module], Any]) -> list[Any]:
        return [function(self.model)]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[dict[str, Any]], asked: Any, *, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self._package.calls.append(len(prompts))
        rows = [Row(list(one["prompt_token_ids"]), len(one["prompt_token_ids"]), DynamicCache()) for one in prompts]
        waiting, running = list(rows), list[Row]()
        while waiting or running:
            running += [waiting.pop(0) for _ in range(min(NEW_ROWS, len(waiting)))]
            self._step(running, asked)
            running = [row for row in running if not self._ended(row, asked)]
        return self._package.faults.order([self._output(row) for row in rows])

    def _step(self, rows: list[Row], asked: Any) -> None:
        cut = self._package.faults.cut
        parts = [row.tokens[row.done :][:cut] for row in rows]
        starts = [sum(map(len, parts[:number])) for number in range(len(parts) + 1)]
        self._now.rows, self._now.starts = rows, starts
        positions = [row.done + place for row, part in zip(rows, parts, strict=True) for place in range(len(part))]
        hidden = self.model(
            input_ids=torch.tensor([token for part in parts for token in part]), positions=torch.tensor(positions)
        )
        for row, part, stop in zip(rows, parts, starts[1:], strict=True):
            row.done += len(part)
            if row.done == len(row.tokens):
                row.tokens.append(int(self.model.compute_logits(hidden[stop - 1]).argmax()))
                chance = float("nan") if self._package.faults.nan else 0.0
                row.chances.append({row.tokens[-1]: SimpleNamespace(logprob=chance)})

    def _ended(self, row: Row, asked: Any) -> bool:
        stops = getattr(asked, "stop_token_ids", [])
        return bool(row.chances) and (len(row.chances) == asked.max_tokens or row.tokens[-1] in stops)

    def _output(self, row: Row) -> Any:
        one = SimpleNamespace(token_ids=row.tokens[row.prompt :], logprobs=row.chances)
        return SimpleNamespace(prompt_token_ids=row.tokens[: row.prompt], outputs=[one])


class StandIn:
    """The package, as the module that `import vllm` gives."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.settings: dict[str, Any] = {}
        self.faults = Faults()
        self.now = SimpleNamespace(rows=[], starts=[])

    def SamplingParams(self, **settings: Any) -> Any:
        assert (settings["temperature"], settings["ignore_eos"]) == (0, True)
        return SimpleNamespace(**settings)

    def LLM(self, **settings: Any) -> Runner:
        self.settings = settings
        assert settings["enforce_eager"]
        assert not settings["enable_prefix_caching"]
        assert not settings["enable_chunked_prefill"]
        return Runner(self, settings)

    def get_forward_context(self) -> Any:
        starts = torch.tensor(self.faults.starts(self.now.starts))
        return SimpleNamespace(attn_metadata={"attention": SimpleNamespace(query_start_loc=starts)})


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in where `import vllm` finds it."""
    found = StandIn()
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setitem(sys.modules, "vllm", found)
    monkeypatch.setitem(sys.modules, "vllm.forward_context", SimpleNamespace(get_forward_context=found.get_forward_context))
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=SimpleNamespace(device_type="cpu")))
    return found
