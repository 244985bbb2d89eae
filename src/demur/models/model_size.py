"""The size of a checkpoint from its config or a GGUF file's header, before any weights are read.

Facts that are not in the files are None and are never guessed. A plan then leaves them out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.core.errors import InputError
from demur.models import gguf_files
from demur.models.memory_budget import BYTES
from demur.models.sources import Source, read_config


@dataclass(frozen=True)
class Size:
    """Numbers of weights, and widths.

    Attributes:
        total: all weights.
        blocks: those of the blocks' matrices, which every token passes; of a mixture of experts, all experts. All weights where
            only their total is known.
        head: those of the unembedding, which the last prompt token and every new token pass.
        layers: the number of blocks.
        width: the width of the stream.
        kv_width: the width of the keys, and of the values, that one token adds to a layer's KV cache.
        inner: the width inside the MLP.
        vocabulary: the number of tokens.
        linear: the weights that bitsandbytes would quantise.
        packable: the weights that `prepacked_weights.py` copies.
        already: how the weights in the checkpoint's folder are quantised: `8bit`, `4bit` or None.
    """

    total: int
    blocks: int
    head: int = 0
    layers: int | None = None
    width: int | None = None
    kv_width: int | None = None
    inner: int | None = None
    vocabulary: int | None = None
    linear: int = 0
    packable: int = 0
    already: str | None = None

    def bytes(self, dtype: str, quantise: str | None = None) -> int:
        """Bytes of all weights in memory."""
        from demur.models.quantisation import BYTES as QUANTISED

        each = QUANTISED.get(quantise or self.already or "", BYTES[dtype])
        return int((self.total - self.linear) * BYTES[dtype] + self.linear * each)


def size_of(source: Source) -> Size | None:
    """The size of a checkpoint.

    Args:
        source: its files.

    Returns:
        The size; None if the config alone does not say.

    Raises:
        InputError: for a file that cannot be read.
    """
    if source.kind == "gguf":
        assert source.path is not None
        return _of_gguf(source.path)
    config = read_config(source)
    return None if config is None else _of_config(dict(config))


def _of_gguf(path: Path) -> Size:
    found = gguf_files.header(path)
    said = found.settings
    width, heads = said.get("embedding_length"), said.get("attention.head_count")
    groups = said.get("attention.head_count_kv") or heads
    head_width = said.get("attention.key_length") or (width // heads if width and heads else None)
    return Size(
        total=found.weights,
        blocks=found.linear,
        head=found.head,
        layers=said.get("block_count"),
        width=width,
        kv_width=groups * head_width if groups and head_width else None,
        inner=said.get("feed_forward_length"),
        vocabulary=found.embedding // width if width else None,
        linear=found.linear,
        packable=found.linear + found.head,
    )


# Any: what a config.json contains depends on its family.
def _of_config(config: dict[str, Any]) -> Size | None:
    import torch
    from torch import nn
    from transformers import AutoConfig
    from transformers.pytorch_utils import Conv1D

    from demur.models.families import layout_of
    from demur.models.layouts import kv_width_of
    from demur.models.load_weights import auto_class

    family, stored = config.pop("model_type", None), config.pop("quantization_config", None) or {}
    try:
        made = AutoConfig.for_model(family, **config)
        with torch.device("meta"):
            model = auto_class(made).from_config(made)
    except Exception:
        # This version of transformers does not accept the config. Loading the checkpoint will say why.
        return None
    total = sum(int(weight.numel()) for weight in model.parameters())
    text = made.get_text_config()
    unembedding = model.get_output_embeddings()
    maps = [one for one in model.modules() if (type(one) is nn.Linear or isinstance(one, Conv1D)) and one is not unembedding]
    try:
        found = layout_of(made).find_blocks(model)
        blocks = sum(int(weight.numel()) for block in found for weight in block.parameters() if weight.ndim > 1)
        inside = dict.fromkeys([*(one for block in found for one in block.modules()), unembedding])
        packable = sum(int(one.weight.numel()) for one in inside if type(one) is nn.Linear)
    except InputError:  # demur has no layout for this family, and will refuse to load it
        blocks, packable = total, 0
    return Size(
        total=total,
        blocks=blocks,
        head=0 if unembedding is None else int(unembedding.weight.numel()),
        layers=getattr(text, "num_hidden_layers", None),
        width=getattr(text, "hidden_size", None),
        kv_width=kv_width_of(text),
        inner=getattr(text, "intermediate_size", None),
        vocabulary=getattr(text, "vocab_size", None),
        linear=sum(int(one.weight.numel()) for one in maps),
        packable=packable,
        already=next((name for name in ("8bit", "4bit") if stored.get(f"load_in_{name}")), None),
    )
