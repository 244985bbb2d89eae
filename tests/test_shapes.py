"""While the tests run, arrays are checked against their annotated shapes in every module that has some."""

from pathlib import Path

import pytest
import torch

import demur
from demur.engine.batching import position_ids

UNCHECKED = {"demur.engine.hooks"}  # pyproject.toml says why


def test_every_module_with_shapes_is_checked(pytestconfig):
    source = Path(demur.__file__).parent
    shaped = {
        ".".join(("demur", *path.relative_to(source).with_suffix("").parts))
        for path in source.rglob("*.py")
        if "from jaxtyping import" in path.read_text(encoding="utf-8")
    }
    *checked, checker = pytestconfig.getoption("jaxtyping_packages").split(",")
    assert checker == "beartype.beartype"
    assert {name for name in shaped if any(f"{name}.".startswith(f"{one}.") for one in checked)} == shaped - UNCHECKED


def test_a_wrong_shape_is_found():
    with pytest.raises(Exception, match="position_ids"):
        position_ids(torch.ones(3, dtype=torch.long))
