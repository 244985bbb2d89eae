"""The engine `vllm`: greedy completions by vLLM, without edits. Needs vLLM, which is best in an environment of its own.

Weights, tokenizer and fingerprint are read and checked as by the engine `transformers`. Then vLLM runs the weights. It gives no
access to the residual stream from outside, so this engine refuses edits and everything that reads the stream.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, NotFinite
from demur.core.registry import registry
from demur.engine.checkpoints import Checkpoint, free_memory
from demur.engine.engine_protocol import LOSS_TOKENS, Continuation, Decoding, Follow, LoadRequest, Need, NextTokens, Row
from demur.interventions.intervention import edit_sequence
from demur.models.layouts import Site
from demur.models.sources import at_hand, find_model

ROWS = 256
"""The number of rows that vLLM gets at a time, so that finished ones can be stored. It forms its own batches within them."""

_REASON = "vLLM gives no access to the residual stream or to all logits from outside"


@dataclass(frozen=True, eq=False)
class VllmEngine:
    """A model that vLLM runs. See `Engine` for what each method does.

    Attributes:
        runner: the `LLM` of vLLM.
        tokenizer: the tokenizer.
        family: the architecture family.
        n_layers: number of blocks.
        d_model: width of the residual stream.
        dtype: precision of weights and stream.
        stop_ids: tokens that end a completion.
        pad_id: a padding token; vLLM needs none.
        embedding_rows: the number of rows of the embedding.
        most_tokens: the most tokens of a prompt with its completion.
    """

    runner: Any  # vLLM is not among the dependencies of demur, so its types are not known here.
    tokenizer: Any
    family: str
    n_layers: int
    d_model: int
    dtype: torch.dtype
    stop_ids: tuple[int, ...]
    pad_id: int
    embedding_rows: int
    most_tokens: int
    name: ClassVar[str] = "vllm"

    @property
    def device(self) -> torch.device:
        """The CPU: token ids are given as lists, and vLLM moves them itself."""
        return torch.device("cpu")

    def cannot(self, need: Need) -> str:  # noqa: ARG002
        """The reason why nothing but plain generation works."""
        return _REASON

    def generate(
        self,
        rows: Sequence[Row],
        decoding: Decoding,
        *,
        batch_tokens: int | None = None,  # noqa: ARG002  vLLM forms its own batches
        batch_rows: int | None = None,
    ) -> Iterator[dict[int, list[int]]]:
        """Greedy completions. See `Engine.generate`.

        Raises:
            InputError: for a row with an edit, and for a prompt that is too long.
            NotFinite: with the index of a row whose logits are not finite.
        """
        for row in rows:
            if edit_sequence(row.edits):
                raise InputError(f"the engine 'vllm' cannot edit the residual stream: {_REASON}; use engine='transformers'")
            wanted = len(row.prompt) + decoding.max_new_tokens
            if wanted > self.most_tokens:
                raise InputError(
                    f"a prompt of {len(row.prompt):,} tokens and {decoding.max_new_tokens:,} new ones are {wanted:,} tokens, and "
                    f"the model takes {self.most_tokens:,}; ask for fewer new tokens, or leave the instruction out"
                )
        return self._generated(rows, decoding, batch_rows or ROWS)

    def _generated(self, rows: Sequence[Row], decoding: Decoding, size: int) -> Iterator[dict[int, list[int]]]:
        from vllm import SamplingParams

        # Its own end tokens are ignored: a study says itself which tokens end a row. The log-probability of the chosen token
        # shows whether logits are finite.
        greedy = SamplingParams(
            temperature=0,
            max_tokens=decoding.max_new_tokens,
            stop_token_ids=list(decoding.stop_ids),
            ignore_eos=True,
            detokenize=False,
            logprobs=0,
        )
        for begin in range(0, len(rows), size):
            prompts = [{"prompt_token_ids": list(row.prompt)} for row in rows[begin : begin + size]]
            outputs = self.runner.generate(prompts, greedy, use_tqdm=False)
            yield {begin + place: self._tokens(one.outputs[0], begin + place, decoding) for place, one in enumerate(outputs)}

    def _tokens(self, output: Any, row: int, decoding: Decoding) -> list[int]:
        tokens: list[int] = []
        for token, chances in zip(output.token_ids, output.logprobs, strict=True):
            if not math.isfinite(chances[token].logprob):
                raise NotFinite("logits", row, self.dtype)
            tokens.append(int(token))
            if decoding.ends(tokens):
                break
        return tokens

    def read(
        self,
        prompts: Sequence[Sequence[int]],  # noqa: ARG002
        *,
        layers: Sequence[int],  # noqa: ARG002
        site: Site = "resid_pre",  # noqa: ARG002
        positions: Sequence[int] = (-1,),  # noqa: ARG002
        batch_tokens: int | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[list[int], Float[Tensor, "row layer position d_model"]]]:
        """Refused."""
        raise self._refusal("read activations")

    def next_tokens(
        self,
        rows: Sequence[Row],  # noqa: ARG002
        *,
        layers: Sequence[int] = (),  # noqa: ARG002
        batch_tokens: int | None = None,  # noqa: ARG002
        finite_only: bool = True,  # noqa: ARG002
    ) -> Iterator[NextTokens]:
        """Refused."""
        raise self._refusal("give next-token logits")

    def losses(
        self,
        rows: Sequence[Continuation],  # noqa: ARG002
        *,
        batch_tokens: int = LOSS_TOKENS,  # noqa: ARG002
    ) -> Iterator[tuple[list[int], list[Float[Tensor, " token"]]]]:
        """Refused."""
        raise self._refusal("give token losses")

    def explore(
        self,
        rows: Sequence[Row],  # noqa: ARG002
        follow: Follow,  # noqa: ARG002
        *,
        max_new_tokens: int,  # noqa: ARG002
        batch_tokens: int | None = None,  # noqa: ARG002
    ) -> Iterator[list[int]]:
        """Refused."""
        raise self._refusal("run trees of continuations")

    def _refusal(self, what: str) -> InputError:
        return InputError(f"the engine 'vllm' cannot {what}: {_REASON}; use engine='transformers'")


class VllmEngines:
    """Checkpoints that vLLM runs."""

    name: ClassVar[str] = "vllm"

    def load(self, request: LoadRequest) -> Checkpoint:
        """Read and check a checkpoint as the engine `transformers` does, then start vLLM on its files.

        Raises:
            InputError: if vLLM is not installed, and for quantised weights and spread devices.
        """
        if request.quantise is not None:
            raise InputError("the engine 'vllm' does not quantise weights; leave quantise out, or use engine='transformers'")
        # Several processes are for several GPUs. One process is enough here, and it ends with this one.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            import vllm  # noqa: F401
        except ImportError as error:
            reason = f"the engine 'vllm' needs vLLM, which cannot be imported ({error})"
            raise InputError(f"{reason}; pip install 'demur[vllm]' in an environment of its own") from error
        # Read on the CPU, so that a GPU is left to vLLM.
        loaded: Checkpoint = registry("engine").get("transformers").load(replace(request, device="cpu"))
        model, config = loaded.model, loaded.model.config
        most = int(getattr(config, "max_position_embeddings", 2048))
        rows = loaded.embedding_rows
        assert rows is not None, "the engine transformers says how many rows its embedding has"
        source = at_hand(find_model(request.model, request.revision))
        with TemporaryDirectory() as folder:
            files = source.path
            if source.kind != "folder" or request.adapter is not None:
                # A GGUF file or a merged adapter: vLLM reads the weights as they are in memory now.
                model.save_pretrained(folder)
                files = Path(folder)
            made = VllmEngine(
                runner=_started(files, request.dtype, most),
                tokenizer=loaded.tokenizer,
                family=loaded.engine.family,
                n_layers=loaded.n_layers,
                d_model=loaded.d_model,
                dtype=loaded.dtype,
                stop_ids=loaded.stop_ids,
                pad_id=loaded.pad_id,
                embedding_rows=rows,
                most_tokens=most,
            )
        del model
        found = replace(loaded, engine=made, facts={**loaded.facts, "engine": "vllm"})
        del loaded
        free_memory()
        return found


def _started(folder: Path | None, dtype: str, most: int) -> Any:
    from vllm import LLM

    # Without prefix caching, a row never depends on what was generated before. Eager, so that nothing is compiled.
    return LLM(
        model=str(folder),
        dtype=dtype,
        max_model_len=most,
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        enforce_eager=True,
        disable_log_stats=True,
        trust_remote_code=False,
    )
