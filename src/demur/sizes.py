"""How large a checkpoint is, told from its config or from a GGUF file's header, before any weights are read.

What the files do not tell is None and is never guessed: then a plan says less.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.sources import Source, read_config


@dataclass(frozen=True)
class Size:
    """Numbers of weights, and widths.

    `total` are all weights; `blocks` those of the matrices that every token passes (of a mixture of experts, all experts);
    `head` those of the unembedding, which the last prompt token and every new token pass. `kv_width` is what one token adds to a
    layer's keys, and to its values; `inner` the width inside the MLP. Where only a count is known, all weights are in `blocks`.
    """

    total: int
    blocks: int
    head: int = 0
    layers: int | None = None
    width: int | None = None
    kv_width: int | None = None
    inner: int | None = None
    vocabulary: int | None = None


def size_of(source: Source) -> Size | None:
    """The size of a checkpoint; None where its config alone does not tell. Raises `InputError` for a file that cannot be read."""
    if source.kind == "gguf":
        assert source.path is not None
        try:
            return _of_gguf(source.path)
        except (ValueError, IndexError, KeyError, OSError) as error:
            raise InputError(f"{source.reference!r} cannot be read as a GGUF file ({error}); fetch it again") from error
    config = read_config(source)
    return None if config is None else _of_config(dict(config))


@cache  # reading the header of a GGUF file takes seconds
def _of_gguf(path: Path) -> Size:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    counts = {str(tensor.name): int(tensor.n_elements) for tensor in reader.tensors}
    matrices = {str(tensor.name) for tensor in reader.tensors if len(tensor.shape) > 1}
    embedding = counts.get("token_embd.weight", 0)
    family = _fact(reader, "general.architecture")

    def fact(name: str) -> int | None:
        value = _fact(reader, f"{family}.{name}")
        return value if isinstance(value, int) else None

    layers, width, heads = fact("block_count"), fact("embedding_length"), fact("attention.head_count")
    groups = fact("attention.head_count_kv") or heads
    head_width = fact("attention.key_length") or (width // heads if width and heads else None)
    return Size(
        total=sum(counts.values()),
        blocks=sum(count for name, count in counts.items() if name.startswith("blk.") and name in matrices),
        head=counts.get("output.weight", embedding),
        layers=layers,
        width=width,
        kv_width=groups * head_width if groups and head_width else None,
        inner=fact("feed_forward_length"),
        vocabulary=embedding // width if width else None,
    )


def _fact(reader: Any, name: str) -> Any:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _of_config(config: dict[str, Any]) -> Size | None:
    import torch
    from transformers import AutoConfig

    from demur.checkpoints import auto_class
    from demur.families import layout_of

    family = config.pop("model_type", None)
    try:
        made = AutoConfig.for_model(family, **config)
        with torch.device("meta"):
            model = auto_class(made).from_config(made)
    except (ValueError, KeyError, TypeError, ImportError):
        # A config that this version of transformers does not know; loading will say so in its own words.
        return None
    total = sum(int(weight.numel()) for weight in model.parameters())
    text = made.get_text_config()
    heads, width = getattr(text, "num_attention_heads", None), getattr(text, "hidden_size", None)
    groups = getattr(text, "num_key_value_heads", None) or heads
    head_width = getattr(text, "head_dim", None) or (width // heads if width and heads else None)
    unembedding = model.get_output_embeddings()
    try:
        found = layout_of(made).find_blocks(model)
        blocks = sum(int(weight.numel()) for block in found for weight in block.parameters() if weight.ndim > 1)
    except InputError:  # a family that demur has no layout for; loading will refuse it
        blocks = total
    return Size(
        total=total,
        blocks=blocks,
        head=0 if unembedding is None else int(unembedding.weight.numel()),
        layers=getattr(text, "num_hidden_layers", None),
        width=width,
        kv_width=groups * head_width if groups and head_width else None,
        inner=getattr(text, "intermediate_size", None),
        vocabulary=getattr(text, "vocab_size", None),
    )
