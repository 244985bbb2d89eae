"""The KV cache of branches gives what a copy of whole rows gives, and does not hold the prompt for each branch."""

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from demur.engine.continuations.branch_cache import BranchLayer, chosen_branches


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_branches_of_branches_have_the_keys_and_values_of_copied_rows(dtype):
    cache = DynamicCache()
    prompts = random(3, 2, 5, 4, dtype=dtype), random(3, 2, 5, 4, seed=1, dtype=dtype)
    cache.update(*prompts, 0)
    rows = list(prompts)
    for step, places in enumerate(([2, 0, 0, 1], [3, 3, 0], [1, 2])):
        cache = chosen_branches(cache, torch.tensor(places))
        new = random(len(places), 2, 1, 4, seed=2 + step, dtype=dtype), random(len(places), 2, 1, 4, seed=9 + step, dtype=dtype)
        assert cache.get_seq_length() == 5 + step
        assert cache.get_mask_sizes(1, 0) == (6 + step, 0)
        found = cache.update(*new, 0)
        rows = [torch.cat((whole[places], one), dim=2) for whole, one in zip(rows, new, strict=True)]
        assert all(torch.equal(one, other) for one, other in zip(found, rows, strict=True))


def test_a_prompt_is_held_once_and_other_choices_stay_as_they_are():
    cache = DynamicCache()
    cache.update(random(2, 1, 3, 4), random(2, 1, 3, 4), 0)
    cache.layers.append(DynamicLayer())  # a layer that text does not run through
    first = chosen_branches(cache, torch.tensor([0] * 100))
    second = chosen_branches(first, torch.tensor([5, 7]))
    first.update(random(100, 1, 1, 4), random(100, 1, 1, 4), 0)
    layers = [one.layers[0] for one in (first, second)]
    assert all(isinstance(layer, BranchLayer) and layer.prompts[0] is cache.layers[0].keys for layer in layers)
    assert [layer.own[0].shape[2] for layer in layers] == [1, 0]
    assert not first.layers[1].is_initialized
