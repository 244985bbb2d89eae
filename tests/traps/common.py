"""What the tests of the trap table share: a prompt, a direction, and a model's logits under edits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from demur.directions.direction import Direction, from_raw
from demur.engine.hooks import edited
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import RowEdits
from demur.models.families import layout_of

PROMPT = [1, 7, 20, 33, 5, 60]


def direction(layer: int = 1, seed: int = 3, width: int = 32) -> Direction:
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(seed)), name="d", layer=layer)


def plain(model: PreTrainedModel, prompt: Sequence[int] = PROMPT, **inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.tensor([prompt]), use_cache=False, **inputs).logits
    return logits


def steered(model: PreTrainedModel, edits: RowEdits, prompt: Sequence[int] = PROMPT) -> Tensor:
    layout = layout_of(model.config)
    with edited(model, layout, tabulate([edits], layout, 3, 32, "cpu")):
        return plain(model, prompt)
