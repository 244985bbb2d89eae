"""Adapters that were trained after tokens were added to a vocabulary, or removed from it.

The embedding is resized to the number of rows that the adapter's own weights have, as peft's `AutoPeftModel` resizes it to the
adapter's tokenizer. peft leaves random numbers in new rows that the adapter does not hold. demur refuses such an adapter, because
the numbers that it was trained with are lost.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from demur.core.errors import InputError
from demur.models.tokenizers import embedding_rows

_MERGE = "merge the adapter with the program that trained it and load the merged model"

_WHOLE = ("weight", "base_layer.weight", "modules_to_save.weight", "token_adapter.base_layer.weight")
"""The ends of the names under which peft saves a whole embedding (`peft/utils/save_and_load.py`)."""


def fit_vocabulary(
    model: PreTrainedModel, weights: Mapping[str, Tensor], settings: Mapping[str, object], tokenizer: Any, *, own: bool
) -> None:
    """Resize the embedding and the unembedding of a model to the vocabulary that an adapter was trained with.

    Args:
        model: the model without the adapter. It is changed.
        weights: the adapter's weights, as in its file.
        settings: the adapter's settings.
        tokenizer: the tokenizer that will be used with the adapter.
        own: whether this tokenizer came with the adapter.

    Raises:
        InputError: if the tokenizer gives tokens for which there are no weights, and if the adapter was trained with more tokens
            than the model has and does not hold the weights of all new ones.
    """
    leaves = _ends(model)
    before = embedding_rows(model)
    sizes = {rows for leaf in leaves for rows in _rows(weights, leaf)}
    if len(sizes) > 1:
        raise InputError(f"its weights are for vocabularies of different sizes, {', '.join(map(str, sorted(sizes)))}; {_MERGE}")
    single = [index for leaf in leaves for index in single_tokens(settings, leaf)]
    trained = max(next(iter(sizes), before), *(index + 1 for index in single), 0)
    # A tokenizer of the base that does not fit the base is not the adapter's fault.
    tokens = _highest(tokenizer) + 1 if own or trained != before else 0
    if tokens > trained:
        whose = "its tokenizer" if own else "the tokenizer of the base"
        holds = "does not hold the embeddings of the others" if trained == before else f"holds {trained} embeddings"
        raise InputError(f"{whose} has {tokens} tokens and the base has {before}, and the adapter {holds}; {_MERGE}")
    if trained == before:
        return
    if trained > before:
        tied = model.get_input_embeddings().weight is getattr(model.get_output_embeddings(), "weight", None)
        held = [_holds(weights, settings, leaf, range(before, trained)) for leaf in leaves]
        if not (any(held) if tied else all(held)):
            raise InputError(
                f"it was trained with {trained} tokens and the base has {before}, and the adapter does not hold the embeddings "
                f"and unembeddings of all new tokens; {_MERGE}"
            )
    # transformers would give new rows the mean of the old ones. All new rows come from the adapter, so this is not needed.
    model.resize_token_embeddings(trained, mean_resizing=False)


def _ends(model: PreTrainedModel) -> list[str]:
    """The last parts of the paths of embedding and unembedding, such as `embed_tokens` and `lm_head`."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    paths = {id(module): path for path, module in model.named_modules()}
    return [paths[id(end)].rpartition(".")[2] for end in ends if end is not None]


def _rows(weights: Mapping[str, Tensor], leaf: str) -> Iterator[int]:
    """The number of tokens in each weight of one end that has a row, or a column, for every token."""
    for name, weight in weights.items():
        place, _, last = name.rpartition(f".{leaf}.")
        if place and last in (*_WHOLE, "lora_B.weight") and weight.ndim == 2:
            yield int(weight.shape[0])
        elif place and last == "lora_embedding_A":
            yield int(weight.shape[1])


def _holds(weights: Mapping[str, Tensor], settings: Mapping[str, object], leaf: str, new: range) -> bool:
    """Whether an adapter has whole rows of one end for all new tokens."""
    whole = any(name.endswith(f".{leaf}.{last}") for name in weights for last in _WHOLE)
    return whole or set(new) <= set(single_tokens(settings, leaf))


def single_tokens(settings: Mapping[str, object], leaf: str | None = None) -> list[int]:
    """The tokens whose embeddings an adapter trained one by one.

    Args:
        settings: the adapter's settings.
        leaf: the last part of the path of the embedding; None for all modules.
    """
    found = settings.get("trainable_token_indices") or settings.get("token_indices") or []
    if isinstance(found, Mapping):
        lists = [indices for name, indices in found.items() if leaf is None or str(name).rpartition(".")[2] == leaf]
    else:
        lists = [found]
    return [index for one in lists if isinstance(one, list) for index in one if isinstance(index, int)]


def _highest(tokenizer: Any) -> int:
    """The highest id that a tokenizer gives."""
    return max(tokenizer.get_vocab().values(), default=-1)
