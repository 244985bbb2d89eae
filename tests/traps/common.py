"""What the tests of the trap table share: a prompt, a direction, and a model's logits under edits."""

import torch

from demur.directions.direction import from_raw
from demur.engine.hooks import edited
from demur.interventions.edit_table import tabulate
from demur.models.families import layout_of

PROMPT = [1, 7, 20, 33, 5, 60]


def direction(layer=1, seed=3, width=32):
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(seed)), name="d", layer=layer)


def plain(model, prompt=PROMPT, **inputs):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([prompt]), use_cache=False, **inputs).logits


def steered(model, edits, prompt=PROMPT):
    layout = layout_of(model.config)
    with edited(model, layout, tabulate([edits], layout, 3, 32, "cpu")):
        return plain(model, prompt)
