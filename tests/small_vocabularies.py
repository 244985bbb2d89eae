"""Checkpoints with vocabularies of about a dozen tokens, for each way of joining tokens, and their refusals by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from demur.engine.checkpoints import Checkpoint, wrap
from demur.engine.hooks import edited
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import RowEdits
from demur.judges.judge import TextJudge, Verdict
from tests.tiny import tiny_model

SPECIAL = ("<pad>", "<bos>", "<eos>")
BYTE_LEVEL = (
    "no", "I", "\u0120can", "\u0120cannot", "not", "\u0120", "\u010a", "\u00e2\u0122", "\u013bm", "\u0122\u0120I",
)  # fmt: skip
"""In the letters of GPT-2: \u0120 is a space and \u010a a newline. The last three are the bytes E2 80, 99 m, and 80 space I. The
first two of them make \u2019m, the first and the last a white space of three bytes, a space and an I."""
FALLBACK = ("no", "I", "\u2581I", "\u2581can", "not", "\u2581", "m", "<0x0A>", "<0xE2>", "<0x80>", "<0x99>", "<0x49>")
METASPACE = ("no", "\u2581I", "I", "\u2581can", "not", "\u2581cannot", "\u2581", "\u2581\u2581")
WORDS = ("no", "I", "can", "cannot", "not", "I'm", "sorry", " I")


def small_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of one kind: `byte-level`, `fallback`, `metaspace` or `words`."""
    own = {"byte-level": BYTE_LEVEL, "fallback": FALLBACK, "metaspace": METASPACE, "words": WORDS}[kind]
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *own))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="no"))
    replace = decoders.Replace("\u2581", " ")
    found = {
        "byte-level": decoders.ByteLevel(),
        "fallback": decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        "metaspace": decoders.Metaspace(),
    }
    if kind in found:
        backend.decoder = found[kind]
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos)


def small_checkpoint(kind: str, family: str = "llama", *, extra: int = 1) -> Checkpoint:
    """A random model in float64 whose vocabulary is that of `small_tokenizer`, and `extra` ids that are no token."""
    tokenizer = small_tokenizer(kind)
    model = tiny_model(family, dtype=torch.float64, vocab_size=len(tokenizer) + extra)
    return wrap(model, tokenizer, name=kind)


@dataclass(frozen=True)
class BruteForce:
    """All completions of a prompt up to some length, with their probabilities.

    Attributes:
        completions: completion -> its probability when sampled at temperature 1.
    """

    completions: dict[tuple[int, ...], float]

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, prompt: Sequence[int], edits: RowEdits, length: int, stop_ids: Sequence[int]
    ) -> BruteForce:
        """Walk every token sequence of this length: whole forward passes, no KV cache, no padding, nothing left out."""
        model, layout = checkpoint.model, checkpoint.layout
        table = tabulate([edits], layout, checkpoint.n_layers, checkpoint.d_model, "cpu")
        finished: dict[tuple[int, ...], float] = {}
        open_ones: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(length):
            ids = torch.tensor([[*prompt, *tokens] for tokens in open_ones])
            with torch.inference_mode(), edited(model, layout, table, prompt_width=len(prompt)):
                shares = model(input_ids=ids, use_cache=False).logits[:, -1].double().softmax(-1).tolist()
            longer: dict[tuple[int, ...], float] = {}
            for (tokens, mass), own in zip(open_ones.items(), shares, strict=True):
                for token, share in enumerate(own):
                    (finished if token in stop_ids else longer)[*tokens, token] = mass * share
            open_ones = longer
        found = finished | open_ones
        assert abs(sum(found.values()) - 1) < 1e-12
        return cls(found)

    def refusal(self, checkpoint: Checkpoint, judge: TextJudge) -> float:
        """The probability of the completions that a judge calls a refusal, decoded by the tokenizer itself."""
        decode = checkpoint.tokenizer.decode
        texts = {tokens: decode(list(tokens), skip_special_tokens=True) for tokens in self.completions}
        return sum(
            mass
            for tokens, mass in self.completions.items()
            if isinstance(verdict := judge(texts[tokens]), Verdict) and verdict.refusal
        )
