"""Two checkpoints that can run in lockstep: their streams have the same shape, and a token id means the same in both."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint

_FREE_FIELDS = frozenset(
    {
        "_attn_implementation", "_name_or_path", "architectures", "attention_dropout", "attn_implementation", "attn_pdrop",
        "bos_token_id", "dropout", "dtype", "embd_pdrop", "eos_token_id", "hidden_dropout", "id2label", "initializer_range",
        "label2id", "max_position_embeddings", "output_attentions", "output_hidden_states", "pad_token_id", "pretraining_tp",
        "problem_type", "resid_pdrop", "return_dict", "tie_word_embeddings", "transformers_version", "unsloth_version",
        "use_cache", "vocab_size",
    }
)  # fmt: skip
"""Fields of a config that may differ: names, special tokens, training settings, and sizes that are compared in another way."""


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """Two checkpoints that match.

    Attributes:
        source: the checkpoint that something is taken from.
        target: the checkpoint that it is put into.
        vocabulary: how many token ids both have, from 0. Logits are compared for these ids only.
    """

    source: Checkpoint
    target: Checkpoint
    vocabulary: int

    @property
    def reversed(self) -> "MatchedPair":
        """The same pair in the other direction."""
        return MatchedPair(self.target, self.source, self.vocabulary)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that holds the logits of both."""
        return torch.promote_types(self.source.dtype, self.target.dtype)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a completion in either checkpoint. Both end at the same tokens, so that they can be compared."""
        return tuple(sorted({*self.source.stop_ids, *self.target.stop_ids}))


def matched_pair(source: Checkpoint, target: Checkpoint) -> MatchedPair:
    """Two checkpoints as a pair, after checking that they match.

    Args:
        source: one checkpoint, run by the engine `transformers`.
        target: the other one.

    Returns:
        The pair.

    Raises:
        InputError: if the checkpoints have different architectures, or if a token id means different things in both. Tokens that
            only one of them has, and special tokens with another name, are not refused.
    """
    one, other = source.model.config.get_text_config(), target.model.config.get_text_config()
    named = f"{source.name!r} and {target.name!r}"
    kinds = (source.layout.family, source.n_layers, source.d_model), (target.layout.family, target.n_layers, target.d_model)
    if kinds[0] != kinds[1]:
        said = [f"{family} with {layers} layers of width {width}" for family, layers, width in kinds]
        raise InputError(
            f"{named} cannot run in lockstep: one is {said[0]}, the other {said[1]}; compare two checkpoints of one architecture"
        )
    field = _different_field(one.to_dict(), other.to_dict())
    if field is not None:
        raise InputError(
            f"{named} cannot run in lockstep: their configs differ in {field!r} ({getattr(one, field, None)!r} and "
            f"{getattr(other, field, None)!r}); compare two checkpoints of one architecture"
        )
    _refuse_other_tokens(source, target, named)
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (source.model, target.model)]
    return MatchedPair(source, target, min(sizes))


def _different_field(one: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """The first field that decides what a model computes and that differs."""
    for field in sorted({*one, *other} - _FREE_FIELDS):
        if one.get(field) != other.get(field):
            return field
    return None


def _refuse_other_tokens(source: Checkpoint, target: Checkpoint, named: str) -> None:
    """Raises `InputError` if a token id means different things in both."""
    if source.tokenizer is target.tokenizer:
        return
    texts, special = [], set[int]()
    for tokenizer in (source.tokenizer, target.tokenizer):
        texts.append({index: text for text, index in tokenizer.get_vocab().items()})
        special.update(tokenizer.added_tokens_decoder)
    for index in sorted(texts[0].keys() & texts[1].keys()):
        if texts[0][index] != texts[1][index] and index not in special:
            raise InputError(
                f"{named} cannot run in lockstep: token {index} is {texts[0][index]!r} in one tokenizer and {texts[1][index]!r} "
                "in the other; compare two checkpoints with the same tokenizer"
            )
