"""Shapes of arrays are checked while the tests run. Docstrings' examples may use a tiny checkpoint and what is made of it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

NOT_CHECKED = {"demur.engine.hooks"}
"""Its hooks are made anew for every batch, and instrumenting them takes three quarters of a test of decoding."""


def _modules_with_shapes() -> list[str]:
    """The modules that annotate shapes. Checking the calls of all others too would make the tests a sixth longer."""
    package = find_spec("demur")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent
    files = (path for path in source.rglob("*.py") if "from jaxtyping import" in path.read_text(encoding="utf-8"))
    return [".".join(("demur", *path.relative_to(source).with_suffix("").parts)) for path in files]


# Before any of them is imported.
install_import_hook([name for name in _modules_with_shapes() if name not in NOT_CHECKED], "beartype.beartype")


@pytest.fixture(autouse=True)
def _names_for_examples(request: pytest.FixtureRequest) -> None:
    if type(request.node).__name__ == "DoctestItem":
        request.getfixturevalue("doctest_namespace").update(request.getfixturevalue("tiny_example"))


@pytest.fixture(scope="session")
def tiny_example() -> dict[str, object]:
    """`checkpoint`, `prompt`, `direction` and `candidates`."""
    import torch
    from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM

    import demur

    torch.set_num_threads(1)
    config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    checkpoint = demur.wrap(LlamaForCausalLM(config), GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, []), name="tiny")
    prompt = demur.prompt_format("{instruction}a", checkpoint)
    return {
        "checkpoint": checkpoint,
        "prompt": prompt,
        "direction": demur.from_raw(torch.ones(16), name="d", layer=1),
        "candidates": demur.candidate_directions(checkpoint, ["b", "ab"], ["a", "aa"], prompt),
    }
