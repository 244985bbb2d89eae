"""Names that the examples in docstrings may use: a tiny checkpoint with random weights, and what is made of it."""

import pytest


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
