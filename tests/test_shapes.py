"""While the tests run, arrays are checked against their annotated shapes in every module that has some."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

import demur
from demur.engine.batching import position_ids

UNCHECKED = {"demur.engine.hooks"}  # conftest.py says why


def test_every_module_with_shapes_is_checked():
    source = Path(demur.__file__).parent
    shaped = {
        ".".join(("demur", *path.relative_to(source).with_suffix("").parts))
        for path in source.rglob("*.py")
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
    }
    checked = {name for name in shaped if "jaxtyping" in type(import_module(name).__loader__).__module__}
    assert checked == shaped - UNCHECKED
    assert len(checked) > 40


def test_a_wrong_shape_is_found():
    with pytest.raises(Exception, match="position_ids"):
        position_ids(torch.ones(3, dtype=torch.long))
